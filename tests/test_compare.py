"""Comparison with PyTorch: what is compared, what passes, what fails and by which name."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import candidates, compare, measure
from export import opening as export_opening
from mambapro import native
from mambapro.cli import run
from mambapro.files import sha256, write_json
from mambapro.spec import read_spec, write_spec
from runtime.engines import OnnxEngine
from runtime.engines.manifest import Device, EngineManifest, manifest_path
from tests.export_samples import changed_model, exported, one_thread  # noqa: F401
from train.evaluation import SUBSETS, Evaluator

KEYS = {
    "name", "precision", "target", "map", "r1", "cosine_min", "cosine_mean", "overlap_at_10",
    "p50_ms", "p90_ms", "p99_ms", "bytes", "peak_memory_bytes", "scan", "subsets",
}  # fmt: skip
MEMORY = 12_000_000

needs_operator = pytest.mark.skipif(
    native.find_library("onnxruntime") is None, reason="the native scan is not built: make build"
)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Each measurement starts a process: tests/test_compare_memory.py does it."""
    asked = []
    monkeypatch.setattr(measure, "added_memory", lambda opening: asked.append(opening) or MEMORY)
    return asked


@pytest.fixture
def folder():
    return exported()[0].path.parent


def command(folder, output, *models, quick=True, **flags) -> int:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    fixed = [f"--checkpoint={folder / 'best.pt'}", f"--output={output}", "--rounds=2", "--json"]
    switches = ["--threads=1", *(["--quick"] if quick else [])]
    return run(compare.main, [*map(str, models), *fixed, *switches, *options])


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_exported_file_passes_and_a_report_is_written(folder, tmp_path, capsys):
    assert command(folder, tmp_path, folder / "model.onnx", quick=False) == 0
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
    assert model["p50_ms"] <= model["p90_ms"] <= model["p99_ms"]
    assert model["peak_memory_bytes"] == MEMORY
    assert "| model.onnx | fp32 |" in (tmp_path / "report.md").read_text()
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


def test_an_unwritable_output_is_found_before_the_work(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "measure", None)
    (tmp_path / "file").write_text("in the way")
    assert command(folder, tmp_path / "file", folder / "model.onnx") == 2
    assert "file" in capsys.readouterr().err


# --- missing modalities -------------------------------------------------------------------------


def test_subsets_rank_as_training_evaluates_them(folder, tmp_path, capsys):
    assert command(folder, tmp_path, folder / "model.onnx", quick=False) == 0
    captured = capsys.readouterr().out
    found = json.loads(captured.splitlines()[-1])["models"]
    checkpoint = export_opening.read_checkpoint(folder / "best.pt")
    dataset = compare.read_test_split(checkpoint.config)
    evaluator = Evaluator(dataset, checkpoint.config, compare.torch.device("cpu"))
    expected = evaluator.rank(checkpoint.network, SUBSETS)
    assert len(expected) == 7
    for model in found:
        assert model["subsets"].keys() == expected.keys()
        for name, ranking in expected.items():
            assert model["subsets"][name] == pytest.approx(ranking.map, abs=1e-3)
        assert model["subsets"]["rgb+nir+tir"] == model["map"]
    assert "Largest drop with modalities missing" in captured
    assert "## Missing modalities" in (tmp_path / "report.md").read_text()


def test_quick_leaves_out_subsets_and_memory(folder, tmp_path, capsys, memory):
    assert command(folder, tmp_path, folder / "model.onnx", quick=True) == 0
    for model in last_line(capsys)["models"]:
        assert list(model["subsets"]) == ["rgb+nir+tir"]
        assert model["peak_memory_bytes"] is None
    assert not memory
    assert "Missing modalities" not in (tmp_path / "report.md").read_text()


# --- what is compared ---------------------------------------------------------------------------


@pytest.fixture
def full_folder(folder, tmp_path):
    """A checkpoint with a file of each kind beside it; the smaller ones are float32 in disguise."""
    place = tmp_path / "run"
    place.mkdir()
    for name in ("best.pt", "model.onnx"):
        shutil.copy(folder / name, place / name)
    disguise(place / "model.fp16.onnx", precision="fp16")
    disguise(place / "model.int8.onnx", precision="int8", calibration={"target": "tensorrt"})
    disguise(place / "model.int8-cpu.onnx", precision="int8", calibration={"target": "cpu"})
    return place


def disguise(path, **changes):
    model = onnx.load(exported()[0].path)
    write_spec(model, exported()[0].spec.replace(**changes))
    onnx.save(model, str(path))


def write_engine(path, source):
    path.write_bytes(b"plan")
    device = Device("a GPU", (8, 7), "10.3.0", None)
    spec = read_spec(source)
    manifest = EngineManifest(
        device, spec, source.name, sha256(source), sha256(path), (1, 2, 4), None, 1.0
    )
    write_json(manifest_path(path), manifest.to_dict())
    return path


def shown(result):
    return [(model["name"], model["scan"], model["target"]) for model in result["models"]]


@needs_operator
def test_every_file_beside_the_checkpoint_is_compared(full_folder, tmp_path, capsys, memory):
    assert command(full_folder, tmp_path / "out", quick=False) == 0
    assert shown(last_line(capsys)) == [
        ("PyTorch", None, "pytorch"),
        ("model.onnx", "operator", "any"),
        ("model.onnx, function", "function", "any"),
        ("model.fp16.onnx", "operator", "any"),
        ("model.int8-cpu.onnx", "operator", "cpu"),
        ("model.int8.onnx", "operator", "tensorrt"),
    ]
    assert [opening.native_scan for opening in memory] == [True, True, False, True, True, True]
    assert [opening.checkpoint for opening in memory] == [True, *[False] * 5]


def test_without_the_operator_float32_is_compared_once(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "off")
    assert command(folder, tmp_path) == 0
    assert shown(last_line(capsys))[1:] == [("model.onnx", "function", "any")]
    assert command(folder, tmp_path, scan="both") == 3
    assert "--scan both needs the compiled operator" in capsys.readouterr().err


@needs_operator
@pytest.mark.parametrize(
    ("scan", "scans"),
    [("operator", ["operator"]), ("function", ["function"]), ("both", ["operator", "function"])],
)
def test_the_scan_is_chosen(folder, tmp_path, capsys, scan, scans):
    assert command(folder, tmp_path, folder / "model.onnx", scan=scan) == 0
    assert [model["scan"] for model in last_line(capsys)["models"][1:]] == scans


def test_an_engine_that_was_found_is_left_out_in_one_line(
    full_folder, tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    write_engine(full_folder / "model.int8.engine", full_folder / "model.int8.onnx")
    (full_folder / "model.fp16.engine").write_bytes(b"copied without its manifest")
    with caplog.at_level(logging.WARNING, logger="compare"):
        assert command(full_folder, tmp_path / "out", scan="function") == 0
    result = last_line(capsys)
    assert not any("engine" in model["name"] for model in result["models"])
    assert list(result["left_out"]) == ["model.fp16.engine", "model.int8.engine"]
    assert "has no manifest" in result["left_out"]["model.fp16.engine"]
    assert "TensorRT" in result["left_out"]["model.int8.engine"]
    lines = [record.getMessage() for record in caplog.records if "left out" in record.msg]
    assert len(lines) == 2
    assert "left out: model.int8.engine" in (tmp_path / "out" / "report.md").read_text()


def test_an_engine_that_was_asked_for_is_an_error(full_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    engine = write_engine(full_folder / "model.int8.engine", full_folder / "model.int8.onnx")
    assert command(full_folder, tmp_path / "out", engine) == 3
    assert "TensorRT" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class FakeTensorrtEngine(OnnxEngine):
    """Computes as ONNX Runtime does, and counts what is open."""

    open = 0

    def __enter__(self):
        type(self).open += 1
        return self

    def __exit__(self, *error):
        type(self).open -= 1


@pytest.fixture
def gpu(full_folder, monkeypatch):
    """Engines run: by the ONNX file of the same name."""
    monkeypatch.setattr(FakeTensorrtEngine, "open", 0)
    monkeypatch.setattr(candidates, "TensorrtEngine", FakeTensorrtEngine)

    def open_engine(path, *, threads, providers, native_scan):
        if Path(path).suffix == ".engine":
            return FakeTensorrtEngine(Path(path).with_suffix(".onnx"), threads=threads)
        return OnnxEngine(path, threads=threads, providers=providers, native_scan=native_scan)

    monkeypatch.setattr(export_opening, "open_engine", open_engine)
    return write_engine(full_folder / "model.int8.engine", full_folder / "model.int8.onnx")


def test_engines_are_compared_and_closed(gpu, full_folder, tmp_path, capsys, monkeypatch):
    opened = []
    measured = compare.measure

    def watch(*arguments, **options):
        opened.append(FakeTensorrtEngine.open)
        return measured(*arguments, **options)

    monkeypatch.setattr(compare, "measure", watch)
    assert command(full_folder, tmp_path / "out") == 0
    assert shown(last_line(capsys))[-1] == ("model.int8.engine", "function", "tensorrt")
    assert (opened, FakeTensorrtEngine.open) == ([1], 0)


def test_engines_are_closed_after_an_error(gpu, full_folder, tmp_path, capsys):
    assert command(full_folder, tmp_path / "out", gpu, data=tmp_path / "absent") == 2
    assert FakeTensorrtEngine.open == 0


def test_a_folder_without_models_is_refused(folder, tmp_path, capsys):
    shutil.copy(folder / "best.pt", tmp_path / "best.pt")
    assert command(tmp_path, tmp_path / "out") == 2
    assert "there is no model file model*.onnx or model*.engine in" in capsys.readouterr().err


def test_a_stale_file_beside_the_checkpoint_is_refused(full_folder, tmp_path, capsys):
    disguise(full_folder / "model.fp16.onnx", precision="fp16", embedding_space="1" * 64)
    assert command(full_folder, tmp_path / "out") == 2
    assert "model.fp16.onnx was not exported from" in capsys.readouterr().err
