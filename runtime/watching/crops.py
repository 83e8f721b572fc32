"""Cut one subject out of all cameras of a rig, and choose which crops of a track are worth it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from mambapro.preprocess import Picture, crop
from runtime.config import SampleConfig
from runtime.sync.offsets import Matrix
from runtime.watching.quality import Flaw, QualityGate, area
from runtime.watching.tracking import Box, Track

GLIMPSE_S: Final = 0.6
"""After this long a glimpse makes do with a crop that is not clear, until one comes that is, s."""


@dataclass(frozen=True)
class Sample:
    """One subject at one instant, cut out of each camera that shows it."""

    rig: str
    """Name of the rig."""
    track: int
    """Number of the track within the rig."""
    time_s: float
    """When, s."""
    crops: dict[Modality, Picture]
    """Crops by modality; a missing one is absent."""
    quality: float
    """Larger is better; comparable within a track."""


def warp_box(box: Box, homography: Matrix) -> Box:
    """Return the bounding box of ``box`` after ``homography``."""
    x0, y0, x1, y1 = box
    corners = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], np.float64)
    warped = cv2.perspectiveTransform(corners, homography)[0]
    (left, top), (right, bottom) = warped.min(axis=0).tolist(), warped.max(axis=0).tolist()
    return left, top, right, bottom


def visible_share(box: Box, size: tuple[int, int]) -> float:
    """Return the share of ``box`` that lies in a picture of ``size`` = (H, W)."""
    width = min(box[2], size[1]) - max(box[0], 0)
    height = min(box[3], size[0]) - max(box[1], 0)
    return max(0.0, width) * max(0.0, height) / area(box)


def registered_boxes(
    box: Box,
    homographies: Mapping[Modality, Matrix],
    sizes: Mapping[Modality, tuple[int, int]],
    min_visible: float,
) -> dict[Modality, Box]:
    """Return ``box`` (reference px) in the pixels of every camera that shows it.

    ``homographies`` map reference pixels to a camera's (identity for the reference); ``sizes`` are
    (H, W) of the cameras that gave a picture; others are left out.
    """
    boxes = {m: warp_box(box, homographies[m]) for m in sizes}
    return {m: b for m, b in boxes.items() if visible_share(b, sizes[m]) >= min_visible}


class Sampler:
    """Takes the best crop of each stretch of a rig's tracks; stretches grow as a track goes on."""

    def __init__(self, config: SampleConfig, rig: str, size: tuple[int, int]) -> None:
        """Sample tracks on reference pictures of ``size`` = (H, W)."""
        self._config, self._rig = config, rig
        self._gate = QualityGate(config, size)
        self._flaws: Counter[Flaw] = Counter()
        self._best: dict[int, Sample] = {}
        self._opened_s: dict[int, float] = {}
        self._taken: dict[int, int] = {}

    def offer(
        self,
        track: Track,
        others: Sequence[Track],
        pictures: Mapping[Modality, Picture],
        boxes: Mapping[Modality, Box],
        thrift: float = 1.0,
    ) -> Sample | None:
        """Look at ``track`` in this instant; return a sample when its stretch is over.

        ``boxes`` are the track's box in each camera's pixels; stretches are ``thrift`` times as
        long as configured.
        """
        taken = self._taken.get(track.number, 0)
        if taken >= self._config.per_track:
            return None
        if boxes:
            flaw = self._gate.flaw(track, others) or self._keep_better(track, pictures, boxes)
            if flaw is not None:
                self._flaws[flaw] += 1
        opened_s = self._opened_s.setdefault(track.number, track.end_s)
        if track.end_s - opened_s < thrift * self._config.window_s * (1 + taken / 2):
            return None
        return self._close(track)

    def glimpse(
        self,
        track: Track,
        others: Sequence[Track],
        pictures: Mapping[Modality, Picture],
        boxes: Mapping[Modality, Box],
    ) -> Sample | None:
        """Return the first good crop of ``track``, once, before it is sure to be a subject.

        Who is cut off or crosses others for GLIMPSE_S is taken as it is, and once more when clear.
        """
        early = self._config.glimpse_travel
        if early is None or track.glimpsed or track.travel < early or not boxes:
            return None
        clear = self._gate.flaw(track, others) is None
        if not clear and (track.peeked or track.end_s - track.start_s < GLIMPSE_S):
            return None
        crops = _cut(self._gate.shown({m: crop(pictures[m], boxes[m]) for m in boxes}))
        if not crops:
            return None
        track.glimpsed = track.glimpsed or clear
        track.peeked = True
        return Sample(self._rig, track.number, track.end_s, crops, 0.0)

    def flaws(self) -> Counter[Flaw]:
        """Return how often a track gave no crop since the last call, by what was wrong."""
        flaws, self._flaws = self._flaws, Counter()
        return flaws

    def finish(self, track: Track) -> Sample | None:
        """Return the best crop of a track's last, unfinished stretch, and forget the track."""
        sample = self._best.pop(track.number, None)
        self._opened_s.pop(track.number, None)
        self._taken.pop(track.number, None)
        return sample

    def _close(self, track: Track) -> Sample | None:
        sample = self._best.pop(track.number, None)
        self._opened_s[track.number] = track.end_s
        self._taken[track.number] = self._taken.get(track.number, 0) + (sample is not None)
        return sample

    def _keep_better(
        self,
        track: Track,
        pictures: Mapping[Modality, Picture],
        boxes: Mapping[Modality, Box],
    ) -> Flaw | None:
        crops = self._gate.shown({m: crop(pictures[m], boxes[m]) for m in boxes})
        if not crops:
            return "flat"
        worth = self._gate.worth(crops, track.box)
        if worth is None:
            return "blurred"
        best = self._best.get(track.number)
        if best is None or worth > best.quality:
            sample = Sample(self._rig, track.number, track.end_s, _cut(crops), worth)
            self._best[track.number] = sample
        return None


def _cut(crops: Mapping[Modality, Picture]) -> dict[Modality, Picture]:
    """Return copies: views would keep whole pictures alive."""
    return {m: c.copy() for m, c in crops.items()}
