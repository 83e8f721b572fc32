"""A dataset and a config small enough to train on in a second."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from mambapro import config as configs
from tests.conftest import TINY

EPOCHS = 3


def write_dataset(root: Path, train: int = 4, test: int = 3, images: int = 4) -> None:
    """RGBNT201's layout; an identity is two colours in each modality, a picture adds noise."""
    random = np.random.default_rng(0)
    for split, first, count in (("train_171", 1, train), ("test", 100, test)):
        for identity in range(first, first + count):
            halves = random.integers(0, 200, (3, 2, 1, 3))
            for image in range(images):
                name = f"{identity:06d}_cam{1 + image % 2}_0_{image:02d}.png"
                for folder, colours in zip(("RGB", "NI", "TI"), halves, strict=True):
                    picture = np.repeat(colours, 16, axis=0) + random.integers(0, 50, (32, 16, 3))
                    path = root / "RGBNT201" / split / folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), picture.astype(np.uint8))


def write_config(path: Path, root: Path) -> Path:
    """Write the config of a run over :func:`write_dataset`; an epoch has three or four batches."""
    config = {
        "model": configs.to_dict(TINY),
        "data": {"root": str(root), "pad_px": 2, "workers": 0},
        "train": {
            "epochs": EPOCHS,
            "warmup_epochs": 1,
            "batch_size": 4,
            "instances": 2,
            "lr": 1e-3,
            "eval_every": 2,
        },
    }
    path.write_text(yaml.safe_dump(config))
    return path
