"""A tiny checkpoint and a tiny dataset on disk, for tests of export and comparison."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from mambapro.config import DataConfig, ExperimentConfig, ModelConfig
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import save_checkpoint
from tests.conftest import TINY

IDENTITIES, CAMERAS, VIEWS = 6, 2, 2


def experiment(root: Path | str = "data", model: ModelConfig = TINY) -> ExperimentConfig:
    return ExperimentConfig(model=model, data=DataConfig(root=str(root)))


def network(model: ModelConfig = TINY, seed: int = 0) -> MambaPro:
    """Return a network in eval mode in which no part is neutral: nothing is 0, 1 or the mean."""
    torch.manual_seed(seed)
    result = MambaPro(model)
    with torch.no_grad():
        for tensor in (*result.parameters(), *_statistics(result)):
            tensor.add_(0.1 * torch.randn_like(tensor).abs())
    return result.eval()


def write_checkpoint(path: Path, config: ExperimentConfig) -> MambaPro:
    trained = network(config.model)
    save_checkpoint(path, config, trained, Heads(config.model, IDENTITIES), {"epoch": 1})
    return trained


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


def _write_picture(path: Path, colours: np.ndarray, random: np.random.Generator) -> None:
    blocks = np.kron(colours, np.ones((12, 12, 1)))  # (48, 24, 3)
    noisy = blocks + random.normal(0, 12, blocks.shape)
    cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8))


def _statistics(module: nn.Module) -> list[torch.Tensor]:
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    return [x for norm in norms for x in (norm.running_mean, norm.running_var)]
