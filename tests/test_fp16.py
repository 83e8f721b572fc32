"""FP16 files: explicit types, sensitive parts in float32, the same embeddings."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export import to_fp16
from export.half_precision import FLOAT32_OPERATORS
from export.scan_function import FLOAT32_INPUTS
from mambapro.cli import run
from mambapro.spec import read_spec
from runtime.engines import OnnxEngine
from tests.export_samples import changed_model, exported, one_thread, triplets  # noqa: F401

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def command(*arguments):
    return run(to_fp16.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    source = tmp_path_factory.mktemp("fp16") / "model.onnx"
    shutil.copy(exported()[0].path, source)
    return to_fp16.convert(source)


@pytest.fixture(scope="module")
def model(converted):
    return onnx.load(converted.path)


@pytest.fixture(scope="module")
def types(model):
    """The type of every value, as onnx infers it."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in inferred.initializer}


def test_the_signature_is_the_float_files(model):
    before = onnx.load(exported()[0].path)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)
    assert model.opset_import == before.opset_import
    onnx.checker.check_model(model, full_check=True)


def test_sensitive_nodes_read_and_write_float32(model, types):
    seen = set()
    for node in model.graph.node:
        if node.op_type in FLOAT32_OPERATORS:
            seen.add(node.op_type)
            assert {types[node.input[0]], types[node.output[0]]} == {FLOAT}, node.name
    assert seen == FLOAT32_OPERATORS


def test_products_are_float16(model, types):
    products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm")]
    assert len(products) > 40
    assert {types[name] for node in products for name in (*node.input, *node.output)} == {HALF}


def test_weights_are_stored_as_float16(model):
    large = {w.name: w.data_type for w in model.graph.initializer if np.prod(w.dims) > 200}
    in_float = {name for name, kind in large.items() if kind != HALF}
    assert all(".ssm.A" in name for name in in_float)
    assert len(large) - len(in_float) > 40


def test_the_scan_takes_float16_sequences_and_float32_parameters(model, types):
    scans = [node for node in model.graph.node if node.op_type == "SelectiveScan"]
    assert len(scans) == 4
    for node in scans:
        kinds = [types[name] for name in node.input]
        expected = [FLOAT if i in FLOAT32_INPUTS else HALF for i in range(7)]
        assert kinds == expected
        assert types[node.output[0]] == HALF
    assert FLOAT32_INPUTS == (2, 5, 6)
    assert model.functions == onnx.load(exported()[0].path).functions


def test_a_value_is_cast_once_at_most(model):
    casts = [(n.input[0], n.attribute[0].i) for n in model.graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    makers = {name: node for node in model.graph.node for name in node.output}
    chains = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in makers
              and makers[n.input[0]].op_type == "Cast"]  # fmt: skip
    assert not chains


@pytest.mark.parametrize("native_scan", [True, False])
def test_embeddings_are_the_float_files(converted, native_scan):
    inputs = triplets(5)
    expected = OnnxEngine(exported()[0].path).embed(*inputs)
    embedded = OnnxEngine(converted.path, native_scan=native_scan).embed(*inputs)
    np.testing.assert_allclose(embedded, expected, rtol=0, atol=to_fp16.TOLERANCE)
    assert not np.allclose(embedded, expected, rtol=0, atol=1e-7), "nothing is float16"


def test_the_file_says_what_it_is(converted):
    spec, before = read_spec(converted.path), read_spec(exported()[0].path)
    assert spec == before.replace(precision="fp16")
    assert converted.path.name == "model.fp16.onnx"
    assert converted.bytes < 0.65 * converted.source_bytes


def test_command_prints_the_last_line(tmp_path, capsys):
    output = tmp_path / "new" / "half.onnx"
    assert command(exported()[0].path, "--output", output, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["bytes"] == output.stat().st_size
    assert result["max_abs_difference"] <= to_fp16.TOLERANCE
    assert set(result["nodes"]) == {"casts", "float16", "float32", "integer"}


def test_a_weight_beyond_float16_is_refused(tmp_path, capsys):
    path = changed_model(tmp_path / "m.onnx", "tower.proj", 1e5)
    assert command(path) == 1
    assert "the weight tower.proj reaches 100000, float16 ends at 65504" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_differs_replaces_no_good_file(tmp_path, capsys):
    output = tmp_path / "half.onnx"
    output.write_text("a good file")
    assert command(exported()[0].path, "--output", output, "--tolerance", "1e-9") == 1
    assert "differs from float32" in capsys.readouterr().err
    assert output.read_text() == "a good file"
    assert list(tmp_path.iterdir()) == [output]


def test_files_that_are_no_float_models_are_refused(converted, tmp_path, capsys):
    for path, message in (
        (tmp_path / "absent.onnx", "there is no model file"),
        (converted.path, "is fp16 already"),
    ):
        assert command(path) == 2
        assert message in capsys.readouterr().err


def test_rounding_is_numpys(model):
    stored = {weight.name: weight for weight in model.graph.initializer}
    for weight in onnx.load(exported()[0].path).graph.initializer:
        if stored[weight.name].data_type == HALF:
            expected = numpy_helper.to_array(weight).astype(np.float16)
            np.testing.assert_array_equal(numpy_helper.to_array(stored[weight.name]), expected)
