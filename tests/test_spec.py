import dataclasses
import json

import onnx
import pytest
from onnx import TensorProto, helper

from mambapro.cli import InputError
from mambapro.spec import MatchThreshold, ModelSpec, read_spec, spec_from_metadata, write_spec

SPEC = ModelSpec(
    subject="person",
    image_size=(64, 32),
    embedding_dim=192,
    cameras=4,
    embedding_space="ab" * 32,
    weights_hash="cd" * 32,
    training={"train": {"epochs": 3, "lr": 0.1}},
    match_threshold=MatchThreshold(0.6, 0.01, 0.9, "test split, 100 pairs"),
)


def model() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [value], [out]))


def test_json_round_trip():
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC
    assert "\n" not in SPEC.to_json()


def test_onnx_round_trip_and_replacement(tmp_path):
    proto = model()
    write_spec(proto, SPEC)
    write_spec(proto, dataclasses.replace(SPEC, precision="int8"))
    assert len(proto.metadata_props) == 1
    onnx.save(proto, tmp_path / "m.onnx")
    assert read_spec(tmp_path / "m.onnx").precision == "int8"


def test_a_file_without_metadata(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.onnx has no metadata 'mambapro\.spec'"):
        read_spec(tmp_path / "m.onnx")


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_format_version_says_what_to_do(version):
    text = json.dumps(json.loads(SPEC.to_json()) | {"format_version": version})
    with pytest.raises(InputError, match=rf"format version {version}.*reads 1; export the model"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{"])
def test_damaged_metadata(text):
    with pytest.raises(InputError, match=r"net: the metadata 'mambapro\.spec' is damaged"):
        spec_from_metadata({"mambapro.spec": text}, "net")


def test_a_file_that_is_no_onnx(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"cannot read .*m\.onnx as ONNX"):
        read_spec(tmp_path / "m.onnx")
