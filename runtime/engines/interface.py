"""What every engine is: triplets of crops in, embeddings out; and what it refuses."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA
from mambapro.spec import ModelSpec

Images = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]
Cameras = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]


class Engine(Protocol):
    """Whatever turns triplets of crops into embeddings."""

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model that runs."""

    def embed(self, images: Images, mask: Mask, camera: Cameras) -> Embeddings:
        """Embed any number of triplets.

        Args:
            images: (B, 3, H, W, 3) uint8, modality order rgb, nir, tir, colour order R, G, B.
            mask: (B, 3) float32, 1 = present, 0 = missing.
            camera: (B,) int64, row of the camera embedding; -1 = unknown.

        Returns:
            (B, E) float32 of unit length, the caller's own.
        """


def check_inputs(images: Images, mask: Mask, camera: Cameras, spec: ModelSpec) -> None:
    """Raise InputError, saying what is legal, unless ``spec``'s model can embed the triplets."""
    count, slots = len(images), len(MODALITIES)
    _check_array("images", images, (count, slots, *spec.image_size, 3), np.uint8)
    _check_array("mask", mask, (count, slots), np.float32)
    _check_array("camera", camera, (count,), np.int64)
    if not np.isin(mask, (0.0, 1.0)).all():
        raise InputError("mask must hold 1 (present) and 0 (missing) only")
    empty = np.flatnonzero(~mask.any(axis=1))
    if empty.size:
        raise InputError(
            f"triplet {empty[0]} has no modality present; drop it before it is embedded"
        )
    illegal = camera[(camera < UNKNOWN_CAMERA) | (camera >= spec.cameras)]
    if illegal.size:
        raise InputError(
            f"camera must be 0 to {spec.cameras - 1}, or {UNKNOWN_CAMERA} for a camera that the "
            f"model does not know, got {illegal[0]}"
        )


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype:
        legal = ", ".join(("B", *map(str, shape[1:])) if name == "images" else map(str, shape))
        raise InputError(
            f"{name} must be ({legal}) {np.dtype(dtype)}, got {array.shape} {array.dtype}"
        )
