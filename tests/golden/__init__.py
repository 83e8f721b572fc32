"""Reference data computed once with the authors' published implementation, and how to use it.

``reference_state_dict.json`` names every tensor of their checkpoints with a ``kind``; the weights
themselves are drawn from a generator seeded by the tensor's name.
"""

import functools
import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
TAGS = ("RGB", "NI", "TI")


def read_json(name: str):
    return json.loads((FOLDER / name).read_text())


def noise(name: str, shape) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


_KINDS = {
    "mean": lambda n: 0.1 * n,
    "var": lambda n: 1 + 0.2 * abs(n),
    "a_log": lambda n: np.log(np.arange(1, n.shape[-1] + 1)) + 0.05 * n,
    "gain": lambda n: 1 + 0.05 * n,
    "token": lambda n: 0.05 * n,
    "bias": lambda n: 0.02 * n,
    "dt_bias": lambda n: -4 + 0.5 * n,
    "dwconv": lambda n: 0.3 * n,
    "matrix_small": lambda n: 0.01 * n,
    "matrix": lambda n: 0.03 * n,
}


@functools.cache
def authors_state() -> dict[str, torch.Tensor]:
    state = {}
    for name, facts in read_json("reference_state_dict.json")["keys"].items():
        if facts["kind"] == "zero":
            state[name] = torch.zeros((), dtype=torch.int64)
        else:
            values = _KINDS[facts["kind"]](noise(name, facts["shape"]))
            state[name] = torch.from_numpy(np.asarray(values, np.float32))
    return state


def pixels(tag: str, batch: int, height: int = 256, width: int = 128) -> torch.Tensor:
    """Normalised images (M, B, 3, H, W)."""
    images = [np.clip(0.5 * noise(f"{tag}.{m}", (batch, 3, height, width)), -1, 1) for m in TAGS]
    return torch.from_numpy(np.stack(images).astype(np.float32))
