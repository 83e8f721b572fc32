"""Comparison with PyTorch: what passes, what fails and by which name."""

import json

import numpy as np
import onnx
import pytest

from export import compare
from mambapro.cli import run
from mambapro.spec import write_spec
from tests.export_samples import changed_model, exported, one_thread  # noqa: F401

KEYS = {
    "name", "precision", "target", "map", "r1", "cosine_min", "cosine_mean", "overlap_at_10",
    "p50_ms", "p90_ms", "bytes",
}  # fmt: skip


@pytest.fixture
def folder():
    return exported()[0].path.parent


def command(folder, output, *models, **flags) -> int:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    fixed = [f"--checkpoint={folder / 'best.pt'}", f"--output={output}", "--rounds=2", "--json"]
    return run(compare.main, [*map(str, models), *fixed, "--threads=1", *options])


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_exported_file_passes_and_a_report_is_written(folder, tmp_path, capsys):
    assert command(folder, tmp_path) == 0
    result = last_line(capsys)
    reference, model = result["models"]
    assert result["passed"] is True
    assert reference.keys() == model.keys() >= KEYS
    assert (reference["name"], reference["target"]) == ("PyTorch", "pytorch")
    assert (model["name"], model["precision"]) == ("model.onnx", "fp32")
    assert model["cosine_min"] > 0.99999
    assert model["overlap_at_10"] == 1
    assert model["map"] == pytest.approx(reference["map"], abs=1e-3)
    assert model["bytes"] == exported()[0].path.stat().st_size
    assert {"torch", "onnxruntime", "numpy"} <= set(result["environment"]["versions"])
    assert result["environment"]["device"]
    assert json.loads((tmp_path / "report.json").read_text()) == result
    assert "model.onnx" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_a_file_that_ranks_worse_fails(folder, tmp_path, capsys):
    ruined = tmp_path / "ruined.onnx"
    changed_model(ruined, "tower.conv1.weight", 0.0)  # only the camera is left to see
    assert command(folder, tmp_path / "out", folder / "model.onnx", ruined) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    good, bad = result["models"][1:]
    assert result["passed"] is False
    assert bad["map_drop_points"] > 0.5 > abs(good["map_drop_points"])
    assert bad["cosine_min"] < 0.99
    assert "ruined.onnx: mAP drops by" in captured.err
    allowed = bad["map_drop_points"] + 0.1
    assert command(folder, tmp_path / "out", ruined, max_map_drop=allowed) == 0


def constant(path):
    return _reduced_to(path, weight=0.0)


def not_a_number(path):
    return _reduced_to(path, weight=np.nan)


def too_short(path):
    """Divide by a length of at least 1000 instead of 1e-12."""
    model = onnx.load(exported()[0].path)
    (clip,) = (node for node in model.graph.node if node.op_type == "Clip")
    return changed_model(path, clip.input[1], 1000.0)


def _reduced_to(path, weight):
    model = onnx.load(exported()[0].path)
    for item in model.graph.initializer:
        if item.name.startswith("aggregation.reduce.") and item.name.endswith("weight"):
            array = np.full(tuple(item.dims), weight, np.float32)
            item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (constant, "all 24 embeddings are alike"),
        (not_a_number, "24 of 24 embeddings hold NaN"),
        (too_short, "24 of 24 embeddings are not of unit length"),
    ],
)
def test_degenerate_embeddings_are_named(folder, tmp_path, capsys, make, message):
    path = make(tmp_path / "degenerate.onnx")
    assert command(folder, tmp_path / "out", path, max_map_drop=100) == 1
    captured = capsys.readouterr()
    assert f"degenerate.onnx: {message}" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["passed"] is False
    assert (tmp_path / "out" / "report.png").is_file()


def test_two_files_of_one_name_are_told_apart(folder, tmp_path, capsys):
    copy = tmp_path / "model.onnx"
    copy.write_bytes((folder / "model.onnx").read_bytes())
    assert command(folder, tmp_path / "out", folder / "model.onnx", copy) == 0
    names = [model["name"] for model in last_line(capsys)["models"]]
    assert names == ["PyTorch", str(folder / "model.onnx"), str(copy)]


def test_a_file_of_other_weights_is_refused(folder, tmp_path, capsys):
    model = onnx.load(folder / "model.onnx")
    write_spec(model, exported()[0].spec.replace(embedding_space="0" * 64))
    onnx.save(model, str(tmp_path / "other.onnx"))
    assert command(folder, tmp_path / "out", tmp_path / "other.onnx") == 2
    assert "was not exported from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        ({"data": "absent"}, "no rgbnt201 dataset", 2),
        ({"checkpoint": "absent.pt"}, "there is no checkpoint absent.pt", 2),
        ({"providers": "CUDAExecutionProvider"}, "install onnxruntime-gpu", 3),
    ],
)
def test_bad_input_has_its_exit_code(folder, tmp_path, capsys, flags, message, code):
    assert command(folder, tmp_path, **flags) == code
    assert message in capsys.readouterr().err
