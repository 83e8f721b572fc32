"""The contract of an exported model file, and of the command that writes it."""

import copy
import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
import onnxruntime
import pytest

from export import graph, to_onnx
from export.facts import embedding_space, model_spec
from export.torch_engine import TorchEngine
from export.verify import cases
from mambapro.cli import run
from mambapro.config import ExperimentConfig, from_dict
from mambapro.model.folding import fold
from mambapro.preprocess import RESIZE_RULE
from mambapro.spec import read_spec
from runtime.engines import OnnxEngine
from tests.conftest import TINY
from tests.export_samples import experiment, exported, network, one_thread, triplets  # noqa: F401
from tests.tolerances import FOLDING

ROOT = Path(__file__).resolve().parents[1]
E = TINY.embedding_dim
INPUTS = ["images", "modality_mask", "camera"]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(exported()[0].path)


def signature(values) -> dict[str, tuple[int, list]]:
    kinds = {value.name: value.type.tensor_type for value in values}
    return {
        name: (kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim])
        for name, kind in kinds.items()
    }


def test_names_types_and_shapes(model):
    types = onnx.TensorProto
    height, width = TINY.image_size
    assert signature(model.graph.input) == {
        "images": (types.UINT8, ["B", 3, height, width, 3]),
        "modality_mask": (types.FLOAT, ["B", 3]),
        "camera": (types.INT64, ["B"]),
    }
    assert signature(model.graph.output) == {"embedding": (types.FLOAT, ["B", E])}


def test_each_scan_is_a_node_and_the_function_has_the_models_opset(model):
    scans = [node for node in model.graph.node if node.op_type == "SelectiveScan"]
    assert len(scans) == 2 * TINY.aggregation_blocks == 4
    for node in scans:
        attributes = {item.name: item.s for item in node.attribute}
        assert node.domain == "mambapro"
        assert attributes == {"plugin_version": b"1", "plugin_namespace": b""}
    (function,) = model.functions
    opsets = {item.domain: item.version for item in model.opset_import}
    assert (function.domain, function.name) == ("mambapro", "SelectiveScan")
    assert {item.domain: item.version for item in function.opset_import} == {"": opsets[""]}
    assert opsets == {"": 18, "mambapro": 1}


def test_the_graph_is_lean(model):
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Softmax"] == TINY.depth
    # before and after the blocks, two in each, one a scan, one a modality
    assert counts["LayerNormalization"] == 2 + 2 * TINY.depth + 4 + 3
    assert counts["BatchNormalization"] == 0
    assert counts["Shape"] <= 1  # the batch size is the only one asked for
    assert not {"Erf", "Pow", "Sqrt", "Loop", "If", "Scan", "Exp", "Log"} & set(counts)


def test_uint8_is_cast_before_anything_else(model):
    # TensorRT-RTX 1.7: "Transpose: first input has type UInt8 but must have type Float, ..."
    readers = {node.op_type for node in model.graph.node if "images" in node.input}
    assert readers - {"Shape"} == {"Cast"}


def test_only_what_is_needed_is_in_the_file(model):
    names = " ".join(weight.name for weight in model.graph.initializer)
    assert not re.search("classifier|bottleneck|neck|heads|transfer|A_log|running_", names)
    assert "tower.blocks.1.attn.query." in names
    folded = sum(parameter.numel() for parameter in _tensors(fold(network())))
    assert to_onnx.parameter_count(model) <= folded + 100  # a few scalars of the graph
    assert not any(node.metadata_props for node in model.graph.node)
    assert str(ROOT).encode() not in model.SerializeToString()


def _tensors(module):
    return [*module.parameters(), *(x for x in module.buffers() if x.is_floating_point())]


def test_nodes_are_named_after_modules(model):
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {
        "tower.conv1.Conv",
        "tower.blocks.2.mlp.c_fc.Gemm",
        "aggregation.units.0.ssm.SelectiveScan",
        "aggregation.reduce.1.Gemm",
    } <= set(names)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_file_computes_what_the_network_does(batch):
    (written, trained), inputs = exported(), triplets(batch)
    expected = TorchEngine(experiment(), trained).embed(*inputs)
    embedded = OnnxEngine(written.path).embed(*inputs)
    np.testing.assert_allclose(embedded, expected, rtol=0, atol=FOLDING)


def test_runtimes_that_know_no_functions_are_served(model):
    inlined = onnx.inliner.inline_local_functions(model)
    onnx.checker.check_model(inlined, full_check=True)
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} == {""}
    session = onnxruntime.InferenceSession(
        inlined.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = triplets(3)
    feed = dict(zip(INPUTS, inputs, strict=True))
    expected = OnnxEngine(exported()[0].path).embed(*inputs)
    np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=FOLDING)


def test_metadata_states_the_facts():
    written, trained = exported()
    spec = read_spec(written.path)
    config = from_dict(ExperimentConfig, spec.training)
    assert spec == written.spec
    assert config.model == TINY
    assert (spec.subject, spec.image_size, spec.embedding_dim) == ("person", TINY.image_size, E)
    assert (spec.precision, spec.resize_rule, spec.cameras) == ("fp32", RESIZE_RULE, TINY.cameras)
    assert spec.weights_hash == model_spec(config, trained).weights_hash
    assert spec.match_threshold.false_match_rate <= 0.01
    assert "test split of rgbnt201: 12 genuine and 120 impostor" in spec.match_threshold.source


def test_embedding_space_follows_weights_and_what_is_computed():
    config, changed = experiment(), network(seed=0)
    spaces = {model_spec(config, network(seed=0)).embedding_space}
    changed.tower.proj.data[0, 0] += 1
    spaces.add(model_spec(config, changed).embedding_space)
    for field, value in (("sie_coefficient", 0.5), ("heads", 4)):
        model_config = dataclasses.replace(TINY, **{field: value})
        spaces.add(embedding_space(experiment(model=model_config), "same weights"))
    assert len(spaces) == 4
    frozen = experiment(model=dataclasses.replace(TINY, frozen=True))
    assert embedding_space(frozen, "same") == embedding_space(config, "same")


@pytest.mark.parametrize(
    ("switches", "scans"),
    [
        ({"bidirectional": True, "sie": False, "aggregation_blocks": 1}, 4),
        ({"ma": False, "pfa": False, "srp": False}, 0),
        ({"centred": True, "aggregation_blocks": 1}, 2),
    ],
    ids=["bidirectional", "tower_alone", "centred"],
)
def test_switched_networks_are_exported_too(tmp_path, switches, scans):
    config = experiment(model=dataclasses.replace(TINY, depth=1, **switches))
    written = to_onnx.export(config, network(config.model), tmp_path / "model.onnx")
    assert to_onnx.operator_counts(written.model).get("SelectiveScan", 0) == scans
    assert len(written.model.functions) == bool(scans)
    assert [item.name for item in written.model.graph.input] == INPUTS
    assert max(written.differences.values()) < FOLDING


def test_verification_meets_every_case():
    found = list(cases(model_spec(experiment(), network())))
    masks = {tuple(row) for case in found for row in case.mask}
    assert {len(case.images) for case in found} == {1, 3}
    assert len(masks) == 7
    assert {int(c) for case in found for c in case.camera} == {-1, 0, TINY.cameras - 1}


@pytest.fixture
def no_tracing(monkeypatch):
    """The command with the graph of the sample model, which other tests have traced already."""
    model = copy.deepcopy(exported()[0].model)
    monkeypatch.setattr(to_onnx, "build_graph", lambda network, opset: model)
    return model


def checkpoint() -> str:
    return str(exported()[0].path.with_name("best.pt"))


def command(*arguments: object) -> int:
    return run(to_onnx.main, [str(argument) for argument in arguments])


def test_command_prints_table_and_last_line(no_tracing, tmp_path, capsys):
    output = tmp_path / "new" / "model.onnx"
    rate = ("--false-match-rate", 0.01)
    assert command("--checkpoint", checkpoint(), "--output", output, "--json", *rate) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["bytes"] == output.stat().st_size
    assert result["operators"]["SelectiveScan"] == 4
    assert result["max_abs_difference"] <= 1e-4
    assert result["match_threshold"]["false_match_rate"] <= 0.01
    assert any(re.match(r"\s*SelectiveScan\s+4$", line) for line in table)
    assert [path.name for path in output.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("value", [0.5, np.nan], ids=["wrong", "nan"])
def test_a_graph_that_differs_replaces_no_good_file(no_tracing, tmp_path, capsys, value):
    output = tmp_path / "model.onnx"
    output.write_text("a good file")
    (weight,) = (w for w in no_tracing.graph.initializer if w.name == "tower.conv1.weight")
    array = np.full(tuple(weight.dims), value, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    assert command("--checkpoint", checkpoint(), "--output", output) == 1
    assert "differs from PyTorch" in capsys.readouterr().err
    assert output.read_text() == "a good file"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "absent.pt"], "there is no checkpoint absent.pt; train one"),
        (["--checkpoint", "{best}", "--data", "absent"], "give --data, or --no-threshold"),
        (["--random-weights", "{root}/configs/demo_person.yaml"], "needs --output"),
    ],
)
def test_bad_input_is_named(capsys, arguments, message):
    filled = [text.format(best=checkpoint(), root=ROOT) for text in arguments]
    assert command(*filled) == 2
    assert message in capsys.readouterr().err


def test_no_dataset_is_needed_without_a_threshold(no_tracing, tmp_path):
    output = tmp_path / "model.onnx"
    arguments = "--checkpoint", checkpoint(), "--data", "absent", "--output", output
    assert command(*arguments, "--no-threshold") == 0
    assert read_spec(output).match_threshold is None


def test_lowest_opset_is_the_default():
    assert min(graph.OPSETS) == graph.DEFAULT_OPSET == 18
