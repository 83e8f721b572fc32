"""Weights of others, in each format, straight into training and export."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from export import to_int8, to_onnx
from mambapro import config as configs
from mambapro.cli import run
from mambapro.config import ModelConfig
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE
from mambapro.model.names import authors_head_names, authors_network_names
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import load_checkpoint
from mambapro.spec import read_spec
from mambapro.synthetic.datasets import write_dataset as write_synthetic
from mambapro.synthetic.scenes import write_scene
from runtime import stream
from runtime.engines import OnnxEngine
from tests import golden
from tests.test_weights import PLAIN, clip, write  # noqa: F401 (clip is a fixture)
from tests.training_runs import write_config, write_dataset
from train import convert
from train import main as training
from train.engine import LAST

CLIP_KINDS = ("openai", "openai_torchscript", "openai_half", "open_clip", "hugging_face")
SMALL = dataclasses.replace(
    PLAIN, pfa=True, srp=True, ma=True, sie=True, prompts=2, prompt_dim=8, adapter_dim=24,
    scan_dim=24, dt_rank=4, state_size=4, cameras=2,
)  # fmt: skip


def authors_file(path: Path, config: ModelConfig, identities: int) -> dict[str, torch.Tensor]:
    """Write random weights as the authors' code would, and return our names for them."""
    torch.manual_seed(3)
    modules = (
        (MambaPro(config), authors_network_names),
        (Heads(config, identities), lambda name: authors_head_names(name, config.direct)),
    )
    theirs, ours = {}, {}
    for module, rename in modules:
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value = value + 0.1 * torch.rand_like(value)
            names = rename(name)
            if isinstance(names, str):
                theirs[names] = value
            else:
                theirs.update(zip(names, value, strict=True))
            ours[name] = value
    torch.save({f"module.{name}": value for name, value in theirs.items()}, path)
    return ours


def write_yaml(path: Path, root: Path, model: ModelConfig) -> Path:
    write_config(path, root)
    values = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**values, "model": configs.to_dict(model)}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imports")
    write_dataset(folder)
    return folder


def train(config: Path, output: Path, weights: Path) -> int:
    settings = (f"train.pretrained={weights}", "train.epochs=1", "train.lr=0")
    changes = [part for setting in settings for part in ("--set", setting)]
    return run(training.main, ["--config", str(config), "--output", str(output), *changes])


def export(checkpoint: Path, output: Path) -> OnnxEngine:
    arguments = ["--checkpoint", checkpoint, "--output", output, "--no-threshold"]
    assert run(to_onnx.main, [str(argument) for argument in arguments]) == EXIT_DONE
    return OnnxEngine(output)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_clip_weights_go_into_training(folder, tmp_path, clip, kind):  # noqa: F811
    config = write_yaml(tmp_path / "small.yaml", folder, SMALL)
    assert train(config, tmp_path / "run", write(kind, clip, tmp_path)) == EXIT_DONE
    trained = load_checkpoint(tmp_path / "run" / LAST).network
    expected = clip.vision_model.encoder.layers[1].mlp.fc1.weight
    tolerance = 1e-3 if kind == "openai_half" else 0
    torch.testing.assert_close(
        trained.tower.blocks[1].mlp.c_fc.weight, expected, rtol=0, atol=tolerance
    )
    assert not trained.tower.blocks[1].mlp.c_fc.weight.requires_grad


@pytest.mark.parametrize("direct", [True, False])
def test_authors_checkpoint_goes_into_training_and_export(folder, tmp_path, direct):
    model = dataclasses.replace(SMALL, direct=direct)
    weights, config = tmp_path / "authors.pth", write_yaml(tmp_path / "a.yaml", folder, model)
    ours = authors_file(weights, model, identities=7)
    assert train(config, tmp_path / "run", weights) == EXIT_DONE
    trained = load_checkpoint(tmp_path / "run" / LAST).network.state_dict()
    assert torch.equal(trained["tower.blocks.2.prompts.residual.fc1.weight"],
                       ours["tower.blocks.2.prompts.residual.fc1.weight"])  # fmt: skip

    output = tmp_path / "ours.pt"
    command = [str(weights), "--config", str(config), "--output", str(output)]
    assert run(convert.main, command) == EXIT_DONE
    checkpoint = load_checkpoint(output)
    assert checkpoint.identities == 7
    for name, value in {**checkpoint.network.state_dict(), **checkpoint.heads}.items():
        assert torch.equal(value, ours[name]), name

    engine = export(output, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64, 3), np.uint8)
    mask, camera = np.ones((3, 3), np.float32), np.array([0, 1, -1])
    with torch.inference_mode():
        inputs = map(torch.from_numpy, (images, mask, camera))
        expected = checkpoint.network.embed(*inputs).numpy()
    np.testing.assert_allclose(engine.embed(images, mask, camera), expected, rtol=0, atol=1e-4)


def test_clip_weights_go_into_export(folder, tmp_path, clip):  # noqa: F811
    config, output = write_yaml(tmp_path / "p.yaml", folder, PLAIN), tmp_path / "clip.pt"
    weights = write("hugging_face", clip, tmp_path)
    command = [str(weights), "--config", str(config), "--output", str(output)]
    assert run(convert.main, command) == EXIT_DONE
    engine = export(output, tmp_path / "model.onnx")
    assert engine.spec.image_size == PLAIN.image_size


def test_a_checkpoint_of_ours_needs_no_conversion(folder, tmp_path, capsys):
    config = write_config(tmp_path / "tiny.yaml", folder)
    command = ["--config", str(config), "--output", str(tmp_path), "--set", "train.epochs=1"]
    assert run(training.main, command) == EXIT_DONE
    command = [str(tmp_path / LAST), "--config", str(config)]
    assert run(convert.main, command) == EXIT_BAD_INPUT
    assert "is a checkpoint of train/main.py already" in capsys.readouterr().err


def test_authors_checkpoint_of_another_dataset(folder, tmp_path, capsys):
    model = dataclasses.replace(SMALL, cameras=3)
    authors_file(tmp_path / "authors.pth", model, identities=7)
    config = write_yaml(tmp_path / "a.yaml", folder, SMALL)
    command = [str(tmp_path / "authors.pth"), "--config", str(config)]
    assert run(convert.main, command) == EXIT_BAD_INPUT
    assert "wrong shape: tower.cv_embed (3, 64) instead of (2, 64)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    os.environ.get("MAMBAPRO_FULL_SIZE") != "1",
    reason="takes minutes; MAMBAPRO_FULL_SIZE=1 runs it",
)
def test_a_full_size_checkpoint_exports_quantises_and_streams(tmp_path):
    """The authors' names and shapes with generated values, ViT-B/16, through every stage."""
    torch.save(golden.authors_state(), tmp_path / "authors.pth")
    write_synthetic(
        "rgbnt201", tmp_path / "data", identities=(10, 4), cameras=2, images_per_camera=2
    )
    config = Path(__file__).parents[1] / "configs" / "rgbnt201.yaml"
    checkpoint, model = tmp_path / "best.pt", tmp_path / "model.onnx"
    command = [tmp_path / "authors.pth", "--config", config, "--output", checkpoint]
    command += ["--set", f"data.root={tmp_path / 'data'}"]
    assert run(convert.main, [str(part) for part in command]) == EXIT_DONE
    command = ["--checkpoint", checkpoint, "--output", model, "--false-match-rate", "0.05"]
    assert run(to_onnx.main, [str(part) for part in command]) == EXIT_DONE
    command = [model, "--target", "cpu", "--images", "16", "--held-out", "8"]
    command += ["--max-map-drop", "100"]  # generated weights rank by chance
    assert run(to_int8.main, [str(part) for part in command]) == EXIT_DONE
    small = tmp_path / "model.int8-cpu.onnx"
    assert read_spec(small).precision == "int8"
    scene = write_scene(tmp_path / "scene", seconds=8, people=2, vehicles=0)
    command = ["--rigs", scene / "rigs.yaml", "--output", tmp_path / "stream", "--no-video"]
    command += ["--set", f"models.person={small}", "--set", "models.vehicle=null"]
    assert run(stream.main, [str(part) for part in command]) == EXIT_DONE
    report = json.loads((tmp_path / "stream" / "report.json").read_text())
    assert report["events"] > 0
