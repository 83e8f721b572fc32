"""A tiny checkpoint, its model file and a tiny dataset on disk, for tests of export and engines."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from export.to_onnx import Exported, export
from mambapro.config import DataConfig, ExperimentConfig, ModelConfig
from mambapro.datasets import read_dataset
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import save_checkpoint
from tests.conftest import TINY

IDENTITIES, CAMERAS, VIEWS = 6, 2, 2


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment(root: Path | str = "data", model: ModelConfig = TINY) -> ExperimentConfig:
    return ExperimentConfig(model=model, data=DataConfig(root=str(root)))


def network(model: ModelConfig = TINY, seed: int = 0) -> MambaPro:
    """Return a network in eval mode in which no part is neutral: nothing is 0, 1 or the mean."""
    torch.manual_seed(seed)
    result = MambaPro(model)
    with torch.no_grad():
        for tensor in (*result.parameters(), *_statistics(result)):
            tensor.add_(0.1 * torch.randn_like(tensor))
    return result.eval()


@functools.cache
def exported() -> tuple[Exported, MambaPro]:
    """Return what export wrote to a folder of this process, and the network it wrote.

    The folder holds data/, best.pt and model.onnx. Files in it must not be changed.
    """
    folder = Path(tempfile.mkdtemp(prefix="mambapro-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_dataset(folder / "data")
    config = experiment(folder / "data")
    trained = network(config.model)
    heads = Heads(config.model, IDENTITIES)
    save_checkpoint(folder / "best.pt", config, trained, heads, {"epoch": 1})
    dataset = read_dataset(config.data.layout, config.data.root)
    path = folder / "model.onnx"
    return export(config, trained, path, dataset=dataset, false_match_rate=0.01), trained


def write_dataset(root: Path) -> None:
    """Write the RGBNT201 layout: each identity has its own colours, each picture its own noise."""
    random = np.random.default_rng(1)
    for split, first in (("train_171", 0), ("test", IDENTITIES)):
        for identity in range(first, first + IDENTITIES):
            colours = random.integers(30, 226, (3, 4, 2, 3))
            for camera in range(CAMERAS):
                for view in range(VIEWS):
                    name = f"{identity:06d}_cam{camera + 1}_0_{view:02d}.jpg"
                    for colour, part in zip(colours, ("RGB", "NI", "TI"), strict=True):
                        path = root / "RGBNT201" / split / part / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        _write_picture(path, colour, random)


def changed_model(path: Path, weight: str, values: object) -> Path:
    """Write the exported model to ``path`` with the constant ``weight`` set to ``values``."""
    model = onnx.load(exported()[0].path)
    (found,) = (item for item in model.graph.initializer if item.name == weight)
    shape, name = tuple(found.dims), found.name
    array = np.broadcast_to(np.asarray(values, np.float32), shape)
    found.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    onnx.save(model, str(path))
    return path


def triplets(
    count: int, model: ModelConfig = TINY, seed: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, mask with some modalities missing, and cameras with unknown ones."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, *model.image_size, 3), np.uint8)
    mask = np.ones((count, 3), np.float32)
    mask[np.arange(0, count, 2), random.integers(0, 3, len(range(0, count, 2)))] = 0
    return images, mask, random.integers(-1, model.cameras, count)


def _write_picture(path: Path, colours: np.ndarray, random: np.random.Generator) -> None:
    blocks = np.kron(colours, np.ones((12, 12, 1)))  # (48, 24, 3)
    noisy = blocks + random.normal(0, 12, blocks.shape)
    cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8))


def _statistics(module: nn.Module) -> list[torch.Tensor]:
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    return [x for norm in norms for x in (norm.running_mean, norm.running_var)]
