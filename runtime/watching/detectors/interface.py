"""What a detector is: two methods, and boxes in the pixels of the reference camera.

docs/detectors.md shows one that is not ours.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.contract import Modality, Subject
from mambapro.preprocess import Picture
from runtime.sync.offsets import Matrix

Boxes = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """What a detector is told of the rig that it watches."""

    reference: Modality
    """The camera in whose pixels boxes are given."""
    size: tuple[int, int]
    """(H, W) of its pictures, px."""
    homographies: Mapping[Modality, Matrix]
    """From reference pixels to the pixels of each camera of the rig, (3, 3)."""
    frame_rate: float
    """Triplets a second, about."""


@dataclass(frozen=True)
class Detections:
    """Boxes in the reference camera's pixels."""

    boxes: Boxes
    """(N, 4) x0, y0, x1, y1 px."""
    scores: Scores
    """(N,) from 0 to 1, how sure; 1 where a detector does not tell."""
    subjects: tuple[Subject, ...] | None = None
    """What is in each box. None: the detector cannot tell, and a box may hold several that touch;
    the tracker then goes by shapes, and parts them by where they were heading."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        told = count if self.subjects is None else len(self.subjects)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or told != count:
            raise InputError(
                "a detector must give boxes (N, 4), scores (N,) and N subjects or None, got "
                f"{self.boxes.shape}, {self.scores.shape} and {told} subjects"
            )
        strange = set(self.subjects or ()) - set(typing.get_args(Subject))
        if strange:
            raise InputError(
                f"subjects of a detector must be {' or '.join(typing.get_args(Subject))}, "
                f"got {', '.join(map(repr, strange))}"
            )


class Detector(Protocol):
    """Finds the subjects of one rig. Called by one thread at a time, in the order of time."""

    def prime(self, pictures: Mapping[Modality, Picture]) -> None:
        """Look at the scene without subjects, once, before the first triplet.

        ``pictures`` are the medians of the first seconds, (h, w, 3) uint8 RGB, reduced to
        detect.width_px; a camera may be absent. Who has no use for them does nothing.
        """

    def detect(self, pictures: Mapping[Modality, Picture]) -> Detections:
        """Return who is in a triplet: (H, W, 3) uint8 RGB a camera; a missing one is absent."""
