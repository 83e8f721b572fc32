"""Detect what moves: background subtraction on the reference camera, joined by others.

By day thermal fills in what is dressed like the wall behind it, by night near infrared sees too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import DetectConfig
from runtime.watching.detectors.background import Background
from runtime.watching.detectors.blobs import Box, Mask, bodies
from runtime.watching.detectors.interface import Detections, View

HELPER_EVERY: Final = 5


class MotionDetector:
    """Finds the moving subjects of one rig."""

    def __init__(self, config: DetectConfig, view: View) -> None:
        """Watch the rig of ``view``."""
        self._config = config
        self._reference = view.reference
        self._homographies = view.homographies
        height, width = view.size
        self._scale = width / config.width_px
        self._size = (config.width_px, round(height / self._scale))
        asked = dict.fromkeys((*config.day_modalities, *config.night_modalities))
        helpers = [m for m in asked if m in view.homographies and m != view.reference]
        self._background = Background(config, view.frame_rate, shadows=True)
        self._helpers = {m: Background(config, view.frame_rate, shadows=False) for m in helpers}
        self._idle = 0

    def prime(self, pictures: Mapping[Modality, Picture]) -> None:
        """Start with known backgrounds."""
        for modality, background in {self._reference: self._background, **self._helpers}.items():
            if modality in pictures:
                background.start(pictures[modality])

    def detect(self, pictures: Mapping[Modality, Picture]) -> Detections:
        """Return the moving subjects; without the reference, what the others see."""
        reference = pictures.get(self._reference)
        luma = 0.0 if reference is None else float(cv2.mean(reference)[1])
        night = luma < self._config.night_luma
        helping = self._config.night_modalities if night else self._config.day_modalities
        masks = self._helper_masks(pictures, helping)
        self._keep_warm(pictures, [m for m in self._helpers if m not in helping])
        if reference is not None:
            mask = self._background.foreground(reference)
            if luma >= self._config.blind_luma or not masks:
                masks.append(mask)
        found = bodies(np.bitwise_or.reduce(masks), self._config) if masks else []
        boxes = np.array([self._padded(box) for box in found], np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes), np.float32))

    def _helper_masks(
        self, pictures: Mapping[Modality, Picture], helping: Sequence[Modality]
    ) -> list[Mask]:
        return [
            self._on_reference(background.foreground(pictures[m]), m, pictures[m].shape[1])
            for m, background in self._helpers.items()
            if m in helping and m in pictures
        ]

    def _keep_warm(self, pictures: Mapping[Modality, Picture], resting: Sequence[Modality]) -> None:
        """Let cameras that are not asked now learn from every HELPER_EVERY-th picture."""
        self._idle += 1
        for slot, modality in enumerate(resting):
            if modality in pictures and (self._idle + slot) % HELPER_EVERY == 0:
                self._helpers[modality].learn(pictures[modality], HELPER_EVERY)

    def _on_reference(self, mask: Mask, modality: Modality, width: int) -> Mask:
        """Return a camera's reduced mask on the reduced reference grid."""
        reduce = mask.shape[1] / width
        to_grid = (
            np.diag([1 / self._scale, 1 / self._scale, 1.0])
            @ np.linalg.inv(self._homographies[modality])
            @ np.diag([1 / reduce, 1 / reduce, 1.0])
        )
        warped = cv2.warpPerspective(mask, to_grid, self._size, flags=cv2.INTER_NEAREST)
        return np.asarray(warped, np.uint8)

    def _padded(self, box: Box) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = box
        dx, dy = self._config.pad * (x1 - x0), self._config.pad * (y1 - y0)
        width, height = self._size
        left, right = max(0.0, x0 - dx), min(float(width), x1 + dx)
        top, bottom = max(0.0, y0 - dy), min(float(height), y1 + dy)
        scale = self._scale
        return left * scale, top * scale, right * scale, bottom * scale
