"""The integer product that ends in SiLU: its kernel, its function, and how it gets into a file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.fused_products import DOMAIN, PRODUCT
from export.fused_tokens import fuse_tokens
from export.token_functions import PRODUCT_SILU, SILU, token_function
from mambapro import native
from mambapro.contract import OP_DOMAIN, OP_VERSION
from mambapro.files import in_checkout
from tests.onnx_sessions import session
from tests.tolerances import QUANTISED_FLIPS

OPSET = 18
INPUTS = ("x", "weight", "x_scale", "x_zero_point", "weight_scale", "bias", "scale", "zero_point")
# One row, blocks of 32 rows that do not come out even, one panel of 32 columns and three, tiles of
# 32 and of 64 channels, and the network's own sizes.
SHAPES = [(1, 32, 32), (16, 64, 96), (17, 96, 64), (64, 32, 32), (45, 128, 160), (423, 768, 1536)]
CPU_FACTS = Path("/proc/cpuinfo")
needs_amx = pytest.mark.skipif(
    not (CPU_FACTS.exists() and "amx_int8" in CPU_FACTS.read_text()),
    reason="the processor has no AMX",
)


def values(rows, depth, columns):
    random = np.random.default_rng(rows + depth + columns)
    made = {
        "x": random.integers(0, 256, (rows, depth), np.uint8),
        "weight": random.integers(-127, 128, (depth, columns), np.int8),
        "x_scale": np.float32(0.03),
        "x_zero_point": np.uint8(117),
        "weight_scale": (random.uniform(0.5, 1.5, columns) / 70 / depth**0.5).astype(np.float32),
        "bias": random.normal(0, 0.5, columns).astype(np.float32),
        "scale": np.float32(0.02),
        "zero_point": np.uint8(14),
    }
    return {name: np.asarray(made[name]) for name in INPUTS}


def expected(made):
    x = made["x"].astype(float) - made["x_zero_point"]
    product = x @ made["weight"].astype(float) * made["x_scale"] * made["weight_scale"]
    product += made["bias"]
    steps = np.rint(product / (1 + np.exp(-product)) / made["scale"]) + made["zero_point"]
    return np.clip(steps, 0, 255)


def model(made, constants=INPUTS[1:]):
    """A file of one node and its functions; x has any number of rows."""
    node = helper.make_node(PRODUCT_SILU, INPUTS, ["y"], "block.fc1.x", domain=OP_DOMAIN)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(made[name].dtype), None)
        for name in INPUTS
        if name not in constants
    ]
    return helper.make_model(
        helper.make_graph(
            [node],
            "product",
            inputs,
            [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
            [numpy_helper.from_array(made[name], name) for name in constants],
        ),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(DOMAIN, 1),
            helper.make_opsetid(OP_DOMAIN, OP_VERSION),
        ],
        ir_version=10,
        functions=[token_function(name, OPSET) for name in (SILU, PRODUCT_SILU)],
    )


def assert_same_steps(found, wanted):
    steps = np.abs(found.astype(int) - wanted)
    assert steps.max() <= 1
    assert (steps > 0).sum() <= 1 + QUANTISED_FLIPS * steps.size


@pytest.mark.parametrize("with_library", [True, False], ids=["kernel", "function"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_are_those_of_exact_sums(shape, with_library):
    made = values(*shape)
    (y,) = session(model(made), with_library).run(None, {"x": made["x"]})
    wanted = expected(made)
    assert y.shape == wanted.shape
    assert wanted.std() > 10, "the case tells nothing"
    assert_same_steps(y, wanted)


def test_any_axes_before_the_last_and_none_at_all():
    made = values(24, 64, 32)
    opened = session(model(made), with_library=True)
    (flat,) = opened.run(None, {"x": made["x"]})
    (deep,) = opened.run(None, {"x": made["x"].reshape(2, 3, 4, 64)})
    np.testing.assert_array_equal(deep.reshape(24, 32), flat)
    (empty,) = opened.run(None, {"x": np.zeros((0, 64), np.uint8)})
    assert empty.shape == (0, 32)


@pytest.mark.parametrize("edge", [0, 255])
def test_the_largest_sums_saturate_only_at_the_end(edge):
    made = values(33, 768, 32)
    made["x"][:], made["weight"][:], made["x_zero_point"] = edge, -127, np.array(255 - edge, "u1")
    made["weight_scale"][:] = 1e-6
    (y,) = session(model(made), with_library=True).run(None, {"x": made["x"]})
    assert_same_steps(y, expected(made))


@needs_amx
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.ones((64, 33), np.int8)}, "weight must be (depth, columns), both multiples "
                                                 "of 32, got (64, 33)"),
        ({"weight": np.ones((16, 32), np.int8)}, "of 32, got (16, 32)"),
        ({"weight": np.ones(64, np.int8)}, "of 32, got (64)"),
        ({"weight": np.ones((96, 32), np.int8)}, "x must be (..., depth), as deep as weight, got "
                                                 "(5, 64)"),
        ({"bias": np.ones(31, np.float32)}, "bias must be (32), got (31)"),
        ({"weight_scale": np.ones((), np.float32)}, "weight_scale must be (32), got a scalar"),
        ({"x_scale": np.array(0, np.float32)}, "x_scale must be above 0, got 0"),
        ({"scale": np.array(-1, np.float32)}, "scale must be above 0, got -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message):
    made = {**values(5, 64, 32), **changes}
    with pytest.raises(Exception, match="MatMulSiluQuantize") as caught:
        session(model(made), with_library=True).run(None, {"x": made["x"]})
    assert message in str(caught.value)


@needs_amx
def test_a_weight_that_is_no_constant_is_refused():
    constants = [name for name in INPUTS if name not in ("x", "weight")]
    with pytest.raises(Exception, match="weight must be a constant of the file"):
        session(model(values(5, 64, 32), constants), with_library=True)


def test_without_amx_the_function_runs(tmp_path):
    made = values(45, 128, 160)
    onnx.save(model(made), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", made["x"])
    (wanted,) = session(model(made), with_library=False).run(None, {"x": made["x"]})
    code = (
        "import numpy, onnxruntime, sys\n"
        "from mambapro import native\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.register_custom_ops_library(str(native.require_library('onnxruntime')))\n"
        "options.optimized_model_filepath = 'optimised.onnx'\n"
        "opened = onnxruntime.InferenceSession('model.onnx', options)\n"
        "numpy.save('y.npy', opened.run(None, {'x': numpy.load('x.npy')})[0])\n"
    )
    if native.find_library("onnxruntime") is None:
        pytest.skip("no native library")
    path = os.pathsep.join([str(in_checkout(".")), os.environ.get("PYTHONPATH", "")])
    changed = {**os.environ, "MAMBAPRO_SIMD": "avx2", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=changed,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    ran = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ran == [PRODUCT, SILU]
    assert_same_steps(np.load(tmp_path / "y.npy"), wanted)


# --- the rewriting -------------------------------------------------------------------------------


def two_nodes(made, **changes):
    """A product and SiLU as fuse_products and an exporter leave them."""
    made = {**made, "weight_zero_point": np.zeros(made["bias"].shape, np.int8), **changes}
    order = ("x", "weight", "x_scale", "weight_scale", "x_zero_point", "weight_zero_point", "bias")
    nodes = [
        helper.make_node(PRODUCT, order, ["product"], "block.fc1.MatMul", domain=DOMAIN),
        helper.make_node("Sigmoid", ["product"], ["gate"], "block.Sigmoid"),
        helper.make_node("Mul", ["product", "gate"], ["silu"], "block.Mul"),
        helper.make_node("QuantizeLinear", ["silu", "scale", "zero_point"], ["y"], "block.Q"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, made["x"].shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ("rows", "columns"))],
        [numpy_helper.from_array(array, name) for name, array in made.items() if name != "x"],
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def test_a_product_and_silu_become_one_node():
    made = values(45, 96, 64)
    changed = two_nodes(made)
    fuse_tokens(changed)
    onnx.checker.check_model(changed)
    (node,) = changed.graph.node
    assert (node.op_type, node.name) == (PRODUCT_SILU, "block.fc1.MatMulSiluQuantize")
    assert [function.name for function in changed.functions] == [PRODUCT_SILU, SILU]
    feed = {"x": made["x"]}
    (before,) = session(two_nodes(made), with_library=False).run(None, feed)
    (after,) = session(changed, with_library=False).run(None, feed)
    np.testing.assert_array_equal(after, before)
    (kernel,) = session(changed, with_library=True).run(None, feed)
    assert_same_steps(kernel, before)


@pytest.mark.parametrize(
    "made",
    [
        two_nodes(values(45, 96, 48)),
        two_nodes(values(45, 80, 64)),
        two_nodes(values(45, 96, 64), weight_zero_point=np.ones(64, np.int8)),
    ],
    ids=["columns", "depth", "asymmetric"],
)
def test_what_the_kernel_cannot_take_stays_apart(made):
    fuse_tokens(made)
    assert sorted(node.op_type for node in made.graph.node) == [PRODUCT, SILU]


def test_a_product_that_others_read_stays_apart():
    changed = two_nodes(values(45, 96, 64))
    changed.graph.output.append(
        helper.make_tensor_value_info("product", TensorProto.FLOAT, ("a", "b"))
    )
    fuse_tokens(changed)
    assert sorted(node.op_type for node in changed.graph.node) == [PRODUCT, SILU]
