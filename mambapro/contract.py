"""Names and numbers that every stage agrees on. Standard library only."""

import itertools
from typing import Final, Literal

Modality = Literal["rgb", "nir", "tir"]
Subject = Literal["person", "vehicle"]

MODALITIES: Final[tuple[Modality, ...]] = ("rgb", "nir", "tir")
"""Modality order of every stacked tensor: visible, near infrared, thermal infrared."""

SUBSETS: Final = tuple(
    chosen for size in (3, 2, 1) for chosen in itertools.combinations(MODALITIES, size)
)
"""What may be left of the modalities: all, then each pair, then each alone."""

SUBJECTS: Final[tuple[Subject, ...]] = ("person", "vehicle")

PIXEL_MEAN: Final = 0.5
PIXEL_STD: Final = 0.5
"""Pixels in [0, 1] are normalised as (pixel - PIXEL_MEAN) / PIXEL_STD."""

UNKNOWN_CAMERA: Final = -1
"""SIE row of a camera that was not in the training set: the mean of all rows is used."""

# Tensors of an exported model.
IMAGES: Final = "images"
MODALITY_MASK: Final = "modality_mask"
CAMERA: Final = "camera"
EMBEDDING: Final = "embedding"

# The selective-scan operator, one contract for torch, ONNX, ONNX Runtime and TensorRT.
OP_DOMAIN: Final = "mambapro"
OP_NAME: Final = "SelectiveScan"
OP_VERSION: Final = 1

SPEC_KEY: Final = "mambapro.spec"
"""Key of the model's metadata_props that holds the ModelSpec as JSON."""
SPEC_FORMAT: Final = 1

# Exit codes of every command.
EXIT_DONE: Final = 0
EXIT_CHECK_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_MISSING: Final = 3
EXIT_INTERRUPTED: Final = 130
"""What shells report for a process that SIGINT ended."""
