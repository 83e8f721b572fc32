"""The ONNX selective scan, node and function, against the recurrence in float64."""

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.scan_function import NODE_ATTRIBUTES, register_schema, scan_function
from mambapro.contract import OP_DOMAIN, OP_NAME, OP_VERSION
from tests.scan_cases import ScanCase, oracle, scan_cases
from tests.tolerances import SCAN_FLOAT16, SCAN_FLOAT32

OPSET = 18
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
CARRIED = ("u", "delta", "B", "C", "y")  # of type T; the others are float32 always
SHAPES = {
    **dict.fromkeys(("u", "delta", "y"), ("rows", "L", "D")),
    **dict.fromkeys(("B", "C"), ("rows", "L", "N")),
    **dict.fromkeys(("D", "delta_bias"), ("G", "D")),
    "A": ("G", "D", "N"),
}


def scan_model(half: bool) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        kind = TensorProto.FLOAT16 if half and name in CARRIED else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, SHAPES[name])

    node = helper.make_node(OP_NAME, NAMES, ["y"], domain=OP_DOMAIN, **NODE_ATTRIBUTES)
    graph = helper.make_graph([node], "scan", [value(name) for name in NAMES], [value("y")])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=[scan_function(OPSET)]
    )


def feed(case: ScanCase) -> dict[str, np.ndarray]:
    arrays = dict(zip(NAMES, case.inputs(), strict=True))
    half = [name for name in CARRIED if case.half and name in arrays]
    return {k: v.astype(np.float16 if k in half else np.float32) for k, v in arrays.items()}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, inputs)
    return y


@pytest.mark.parametrize("case", scan_cases(), ids=str)
def test_function_follows_the_recurrence(case):
    y = run(scan_model(case.half), feed(case))
    expected = oracle(*case.inputs())
    assert y.dtype == (np.float16 if case.half else np.float32)
    tolerance = SCAN_FLOAT16 if case.half else SCAN_FLOAT32
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_extreme_deltas_stay_finite():
    inputs = feed(ScanCase("plain"))
    inputs["delta"][:, ::2], inputs["delta"][:, 1::2] = 1e4, -1e4
    y = run(scan_model(half=False), inputs)
    expected = oracle(*(inputs[name].astype(np.float64) for name in NAMES))
    np.testing.assert_allclose(y, expected, atol=SCAN_FLOAT32 * np.abs(expected).max())


def test_checker_and_inliner_take_the_function():
    model = scan_model(half=False)
    onnx.checker.check_model(model, full_check=True)
    inlined = onnx.inliner.inline_local_functions(model)
    onnx.checker.check_model(inlined, full_check=True)
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} == {""}
    inputs = feed(ScanCase("three_groups", groups=3))
    np.testing.assert_array_equal(run(inlined, inputs), run(model, inputs))


def test_schema_and_function_have_one_signature():
    register_schema()
    register_schema()  # the second time is no error
    schema, function = onnx.defs.get_schema(OP_NAME, domain=OP_DOMAIN), scan_function(OPSET)
    assert tuple(item.name for item in schema.inputs) == tuple(function.input) == NAMES
    assert schema.since_version == OP_VERSION
    assert {item.name for item in function.attribute_proto} == set(NODE_ATTRIBUTES)
    assert set(schema.attributes) == set(NODE_ATTRIBUTES)
    assert [(item.domain, item.version) for item in function.opset_import] == [("", OPSET)]
