"""The selective scan for ONNX: the schema of its node, and the same operator as a function.

A file carries both. A runtime with a kernel for ``mambapro::SelectiveScan`` uses it; any other one
inlines the function, which is made of standard operators only.
"""

from __future__ import annotations

from typing import Any, Final

import onnx
import onnx.parser

from mambapro.contract import OP_DOMAIN, OP_NAME, OP_VERSION

NODE_ATTRIBUTES: Final = {"plugin_version": str(OP_VERSION), "plugin_namespace": ""}
"""TensorRT finds its plugin by these; from 10.15 on it prefers the plugin to the function only if
plugin_namespace is there."""

_INPUTS: Final = (
    ("u", "T", "(G*B, L, D), group-major"),
    ("delta", "T", "(G*B, L, D), before bias and softplus"),
    ("A", "F", "(G, D, N), negative"),
    ("B", "T", "(G*B, L, N)"),
    ("C", "T", "(G*B, L, N)"),
    ("D", "F", "(G, D)"),
    ("delta_bias", "F", "(G, D)"),
)

FLOAT32_INPUTS: Final = tuple(i for i, (_, kind, _) in enumerate(_INPUTS) if kind == "F")
"""Positions of the parameters, which are float32 whatever type the sequences have."""

# The step works on states of (G, B, N, D), not (..., D, N): the long axis last makes every
# broadcast run over whole rows, and what depends on t only is shaped for that before the loop.
# Identity: without it TensorRT-RTX 1.7 builds no float16 file, because its compiler moves a reshape
# of C_t out of the loop ("Mismatched number of elements"). ONNX Runtime removes it.
_FUNCTION: Final = """
<domain: "%(domain)s", opset_import: ["" : %(opset)d]>
%(name)s <plugin_version: string = "1", plugin_namespace: string = "">
    (u, delta, A, B, C, D, delta_bias) => (y)
{
    groups = Shape <start = 0, end = 1> (A)
    length = Shape <start = 1, end = 2> (u)
    channels = Shape <start = 2, end = 3> (u)
    states = Shape <start = 2, end = 3> (A)
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    row_shape = Concat <axis = 0> (groups, rest, length, one, channels)
    state_shape = Concat <axis = 0> (groups, rest, length, states, one)
    output_shape = Concat <axis = 0> (groups, rest, length, one, states)
    group_shape = Concat <axis = 0> (groups, one, one, one, channels)

    u32 = Cast <to = 1> (u)
    u_rows = Reshape (u32, row_shape)
    delta32 = Cast <to = 1> (delta)
    delta_rows = Reshape (delta32, row_shape)
    bias_rows = Reshape (delta_bias, group_shape)
    biased = Add (delta_rows, bias_rows)
    steps = Softplus (biased)
    inputs = Mul (steps, u_rows)
    B32 = Cast <to = 1> (B)
    B_columns = Reshape (B32, state_shape)
    C32 = Cast <to = 1> (C)
    C_rows = Reshape (C32, output_shape)
    A_transposed = Transpose <perm = [0, 2, 1]> (A)
    A_rows = Unsqueeze (A_transposed, one)

    batch = Shape <start = 1, end = 2> (u_rows)
    start_shape = Concat <axis = 0> (groups, batch, states, channels)
    start = ConstantOfShape <value = float[1] {0.0}> (start_shape)
    end, scanned = Scan <
        num_scan_inputs = 4,
        scan_input_axes = [2, 2, 2, 2],
        scan_output_axes = [2],
        body = step (float[G, Bn, N, Dn] h, float[G, Bn, 1, Dn] step_t, float[G, Bn, 1, Dn] input_t,
                     float[G, Bn, N, 1] B_t, float[G, Bn, 1, N] C_t)
            => (float[G, Bn, N, Dn] h_t, float[G, Bn, 1, Dn] y_t)
        {
            exponent = Mul (step_t, A_rows)
            decay = Exp (exponent)
            kept = Mul (decay, h)
            added = Mul (B_t, input_t)
            h_t = Add (kept, added)
            C_row = Identity (C_t)
            y_t = MatMul (C_row, h_t)
        }
    > (start, steps, inputs, B_columns, C_rows)

    D_rows = Reshape (D, group_shape)
    skipped = Mul (u_rows, D_rows)
    summed = Add (scanned, skipped)
    shape = Shape (u)
    y32 = Reshape (summed, shape)
    y = CastLike (y32, u)
}
"""


def scan_function(opset: int) -> onnx.FunctionProto:
    """Return ``mambapro::SelectiveScan`` (DESIGN section 4) built from standard operators.

    ``opset`` must be the model's own: with another one, ``onnx.inliner`` leaves the function alone.
    """
    names = {"domain": OP_DOMAIN, "name": OP_NAME, "opset": opset}
    return onnx.parser.parse_function(_FUNCTION % names)


def register_schema() -> None:
    """Tell onnx and torch.onnx the node's signature; does nothing the second time."""
    if not onnx.defs.has(OP_NAME, OP_DOMAIN):
        onnx.defs.register_schema(scan_schema())


def scan_schema() -> Any:
    """Return the ``onnx.defs.OpSchema`` of the node."""
    schema = onnx.defs.OpSchema
    return schema(
        OP_NAME,
        OP_DOMAIN,
        OP_VERSION,
        doc="h_t = exp(d_t A) h_(t-1) + d_t u_t B_t; y_t = C_t h_t + D u_t; "
        "d = softplus(delta + delta_bias).",
        inputs=[schema.FormalParameter(name, kind, doc) for name, kind, doc in _INPUTS],
        outputs=[schema.FormalParameter("y", "T", "(G*B, L, D)")],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)"], "Type of the sequences."),
            ("F", ["tensor(float)"], "Type of the parameters and of the state."),
        ],
        attributes=[
            schema.Attribute(name, schema.AttrType.STRING, "For TensorRT.", required=False)
            for name in NODE_ATTRIBUTES
        ],
    )
