"""The nodes between INT8 products against onnx's own evaluator, and how they get into a file."""

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
import onnx.parser
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from export.fused_tokens import fuse_tokens
from export.token_functions import ADD_NORM, ATTENTION, NORM, SILU, token_function
from mambapro.contract import OP_DOMAIN, OP_VERSION
from tests.onnx_sessions import session
from tests.tolerances import QUANTISED_FLIPS

OPSET = 18
STEP = ("scale", "zero_point")
INPUTS = {
    SILU: ("x", *STEP),
    NORM: ("x", "gain", "shift", *STEP),
    ADD_NORM: ("x", "branch", "gain", "shift", *STEP, "sum_scale", "sum_zero_point"),
    ATTENTION: ("query", "key", "value", *STEP),
}
OUTPUTS = {SILU: ("y",), NORM: ("y",), ADD_NORM: ("sum", "y", "sum_y"), ATTENTION: ("y",)}
ATTRIBUTES = {SILU: {}, NORM: {"epsilon": 1e-5}, ADD_NORM: {"epsilon": 1e-3},
              ATTENTION: {"factor": 0.3}}  # fmt: skip
# One value, lanes and tasks that do not come out even, and the network's own sizes; for attention
# (tokens, rows, heads, channels): one token, less than a tile of 48, two parts of 144, wide heads.
SHAPES = [
    *((kind, shape) for kind in (SILU, NORM, ADD_NORM)
      for shape in ((1, 1), (3, 5), (2, 3, 16), (17, 33), (37, 768))),
    (SILU, (43, 3072)),
    *((ATTENTION, shape) for shape in ((1, 1, 1, 1), (5, 2, 3, 7), (49, 1, 2, 32), (141, 2, 2, 64),
                                       (150, 1, 1, 65), (7, 1, 1, 128))),
]  # fmt: skip


def model(kind):
    """A file of one node and its function; its inputs have any shape."""
    node = helper.make_node(kind, INPUTS[kind], OUTPUTS[kind], domain=OP_DOMAIN, **ATTRIBUTES[kind])
    inputs = [value(name) for name in INPUTS[kind]]
    outputs = [value(name) for name in OUTPUTS[kind]]
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(
        helper.make_graph([node], kind, inputs, outputs),
        opset_imports=imports,
        ir_version=10,
        functions=[token_function(kind, OPSET)],
    )


def value(name):
    quantised = name.endswith("zero_point") or name in ("y", "sum_y")
    kind = TensorProto.UINT8 if quantised else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, None)


def feed(kind, shape):
    random = np.random.default_rng(sum(shape))
    made = {}
    for name in INPUTS[kind]:
        if name.endswith("zero_point"):
            made[name] = np.uint8(random.integers(60, 150))
        elif name.endswith("scale"):
            made[name] = np.float32(0.017)
        else:
            size = shape[-1:] if name in ("gain", "shift") else shape
            made[name] = random.normal(0, 2, size).astype(np.float32)
    return arrays(made)


def arrays(inputs):
    return {name: np.asarray(array) for name, array in inputs.items()}


@pytest.mark.parametrize("with_library", [True, False], ids=["kernel", "function"])
@pytest.mark.parametrize(("kind", "shape"), SHAPES, ids=str)
def test_results_are_those_of_the_standard_operators(kind, shape, with_library):
    inputs = feed(kind, shape)
    expected = ReferenceEvaluator(model(kind)).run(None, inputs)
    found = session(model(kind), with_library).run(None, inputs)
    for name, ours, theirs in zip(OUTPUTS[kind], found, expected, strict=True):
        assert ours.shape == theirs.shape == shape
        assert ours.dtype == theirs.dtype
        if name == "sum":
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
            continue
        steps = np.abs(ours.astype(int) - theirs)
        assert steps.max() <= 1
        assert (steps > 0).sum() <= 1 + QUANTISED_FLIPS * steps.size
        assert steps.size < 100 or theirs.std() > 10, "the case tells nothing"


def test_far_values_saturate():
    far = np.float32([-np.inf, -1e30, -200, -87, -1e-30, 0, 88, 200, 1e30, np.inf, 1, 2])
    inputs = {"x": far, "scale": np.float32(0.5), "zero_point": np.uint8(3)}
    (y,) = session(model(SILU), with_library=True).run(None, arrays(inputs))
    np.testing.assert_array_equal(y[1:], [3, 3, 3, 3, 3, 179, 255, 255, 255, 4, 7])
    scores = {name: np.full((60, 1, 1, 8), 1e4, np.float32) for name in INPUTS[ATTENTION][:3]}
    inputs = {**scores, "scale": np.float32(100), "zero_point": np.uint8(7)}
    (y,) = session(model(ATTENTION), with_library=True).run(None, arrays(inputs))
    assert (y == 107).all()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (SILU, {"scale": np.ones(2, np.float32)}, "SiluQuantize: scale must be a scalar, got (2)"),
        (SILU, {"scale": np.float32(0)}, "SiluQuantize: scale must be above 0, got 0"),
        (SILU, {"scale": np.float32(np.nan)}, "scale must be above 0, got nan"),
        (NORM, {"gain": np.ones(3, np.float32)}, "gain must be (4), got (3)"),
        (NORM, {"x": np.float32(1)}, "x must be (..., channels), got a scalar"),
        (NORM, {"x": np.ones((2, 0), np.float32)}, "x must be (..., channels), got (2, 0)"),
        (ADD_NORM, {"branch": np.ones(4, np.float32)}, "branch must be (2, 4), got (4)"),
        (ADD_NORM, {"sum_scale": np.float32(-1)}, "sum_scale must be above 0, got -1"),
        (ATTENTION, {"key": np.ones((2, 2, 1, 4), np.float32)},
         "key must be (3, 2, 1, 4), got (2, 2, 1, 4)"),
        (ATTENTION, {"query": np.ones((3, 2, 4), np.float32)},
         "query must be (tokens, rows, heads, head size), the last 1 to 128, got (3, 2, 4)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(kind, changes, message):
    opened = session(model(kind), with_library=True)
    inputs = {**feed(kind, (3, 2, 1, 4) if kind == ATTENTION else (2, 4)), **changes}
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        opened.run(None, arrays(inputs))
    assert message in str(caught.value)


def test_an_empty_batch_gives_an_empty_result():
    for kind, shape in ((SILU, (0, 4)), (NORM, (0, 4)), (ADD_NORM, (0, 4)),
                        (ATTENTION, (5, 0, 2, 8)), (ATTENTION, (0, 1, 2, 8))):  # fmt: skip
        found = session(model(kind), with_library=True).run(None, feed(kind, shape))
        assert [array.shape for array in found] == [shape] * len(found)


# --- the rewriting -------------------------------------------------------------------------------

BLOCK = """
<ir_version: 10, opset_import: ["" : 18]>
block (float[15, 8] x, float[15, 8] q, float[15, 8] k, float[15, 8] v) => (uint8[15, 8] a,
        float[15, 8] total, uint8[15, 8] normed, uint8[15, 8] rounded, uint8[15, 8] gated)
    <float step = {0.02}, uint8 zero = {120}, int64[4] heads = {5, 3, 2, 4},
     int64[2] flat = {15, 8}, float factor = {0.5},
     float[8] gain = {1, 2, 1, 1, 3, 1, 1, 2}, float[8] shift = {0, 0, 1, 0, 0, 0, -1, 0}>
{
    q4 = Reshape (q, heads)
    k4 = Reshape (k, heads)
    v4 = Reshape (v, heads)
    qh = Transpose <perm = [1, 2, 0, 3]> (q4)
    kh = Transpose <perm = [1, 2, 3, 0]> (k4)
    vh = Transpose <perm = [1, 2, 0, 3]> (v4)
    scaled = Mul (qh, factor)
    scores = MatMul (scaled, kh)
    weights = Softmax <axis = -1> (scores)
    attended = MatMul (weights, vh)
    back = Transpose <perm = [2, 0, 1, 3]> (attended)
    tokens = Reshape (back, flat)
    a = QuantizeLinear (tokens, step, zero)
    total = Add (x, v)
    norm = LayerNormalization <axis = -1, epsilon = 0.001> (total, gain, shift)
    normed = QuantizeLinear (norm, step, zero)
    rounded = QuantizeLinear (total, step, zero)
    twice = Add (total, total)
    gate = Sigmoid (twice)
    silu = Mul (twice, gate)
    gated = QuantizeLinear (silu, step, zero)
}
"""


def block():
    parsed = onnx.parser.parse_model(BLOCK)
    for index, node in enumerate(parsed.graph.node):
        node.name = f"block.{index}.{node.op_type}"
    return parsed


def own_nodes(changed):
    return sorted(node.op_type for node in changed.graph.node if node.domain == OP_DOMAIN)


@pytest.mark.parametrize("with_library", [True, False], ids=["kernel", "function"])
def test_a_block_computes_the_same(with_library):
    changed = block()
    fuse_tokens(changed)
    assert own_nodes(changed) == sorted([ADD_NORM, ATTENTION, SILU])
    onnx.checker.check_model(sort(changed), full_check=True)
    random = np.random.default_rng(0)
    inputs = {name: random.normal(size=(15, 8)).astype(np.float32) for name in "xqkv"}
    expected = ReferenceEvaluator(block()).run(None, inputs)
    for ours, theirs in zip(
        session(changed, with_library).run(None, inputs), expected, strict=True
    ):
        np.testing.assert_allclose(ours.astype(float), theirs, atol=1)


def test_without_the_library_not_a_bit_changes():
    changed = block()
    fuse_tokens(changed)
    random = np.random.default_rng(1)
    inputs = {name: random.normal(size=(15, 8)).astype(np.float32) for name in "xqkv"}
    expected = session(block(), with_library=False).run(None, inputs)
    for ours, theirs in zip(session(changed, False).run(None, inputs), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_norm_whose_sum_is_not_quantised_leaves_the_sum():
    changed = block()
    kept = [node for node in changed.graph.node if "rounded" not in node.output]
    for items, wanted in ((changed.graph.node, kept), (changed.graph.output, None)):
        wanted = [item for item in items if item.name != "rounded"] if wanted is None else wanted
        del items[:]
        items.extend(wanted)
    fuse_tokens(changed)
    assert own_nodes(changed) == sorted([ATTENTION, NORM, SILU])


def test_what_is_no_such_chain_stays():
    changed = block()
    for node in changed.graph.node:
        if node.op_type == "Softmax":
            node.attribute[0].i = 1
            node.op_type = "LogSoftmax"
        if node.op_type == "Sigmoid":
            node.input[0] = "x"  # x sigmoid(y) is no SiLU
        if node.op_type == "LayerNormalization":
            node.attribute[0].i = 0
    before = sorted(node.name for node in changed.graph.node)
    fuse_tokens(changed)
    assert sorted(node.name for node in changed.graph.node) == before
    assert not changed.functions


def test_a_runtime_without_functions_is_served():
    for kind in INPUTS:
        inlined = onnx.inliner.inline_local_functions(model(kind))
        assert not inlined.functions
        assert {node.domain for node in inlined.graph.node} == {""}


def sort(changed):
    """In topological order, which ONNX Runtime does not ask for but the checker does."""
    known = {item.name for item in (*changed.graph.input, *changed.graph.initializer)}
    left, ordered = list(changed.graph.node), []
    while left:
        ready = [node for node in left if known.issuperset(node.input)]
        assert ready
        ordered += ready
        known.update(name for node in ready for name in node.output)
        left = [node for node in left if node not in ready]
    del changed.graph.node[:]
    changed.graph.node.extend(ordered)
    return changed
