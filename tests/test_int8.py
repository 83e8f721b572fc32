"""INT8 files: what is quantised and what is not, how they rank, and what they refuse."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.ranges import Histogram
from export import calibrate, holdout, sensitivity, to_int8
from export.fused_products import PRODUCT
from export.holdout import Harm, check_domain, divide
from export.layers import groups, int8_layers
from export.model_file import open_source, save
from export.qdq import TARGETS, insert, without_gemm
from export.sensitivity import GroupHarm, trade_off
from export.token_functions import ADD_NORM, ATTENTION, NORM, PRODUCT_SILU, SILU
from mambapro.cli import CheckError, InputError, run
from mambapro.contract import MODALITIES
from mambapro.datasets import read_dataset
from mambapro.metrics import paired_cosines
from mambapro.spec import read_spec
from runtime.engines import OnnxEngine
from runtime.identity.recording import CropRecorder
from runtime.watching.crops import Sample
from tests.conftest import TINY
from tests.export_samples import exported, one_thread, triplets  # noqa: F401

LAYERS = 49
PRODUCTS = (PRODUCT, PRODUCT_SILU)
QUANTISING = ("QuantizeLinear", SILU, PRODUCT_SILU, NORM, ADD_NORM, "Reshape")  # after ATTENTION
"""Layers of the sample network that INT8 serves: the patch convolution and 48 products."""
SMALL = ("--images", "16", "--held-out", "8")
"""The sample data has 24 training triplets of 6 identities."""
ALLOWED = ("--max-map-drop", "100")
"""An untrained network ranks by chance; what it is held to is tested on its own."""


@pytest.fixture(autouse=True)
def wide_domain(monkeypatch):
    """Six identities in colours drawn at random are hardly of one domain."""
    monkeypatch.setattr(holdout, "MAX_NEW", 0.003)


@pytest.fixture
def source(tmp_path):
    """A float32 file in a folder of its own."""
    return Path(shutil.copy(exported()[0].path, tmp_path / "model.onnx"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The INT8 file of each target, from one calibration."""
    source = tmp_path_factory.mktemp("int8") / "model.onnx"
    shutil.copy(exported()[0].path, source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holdout, "MAX_NEW", 0.003)
        for target in TARGETS:
            assert command(source, "--target", target, *SMALL, *ALLOWED) == 0
    return {target: source.with_name(to_int8.NAMES[target]) for target in TARGETS}


def command(*arguments):
    return run(to_int8.main, [str(argument) for argument in arguments])


def graph_of(path):
    graph = onnx.load(path).graph
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    return graph, weights, makers


@pytest.mark.parametrize("target", TARGETS)
def test_products_with_constant_weights_are_int8_and_nothing_else(files, target):
    graph, weights, makers = graph_of(files[target])
    readers = {n.op_type for n in graph.node if any(i in makers and makers[i].op_type ==
               "DequantizeLinear" for i in n.input)}  # fmt: skip
    assert readers == ({"Conv"} if target == "cpu" else {"MatMul", "Conv"})
    assert not any(node.op_type in ("Gemm", "Identity") for node in graph.node)
    quantised = 0
    for node in graph.node:
        constant = len(node.input) > 1 and node.input[1] in weights
        if node.op_type == "MatMul" and constant:
            assert ".ssm." in node.name, "a float weight is left"
        if node.op_type in ("MatMul", "Conv") and not constant:
            sources = [makers[name].op_type for name in node.input[:2] if name in makers]
            assert len(set(sources)) == 1 or "DequantizeLinear" not in sources
            quantised += sources[-1] == "DequantizeLinear"
        if node.op_type in PRODUCTS:
            assert makers[node.input[0]].op_type in QUANTISING
            assert weights[node.input[1]].data_type == onnx.TensorProto.INT8
            quantised += 1
    assert quantised == len(int8_layers(without_gemm(onnx.load(exported()[0].path)))) == LAYERS


@pytest.mark.parametrize("target", TARGETS)
def test_every_constant_is_read(files, target):
    graph, weights, _ = graph_of(files[target])
    assert weights.keys() <= {name for node in graph.node for name in node.input}


@pytest.mark.parametrize("target", TARGETS)
def test_no_output_of_a_product_is_quantised(files, target):
    graph, _, makers = graph_of(files[target])
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert makers[node.input[0]].op_type not in ("MatMul", "Conv", PRODUCT)


@pytest.mark.parametrize("target", TARGETS)
def test_types_scales_and_zero_points(files, target):
    graph, weights, _ = graph_of(files[target])
    types, stored = onnx.TensorProto, 0
    for node in graph.node:
        if node.op_type in PRODUCTS:
            values = numpy_helper.to_array(weights[node.input[1]])
            scale = numpy_helper.to_array(weights[node.input[3 if node.op_type == PRODUCT else 4]])
            assert values.dtype == np.int8
            assert (scale > 0).all()
            assert scale.shape == (values.shape[1],)
            if node.op_type == PRODUCT:
                assert not numpy_helper.to_array(weights[node.input[5]]).any()
            stored += 1
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (numpy_helper.to_array(weights[name]) for name in node.input[1:3])
        assert (scale > 0).all()
        if node.input[0] in weights:  # a weight: stored as int8, a scale for each output channel
            values = numpy_helper.to_array(weights[node.input[0]])
            assert values.dtype == np.int8
            assert not zero.any()
            axis = next(item.i for item in node.attribute if item.name == "axis")
            assert scale.shape == (values.shape[axis],)
            assert axis == (0 if values.ndim == 4 else 1)
            stored += 1
        else:
            expected = types.UINT8 if target == "cpu" else types.INT8
            assert weights[node.input[2]].data_type == expected
            assert scale.shape == ()
            assert target == "cpu" or zero == 0
    assert stored == LAYERS


def test_weights_are_rounded_by_half_a_step_at_most(files):
    source = numpy_helper.to_array(
        next(w for w in onnx.load(exported()[0].path).graph.initializer if w.name == "tower.proj")
    )
    _, weights, _ = graph_of(files["tensorrt"])
    stored = numpy_helper.to_array(weights["tower.proj_quantized"]).astype(np.float32)
    scale = numpy_helper.to_array(weights["tower.proj_scale"])
    np.testing.assert_allclose(scale, np.abs(source).max(axis=0) / 127, rtol=1e-5)
    assert (np.abs(stored * scale - source) <= scale * 0.501).all()


@pytest.mark.parametrize("target", TARGETS)
def test_scan_node_and_function_are_the_float_files(files, target):
    before, after = onnx.load(exported()[0].path), onnx.load(files[target])
    own = {function.name for function in before.functions}
    assert list(before.functions) == [f for f in after.functions if f.name in own]
    added = {function.name for function in after.functions} - own
    for_cpu = {SILU, PRODUCT_SILU, NORM, ADD_NORM, ATTENTION}
    assert added == (for_cpu if target == "cpu" else set())
    scans = [[n.SerializeToString() for n in m.graph.node if n.op_type == "SelectiveScan"]
             for m in (before, after)]  # fmt: skip
    assert scans[0] == scans[1]
    own = {item.domain: item.version for item in before.opset_import}
    added = {"com.microsoft": 1} if target == "cpu" else {}
    assert {item.domain: item.version for item in after.opset_import} == own | added


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("native_scan", [True, False])
def test_embeddings_stay_close_to_float32(files, target, native_scan):
    inputs = triplets(7)
    expected = OnnxEngine(exported()[0].path).embed(*inputs)
    embedded = OnnxEngine(files[target], native_scan=native_scan).embed(*inputs)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert paired_cosines(expected, embedded).min() > 0.98
    assert not np.allclose(expected, embedded, atol=1e-6), "nothing is quantised"


def test_the_cpu_file_runs_in_integer_kernels(files, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(files["cpu"]), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # All but the patch convolution, which has no integer kernel (ORT 1.31): it reads a value and a
    # weight. Biases are part of the product.
    assert counts[PRODUCT] == LAYERS - 1
    assert counts["DequantizeLinear"] == 2
    biased = sum(
        node.op_type == PRODUCT_SILU
        or (node.op_type == PRODUCT and len(node.input) > 6 and bool(node.input[6]))
        for node in onnx.load(files["cpu"]).graph.node
    )
    assert biased > LAYERS / 3


def test_the_file_says_how_it_was_made(files):
    for target, path in files.items():
        spec, before = read_spec(path), read_spec(exported()[0].path)
        facts = spec.calibration
        assert spec.replace(precision="fp32", calibration=None) == before
        assert (spec.precision, facts["target"], facts["method"]) == ("int8", target, "percentile")
        assert len(facts["images"]) == 16
        assert facts["ranges"]["_unsafe_view"] == [-1.0, 1.0]
        cache = json.loads(path.with_name("model.calibration.json").read_text())
        assert (
            cache["made_for"]["list_hash"] == facts["list_hash"] == cache["manifest"]["list_hash"]
        )
        assert (path.with_name("model.ranges.png").read_bytes())[:4] == b"\x89PNG"


def test_groups_are_modules():
    layers = int8_layers(without_gemm(onnx.load(exported()[0].path)))
    found = groups(layers)
    assert {
        "tower.conv1",
        "tower.blocks.0.attn",
        "tower.proj",
        "aggregation.units.3.in_proj",
        "aggregation.reduce",
    } <= set(found)
    assert len(found) == 1 + 3 * TINY.depth + (TINY.depth - 1) + 1 + 2 * 4 + 1
    by_modality = [layer.tap.modality for layer in layers if "in_proj." in layer.module
                   and layer.group == "aggregation.units.0.in_proj"]  # fmt: skip
    assert by_modality == list(MODALITIES)


def test_a_group_may_stay_float(source, capsys):
    kept = "tower.blocks.0.mlp"
    assert command(source, *SMALL, *ALLOWED, "--keep-float", kept, "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    _, weights, _ = graph_of(source.with_name("model.int8.onnx"))
    kept_weights = [w for name, w in weights.items() if name.startswith(f"{kept}.c_fc.weight")]
    assert [weight.data_type for weight in kept_weights] == [onnx.TensorProto.FLOAT]
    assert result["keep_float"] == [kept]
    assert 0.5 < result["int8_share"] < 1
    assert read_spec(source.with_name("model.int8.onnx")).calibration["keep_float"] == [kept]


def test_only_training_pictures_are_opened(source, monkeypatch):
    opened = []
    import calibration.images as images
    import mambapro.datasets as datasets

    for module in (images, datasets):
        original = module.read_picture
        monkeypatch.setattr(
            module, "read_picture", lambda path, read=original: opened.append(path) or read(path)
        )
    assert command(source, *SMALL, *ALLOWED) == 0
    assert opened
    assert all("/train_171/" in path for path in opened)


def test_who_is_held_out_does_not_calibrate():
    split = read_dataset("rgbnt201", exported()[0].path.parent / "data").train
    calibrating, held_out = divide(split, 8, seed=0)
    assert len(held_out) == 8
    assert len(calibrating) == len(split) - 8
    assert not set(calibrating.identities) & set(held_out.identities)
    assert divide(split, 8, seed=0) == (calibrating, held_out)
    assert divide(split, 0, seed=0)[0] == split
    with pytest.raises(InputError, match="23 triplets cannot be held out of 24"):
        divide(split, 23, seed=0)


# --- the cache -----------------------------------------------------------------------------------


def test_ranges_come_from_the_cache_when_it_fits(source, monkeypatch):
    assert command(source, *SMALL, *ALLOWED) == 0
    first = source.with_name("model.int8.onnx").read_bytes()
    monkeypatch.setattr(calibrate, "ranges", lambda *_: pytest.fail("calibrated again"))
    assert command(source, *SMALL, *ALLOWED) == 0
    assert source.with_name("model.int8.onnx").read_bytes() == first


def test_a_named_cache_of_something_else_is_refused(source, tmp_path, capsys):
    cache = source.with_name("model.calibration.json")
    assert command(source, *SMALL, *ALLOWED) == 0
    good = cache.read_text()
    facts = json.loads(good)
    named = tmp_path / "named.json"
    for change, reason in (
        ({"made_for": facts["made_for"] | {"weights_hash": "0"}}, "another model"),
        ({"made_for": facts["made_for"] | {"list_hash": "0"}}, "another list"),
        ({"activations": {}}, "holds no ranges"),
    ):
        named.write_text(json.dumps(facts | change))
        assert command(source, *SMALL, *ALLOWED, "--cache", named) == 2
        assert reason in capsys.readouterr().err
    named.write_text("")
    assert command(source, *SMALL, *ALLOWED, "--cache", named) == 2
    assert "empty or damaged" in capsys.readouterr().err
    assert command(source, *SMALL, *ALLOWED, "--cache", named, "--seed", "5") == 2
    named.write_text(good)
    assert command(source, *SMALL, *ALLOWED, "--cache", named) == 0


def test_the_models_own_cache_is_made_anew_when_it_does_not_fit(source):
    cache = source.with_name("model.calibration.json")
    cache.write_text("")
    assert command(source, *SMALL, *ALLOWED) == 0
    assert len(json.loads(cache.read_text())["manifest"]["images"]) == 16


# --- what is refused -----------------------------------------------------------------------------


def harm_of(drop, cosine=0.9):
    return Harm(0.9, drop, 1.0, cosine, cosine, 1.0)


def test_too_great_a_drop_names_the_layers_and_replaces_no_good_file(source, monkeypatch, capsys):
    harms = [GroupHarm(name, 0.1, harm_of(2.5)) for name in "abcd"]
    monkeypatch.setattr(to_int8, "sensitivity", lambda *_: harms)
    output = source.with_name("model.int8.onnx")
    output.write_text("a good file")
    assert command(source, *SMALL, "--max-map-drop", "-200") == 1
    message = capsys.readouterr().err
    assert "INT8 lowers mAP on held-out triplets" in message
    assert "most harmful alone: a (-2.50 points, cosine 0.9000), b (" in message
    assert output.read_text() == "a good file"


def test_an_interrupt_leaves_the_good_file(source, monkeypatch):
    output = source.with_name("model.int8.onnx")
    output.write_text("a good file")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate.Judge, "file", interrupt)
    assert command(source, *SMALL, *ALLOWED) == 130
    assert output.read_text() == "a good file"
    assert not list(source.parent.glob(".*"))


def record_black(folder):
    recorder = CropRecorder(folder)
    for number in range(16):
        crops = {m: np.zeros((20, 10, 3), np.uint8) for m in MODALITIES}
        recorder.write(Sample("gate", number, 0.0, crops, 1.0), "person", 0)
    recorder.close()


def test_pictures_of_another_domain_are_refused(source, tmp_path, capsys):
    record_black(tmp_path / "crops")
    assert command(source, "--recorded", tmp_path / "crops", *SMALL, *ALLOWED) == 1
    assert "of another domain than the training split" in capsys.readouterr().err
    assert not source.with_name("model.int8.onnx").exists()


def test_recorded_crops_calibrate_without_the_dataset(source, tmp_path, capsys):
    recorder = CropRecorder(tmp_path / "crops")
    split = read_dataset("rgbnt201", exported()[0].path.parent / "data").train
    for record in split.records:
        crops = {m: cv2.imread(path) for m, path in zip(MODALITIES, record.paths, strict=True)}
        recorder.write(Sample("gate", record.identity, 0.0, crops, 1.0), "person", record.camera)
    recorder.close()
    arguments = ("--recorded", tmp_path / "crops", "--held-out", "0", "--data", tmp_path / "none")
    assert command(source, *arguments, "--images", "20", "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["images"], result["held_out"]) == (20, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "5"], "at least 16 triplets, 5 are wanted"),
        (["--held-out", "23"], "cannot be held out"),
        (["--percent", "150"], "at most 100, held_out at least 0, got 150 and 8"),
        (["--data", "absent"], "INT8 needs the training split: give --data"),
        (["--recorded", "absent"], "holds no crops.jsonl"),
        (["--keep-float", "tower.blocks.9"], "no layer group is called tower.blocks.9"),
        (["--held-out", "0", "--search"], "needs held-out triplets"),
        (["--output", "{source}/model.int8.onnx"], "File exists"),
    ],
)
def test_bad_input_is_named(source, capsys, arguments, message):
    filled = [argument.format(source=source) for argument in arguments]
    assert command(source, *SMALL, *ALLOWED, *filled) == 2
    assert message in capsys.readouterr().err
    assert not source.with_name("model.int8.onnx").exists()


def test_files_that_are_no_float_models_of_ours_are_refused(files, tmp_path, capsys):
    model = onnx.load(exported()[0].path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    for path, message in (
        (tmp_path / "absent.onnx", "there is no model file"),
        (tmp_path / "text.onnx", "as ONNX"),
        (tmp_path / "bare.onnx", "has no metadata"),
        (files["cpu"], "is int8 already"),
    ):
        assert command(path, *SMALL) == 2
        assert message in capsys.readouterr().err


def test_domain_counts_only_what_is_new():
    counts = np.zeros((3, 2048), np.int64)
    counts[:, 1024] = 980
    counts[1, -1] = 20  # 2 % of nir lie at the far end
    histogram = Histogram(-np.ones(3, np.float32), np.ones(3, np.float32), counts)
    spread = calibrate.activations_of({"x": histogram}, {"x": (-0.5, 0.5)}, 1)
    assert check_domain({"x": histogram}, spread, {"x": "layer"}) == 0
    new = dataclasses.replace(
        spread["x"], spreads={m: dataclasses.replace(s, clipped=0.0)
                              for m, s in spread["x"].spreads.items()})  # fmt: skip
    with pytest.raises(CheckError, match=r"2.00% of the values .* most at layer"):
        check_domain({"x": histogram}, {"x": new}, {"x": "layer"})


# --- sensitivity and search ----------------------------------------------------------------------


def test_search_writes_table_curve_and_picture(source, capsys):
    assert command(source, *SMALL, *ALLOWED, "--search", "--json") == 0
    out = capsys.readouterr().out
    found = json.loads(source.with_name("model.int8.sensitivity.json").read_text())
    layers = int8_layers(without_gemm(onnx.load(source)))
    assert {item["group"] for item in found["sensitivity"]} == set(groups(layers))
    assert sum(item["work_share"] for item in found["sensitivity"]) == pytest.approx(1)
    curve = found["trade_off"]
    assert (curve[0]["int8_share"], curve[-1]["int8_share"]) == (1, 0)
    # with every group in float the model is the float32 one
    assert curve[-1]["harm"]["cosine_min"] > 0.99999
    assert "<- chosen" in out
    picture = source.with_name("model.int8.sensitivity.png").read_bytes()
    assert picture[:4] == b"\x89PNG"


@pytest.mark.parametrize("needed", [0, 1, 3, 6, 7, 11])
def test_search_keeps_no_more_than_needed(monkeypatch, needed):
    harms = [GroupHarm(f"g{i}", 0.1, harm_of(0.0)) for i in range(11)]
    tried = []

    def point(_, __, keep):
        tried.append(keep)
        drop = 0.4 if len(keep) >= needed else 0.6
        return sensitivity.Point(keep, 1 - len(keep) / 11, harm_of(drop))

    monkeypatch.setattr(sensitivity, "_point", point)
    chosen, points = trade_off(None, "cpu", harms, 0.5)
    assert chosen.keep_float == tuple(f"g{i}" for i in range(needed))
    assert chosen in points
    assert len(tried) == len(set(tried)) == len(points)


def test_the_worst_group_comes_first():
    def item(name, drop, cosine):
        return GroupHarm(name, 0.1, harm_of(drop, cosine))

    harms = [item("calm", 0.01, 0.9999), item("noisy", 0.02, 0.99), item("bad", 1.0, 0.98)]
    ordered = sorted(harms, key=sensitivity._harmfulness)
    assert [found.group for found in ordered] == ["bad", "noisy", "calm"]


def test_nothing_quantised_is_the_model_itself(tmp_path):
    model, spec = open_source(exported()[0].path)
    save(insert(model, [], {}, "cpu"), spec, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == exported()[0].path.read_bytes()
