"""What an INT8 file for the CPU computes between its products, as functions of standard operators.

A file carries each such node and its function, as it does with the selective scan: ONNX Runtime
takes the kernel of plugins/onnxruntime where that is loaded, and inlines the function elsewhere.
plugins/README.md specifies the operators.
"""

from __future__ import annotations

from typing import Final

import onnx
import onnx.parser

from export.fused_products import DOMAIN, PRODUCT
from mambapro.contract import OP_DOMAIN, OP_VERSION

SILU: Final = "SiluQuantize"
NORM: Final = "LayerNormQuantize"
ADD_NORM: Final = "AddLayerNormQuantize"
ATTENTION: Final = "AttentionQuantize"
PRODUCT_SILU: Final = "MatMulSiluQuantize"

PRODUCT_STEP: Final = 32
"""Divides both sizes of a weight, in the kernel of MatMulSiluQuantize."""

MOST_CHANNELS: Final = 128
"""Of a head, in the kernel of AttentionQuantize."""
TO_HEADS: Final = [1, 2, 0, 3]
"""Axes of (tokens, rows, heads, channels) as attention multiplies queries and values."""
TO_HEADS_TRANSPOSED: Final = [1, 2, 3, 0]
"""The same of keys."""
FROM_HEADS: Final = [2, 0, 1, 3]

_BODIES: Final = {
    SILU: """(x, scale, zero_point) => (y)
{
    gate = Sigmoid (x)
    gated = Mul (x, gate)
    y = QuantizeLinear (gated, scale, zero_point)
}""",
    NORM: """<epsilon> (x, gain, shift, scale, zero_point) => (y)
{
    normed = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, gain, shift)
    y = QuantizeLinear (normed, scale, zero_point)
}""",
    ADD_NORM: """<epsilon>
    (x, branch, gain, shift, scale, zero_point, sum_scale, sum_zero_point) => (sum, y, sum_y)
{
    sum = Add (x, branch)
    normed = LayerNormalization <axis = -1, epsilon: float = @epsilon> (sum, gain, shift)
    y = QuantizeLinear (normed, scale, zero_point)
    sum_y = QuantizeLinear (sum, sum_scale, sum_zero_point)
}""",
    ATTENTION: f"""<factor> (query, key, value, scale, zero_point) => (y)
{{
    by_head = Transpose <perm = {TO_HEADS}> (query)
    multiplier = Constant <value_float: float = @factor> ()
    scaled = Mul (by_head, multiplier)
    keys = Transpose <perm = {TO_HEADS_TRANSPOSED}> (key)
    scores = MatMul (scaled, keys)
    weights = Softmax <axis = -1> (scores)
    values = Transpose <perm = {TO_HEADS}> (value)
    attended = MatMul (weights, values)
    tokens = Transpose <perm = {FROM_HEADS}> (attended)
    y = QuantizeLinear (tokens, scale, zero_point)
}}""",
    PRODUCT_SILU: f"""
    (x, weight, x_scale, x_zero_point, weight_scale, bias, scale, zero_point) => (y)
{{
    product = {DOMAIN}.{PRODUCT} (x, weight, x_scale, weight_scale, x_zero_point, , bias)
    y = {OP_DOMAIN}.{SILU} (product, scale, zero_point)
}}""",
}


def token_function(name: str, opset: int) -> onnx.FunctionProto:
    """Return the operator ``name`` of others, the standard ones of ``opset``, the model's own."""
    imports = {"": opset, DOMAIN: 1, OP_DOMAIN: OP_VERSION} if name == PRODUCT_SILU else {"": opset}
    listed = ", ".join(f'"{domain}" : {version}' for domain, version in imports.items())
    header = f'<domain: "{OP_DOMAIN}", opset_import: [{listed}]>'
    return onnx.parser.parse_function(f"{header}\n{name} {_BODIES[name]}")
