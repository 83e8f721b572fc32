"""Does the file compute what the network computes? Every case a deployment can meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from mambapro.cli import CheckError
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA
from mambapro.spec import ModelSpec
from runtime.engines import Cameras, Engine, Images, Mask

TOLERANCE: Final = 1e-4
"""Largest difference allowed in any element of an embedding of unit length."""

_SUBSETS: Final = tuple(
    np.array([float(m in chosen) for m in MODALITIES], np.float32)
    for size in (3, 2, 1)
    for chosen in itertools.combinations(MODALITIES, size)
)


@dataclass(frozen=True)
class Case:
    """Triplets to embed, and what is special about them."""

    name: str
    images: Images
    mask: Mask
    camera: Cameras


def verify(
    engine: Engine, reference: Engine, tolerance: float = TOLERANCE, against: str = "PyTorch"
) -> dict[str, float]:
    """Return the largest absolute difference in each case; CheckError above ``tolerance``.

    ``against`` is what the error calls ``reference``.
    """
    differences = {
        case.name: _difference(engine, reference, case) for case in cases(reference.spec)
    }
    # NaN fails every comparison, so the sound cases are the ones to look for.
    wrong = [name for name, value in differences.items() if not value <= tolerance]
    if wrong:
        raise CheckError(
            f"the exported graph differs from {against} by {differences[wrong[0]]:.2g} "
            f"(allowed {tolerance:g}) in {len(wrong)} of {len(differences)} cases, first {wrong[0]}"
        )
    return differences


def cases(spec: ModelSpec) -> Iterator[Case]:
    """Yield batches of 1 and 3, every subset of the modalities, known and unknown cameras."""
    random = np.random.default_rng(0)
    cameras = (0, UNKNOWN_CAMERA, spec.cameras - 1)
    for index, mask in enumerate(_SUBSETS):
        yield _case(random, spec, [mask], [cameras[index % 3]])
    for index in range(0, len(_SUBSETS), 3):
        masks = [_SUBSETS[(index + row) % len(_SUBSETS)] for row in range(3)]
        yield _case(random, spec, masks, [cameras[(index + row) % 3] for row in range(3)])


def _case(
    random: np.random.Generator, spec: ModelSpec, masks: list[Mask], cameras: list[int]
) -> Case:
    shape = (len(masks), len(MODALITIES), *spec.image_size, 3)
    images = random.integers(0, 256, shape, np.uint8)
    seen = ", ".join(
        f"{_name(mask)} by {'unknown' if camera < 0 else camera}"
        for mask, camera in zip(masks, cameras, strict=True)
    )
    name = f"batch {len(masks)}: {seen}"
    return Case(name, images, np.stack(masks), np.array(cameras, np.int64))


def _name(mask: Mask) -> str:
    return "+".join(m for m, present in zip(MODALITIES, mask, strict=True) if present)


def _difference(engine: Engine, reference: Engine, case: Case) -> float:
    inputs = case.images, case.mask, case.camera
    return float(np.abs(engine.embed(*inputs) - reference.embed(*inputs)).max())
