"""Two files layer by layer: the first that differs is the one that was damaged."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import compare, holdout, to_fp16, to_int8
from export.divergence import INPUT, OUTPUT, Pair
from mambapro import native
from mambapro.cli import run
from mambapro.spec import write_spec
from runtime.engines import OnnxEngine
from tests.export_samples import changed_model, exported, one_thread, triplets  # noqa: F401

LAYERS = [
    INPUT,
    *(f"tower.blocks.{i}{part}" for i in range(3) for part in (".attn", ".mlp", ".adapter", "")),
    *(f"aggregation.units.{i}{part}" for i in range(4) for part in (".in_proj", ".ssm", "")),
    OUTPUT,
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same network in every precision."""
    source = tmp_path_factory.mktemp("precisions") / "model.onnx"
    shutil.copy(exported()[0].path, source)
    small = ["--images=16", "--held-out=8", "--max-map-drop=100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holdout, "MAX_NEW", 0.003)
        for target in ("cpu", "tensorrt"):
            command = [str(source), f"--target={target}", *small]
            assert run(to_int8.main, command) == 0
    to_fp16.convert(source)
    return {
        "fp32": source,
        "fp16": source.with_name("model.fp16.onnx"),
        **{target: source.with_name(name) for target, name in to_int8.NAMES.items()},
    }


def bisect(*arguments):
    return run(compare.main, ["--bisect", *map(str, arguments), "--json", "--threads=1"])


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def pair(first, second, **options):
    return Pair(onnx.load(first), onnx.load(second), threads=1, **options)


def batches(count=2):
    return [tuple(array[i : i + 1] for array in triplets(count)) for i in range(count)]


def names(differences):
    return [difference.layer for difference in differences]


def test_a_file_does_not_differ_from_itself(files, capsys):
    assert bisect(files["fp32"], files["fp32"], "--threshold=1e-9") == 0
    result = last_line(capsys)
    assert result["passed"] is True
    assert result["first_layer"] is None
    assert result["nodes"] == []
    assert {layer["relative_error"] for layer in result["layers"]} == {0.0}
    assert all(layer["cosine"] == pytest.approx(1) for layer in result["layers"])


@pytest.mark.parametrize("precision", ["fp16", "cpu", "tensorrt"])
def test_every_precision_has_every_layer(files, precision):
    found = pair(files["fp32"], files[precision]).bisect(batches(), threshold=100)
    # INT8 for the CPU: a LayerNorm that is one node with its quantisation has no tensor to compare.
    within = {
        layer for layer in found.unmatched if re.search(r"\.(ln_1|ln_2|ln_post|norm\.\d)$", layer)
    }
    assert within == set(found.unmatched)
    assert bool(within) == (precision == "cpu")
    layers = names(found.layers)
    assert [layer for layer in layers if layer in LAYERS] == [x for x in LAYERS if x not in within]
    assert {"tower.conv1", "tower.ln_pre", "tower.ln_post", "aggregation.reduce.2"} - within <= set(
        layers
    )
    assert found.layers[0].relative_error == 0  # pixels are float32 in all of them
    assert 0 < found.layers[-1].relative_error < 0.5


@pytest.mark.parametrize("precision", ["fp16", "cpu", "tensorrt"])
def test_the_last_error_is_that_of_the_embeddings(files, precision):
    inputs = batches()
    found = pair(files["fp32"], files[precision]).bisect(inputs, threshold=100)
    engines = [OnnxEngine(files[name], threads=1) for name in ("fp32", precision)]
    expected, other = (
        np.concatenate([engine.embed(*batch) for batch in inputs]) for engine in engines
    )
    error = np.linalg.norm(expected - other) / np.linalg.norm(expected)
    # Of what leaves the last layer the embedding is all there is.
    assert found.layers[-1].relative_error == pytest.approx(error, rel=1e-3)


DAMAGED = [
    ("tower.conv1.weight", "tower.conv1", "tower.conv1.Conv"),
    ("tower.blocks.1.ln_2.weight", "tower.blocks.1.ln_2", "tower.blocks.1.ln_2.LayerNormalization"),
    ("tower.blocks.2.mlp.c_fc.bias", "tower.blocks.2.mlp", "tower.blocks.2.mlp.c_fc.Gemm"),
    (
        "aggregation.units.2.ssm.A",
        "aggregation.units.2.ssm",
        "aggregation.units.2.ssm.SelectiveScan",
    ),
    ("aggregation.reduce.1.weight", "aggregation.reduce.1", "aggregation.reduce.1.Gemm"),
]


@pytest.mark.parametrize(("weight", "layer", "node"), DAMAGED)
@pytest.mark.parametrize("scan", ["operator", "function"])
def test_a_damaged_weight_is_found(files, tmp_path, capsys, weight, layer, node, scan):
    if scan == "operator" and native.find_library("onnxruntime") is None:
        pytest.skip("the native scan is not built: make build")
    damaged = changed_model(tmp_path / "damaged.onnx", weight, -0.7)
    assert bisect(files["fp32"], damaged, f"--scan={scan}") == 1
    captured = capsys.readouterr().out
    result = json.loads(captured.splitlines()[-1])
    assert (result["first_layer"], result["first_node"]) == (layer, node)
    assert result["threshold"] == 1e-3
    assert f"diverge first in {layer} (above a relative error of 0.001): {node}" in captured
    before = [each["relative_error"] for each in result["layers"]]
    assert max(before[: [each["layer"] for each in result["layers"]].index(layer)]) < 1e-5


@pytest.mark.parametrize("precision", ["fp16", "cpu"])
def test_damage_is_found_beneath_rounding(files, tmp_path, capsys, precision):
    """The product of one layer of a smaller file is zero."""
    model = onnx.load(files[precision])
    prefix = "tower.blocks.1.adapter.fc2.weight"
    for item in model.graph.initializer:
        if item.name.startswith(prefix) and len(item.dims) == 2:
            zeros = np.zeros_like(numpy_helper.to_array(item))
            item.CopyFrom(numpy_helper.from_array(zeros, item.name))
            break
    else:
        pytest.fail("there is no such weight")
    onnx.save(model, str(tmp_path / "damaged.onnx"))
    assert bisect(files["fp32"], tmp_path / "damaged.onnx", "--threshold=0.3") == 1
    result = last_line(capsys)
    assert result["first_layer"] == "tower.blocks.1.adapter"
    assert result["first_node"].startswith("tower.blocks.1.adapter.fc2")


def test_values_that_are_not_finite_diverge(files, tmp_path, capsys):
    damaged = changed_model(tmp_path / "nan.onnx", "tower.blocks.1.ln_1.weight", np.nan)
    assert bisect(files["fp32"], damaged) == 1
    captured = capsys.readouterr().out
    result = json.loads(captured.splitlines()[-1])
    assert result["first_node"] == "tower.blocks.1.ln_1.LayerNormalization"
    assert result["layers"][-1]["relative_error"] is None
    assert "not finite" in captured


def test_layers_without_counterpart_are_named(files, tmp_path, capsys):
    model = onnx.load(files["fp32"])
    for node in model.graph.node:
        if node.name.startswith("tower.blocks.1."):
            node.name = node.name.replace("blocks.1", "stages.1")
    onnx.save(model, str(tmp_path / "renamed.onnx"))
    assert bisect(files["fp32"], tmp_path / "renamed.onnx") == 0
    captured = capsys.readouterr().out
    assert "has no counterpart of tower.blocks.1.prompts, tower.blocks.1.ln_1" in captured
    unmatched = json.loads(captured.splitlines()[-1])["unmatched"]
    assert unmatched[-1] == "tower.blocks.1"
    assert all(layer.startswith("tower.blocks.1") for layer in unmatched)


def nameless(path):
    model = onnx.load(exported()[0].path)
    for index, node in enumerate(model.graph.node):
        node.name = f"other.{index}.{node.op_type}"
    onnx.save(model, str(path))


def of_other_weights(path):
    model = onnx.load(exported()[0].path)
    write_spec(model, exported()[0].spec.replace(embedding_space="0" * 64))
    onnx.save(model, str(path))


def absent(path):
    pass


def not_onnx(path):
    path.write_bytes(b"not a model")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nameless, "no layer in common"),
        (of_other_weights, "different networks"),
        (absent, "there is no model file"),
        (not_onnx, "as ONNX"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(files, tmp_path, capsys, make, message):
    make(tmp_path / "b.onnx")
    assert bisect(files["fp32"], tmp_path / "b.onnx") == 2
    assert message in capsys.readouterr().err


def test_engines_and_conflicting_arguments_are_refused(files, tmp_path, capsys):
    engine = tmp_path / "model.int8.engine"
    engine.write_bytes(b"plan")
    assert bisect(files["fp32"], engine) == 2
    assert "layers inside an engine cannot be seen" in capsys.readouterr().err
    both = files["fp32"], files["fp16"]
    assert run(compare.main, ["model.onnx", "--bisect", *map(str, both)]) == 2
    assert "leave out model.onnx" in capsys.readouterr().err
    assert bisect(*both, "--scan=both") == 2
    assert bisect(*both, f"--data={tmp_path / 'absent'}") == 2
    assert "no rgbnt201 dataset" in capsys.readouterr().err
