"""Detect what moves: background subtraction on the reference camera, joined by others.

By day thermal fills in what is dressed like the wall behind it, by night near infrared sees too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import DetectConfig
from runtime.sync.offsets import Matrix

SHADOW: Final = 127
"""What cv2's subtractors write for a shadow."""
RELEARN_RATE: Final = 0.4
HELPER_EVERY: Final = 5
FIELD: Final = (13, 9)
"""Window, in points of the grid, over which a change of light is taken to be even."""
FIELD_RANGE: Final = (-0.7, 0.7)
OUTSTANDING: Final = 0.25
"""Logarithms of brightness changes: what is taken out, and what is a subject's."""
LOOK_EVERY: Final = 10
GRID: Final = 6
"""Brightness and noise are measured on every GRID-th pixel; the background every LOOK_EVERY."""
MAX_NOISE: Final = 16.0
"""Most noise that a pixel is taken to have, grey levels."""
QUICK_CHANGE: Final = 0.04
QUICK_RATE: Final = 4.0
"""While brightness is off its usual level by QUICK_CHANGE, the model learns so much faster."""
BACKGROUND_RATIO: Final = 0.7
"""MOG2's share of the past that is background; its 0.9 takes in who stands for a tenth of it."""

NARROWEST_PX: Final = 4
"""Narrowest subject, reduced px; what is narrower is an edge that shook."""
SLIMMEST: Final = 4.5
"""Height over width of the slimmest body."""

Box = tuple[int, int, int, int]
Mask = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """Boxes in the reference camera's pixels."""

    boxes: Boxes
    """(N, 4) x0, y0, x1, y1 px."""
    confidence: npt.NDArray[np.float32]
    """(N,) share of each box that changed."""
    night: bool
    """Whether other cameras were asked."""


class Background:
    """One camera's background model at reduced size."""

    def __init__(self, config: DetectConfig, frame_rate: float, shadows: bool) -> None:
        """Start with an empty memory: the first picture becomes the background."""
        self._config = config
        self._relearn = 0
        self._rate = 1 / (config.history_s * frame_rate)
        self._model = cv2.createBackgroundSubtractorMOG2(
            varThreshold=config.variance, detectShadows=shadows
        )
        self._model.setBackgroundRatio(BACKGROUND_RATIO)
        self._model.setShadowThreshold(config.shadow)
        self._model.setVarMin(config.min_noise**2)
        self._shadows = shadows
        self._model.setVarMax(MAX_NOISE**2)
        self._usual: npt.NDArray[np.float32] | None = None
        self._age = 0

    def start(self, picture: Picture) -> None:
        """Take ``picture`` as the background and forget all that was before."""
        self._usual = None
        self._model.apply(self._prepared(picture), learningRate=1.0)

    def learn(self, picture: Picture, frames: int) -> None:
        """Take ``picture`` into the background as if it had been there for ``frames``."""
        small, _ = self._levelled(self._prepared(picture))
        self._model.apply(small, learningRate=frames * self._rate)

    def foreground(self, picture: Picture) -> Mask:
        """Return what changed, (h, w) uint8 0 or 255, reduced; nothing while it relearns."""
        small, quick = self._levelled(self._prepared(picture))
        rate = self._rate * (QUICK_RATE if quick else 1.0)
        found = self._model.apply(small, learningRate=RELEARN_RATE if self._relearn else rate)
        mask: Mask = np.asarray(np.where(found > SHADOW, 255, 0), np.uint8)
        if self._relearn:
            self._relearn -= 1
            return np.zeros_like(mask)
        if np.count_nonzero(mask) > self._config.global_change * mask.size:
            self._relearn = self._config.relearn_frames
            return np.zeros_like(mask)
        return mask

    def _levelled(self, small: Picture) -> tuple[Picture, bool]:
        """Scale to the background's brightness: dusk is no motion. Allow for today's noise.

        Returns the picture and whether its brightness was off.
        """
        if self._usual is None or self._age % LOOK_EVERY == 0:
            known = self._model.getBackgroundImage()
            self._usual = None if known is None else _thinned(np.asarray(known, np.uint8))
        self._age += 1
        if self._usual is None:
            return small, False
        now = _thinned(small)
        field = _light_field(np.log(self._usual / now))  # (h, w, C)
        residue = np.abs(now * np.exp(field) - self._usual)
        noise = 1.4826 * float(np.median(residue))
        self._model.setVarMin(min(max(self._config.min_noise, noise), MAX_NOISE) ** 2)
        if np.median(np.abs(field)) < QUICK_CHANGE:  # else a pale subject would look like light
            return small, False
        gains = cv2.resize(np.exp(field), small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return cv2.multiply(small, gains, dtype=cv2.CV_8U).astype(np.uint8, copy=False), True

    def _prepared(self, picture: Picture) -> Picture:
        """Reduce and smooth; only shadows need colour."""
        height, width = picture.shape[:2]
        size = (self._config.width_px, round(height * self._config.width_px / width))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if not self._shadows:
            small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        return np.asarray(cv2.GaussianBlur(small, (3, 3), 0), np.uint8)


def _thinned(small: Picture) -> npt.NDArray[np.float32]:
    """Return every GRID-th pixel, (h, w, C) float32, above 0."""
    thin = small[::GRID, ::GRID].astype(np.float32) + 1.0
    return thin.reshape(*thin.shape[:2], -1)


def _light_field(change: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how the light changed, smooth over the picture; what stands out are subjects.

    ``change`` (h, w, C) is the logarithm of the background over the picture.
    """
    everywhere = np.median(change, axis=(0, 1))
    rest = change - everywhere
    light = (np.abs(rest) < OUTSTANDING).all(axis=2, keepdims=True).astype(np.float32)
    total = cv2.blur(rest * light, FIELD).reshape(rest.shape)
    weight = cv2.blur(light, FIELD).reshape(light.shape)
    return np.asarray(everywhere + total / np.maximum(weight, 0.05), np.float32).clip(*FIELD_RANGE)


class Detector:
    """Finds the moving subjects of one rig."""

    def __init__(
        self,
        config: DetectConfig,
        reference: Modality,
        reference_size: tuple[int, int],
        homographies: Mapping[Modality, Matrix],
        frame_rate: float,
    ) -> None:
        """Detect in pictures of ``reference_size`` = (H, W) px, ``frame_rate`` a second.

        ``homographies`` map reference pixels to the pixels of each camera of the rig.
        """
        self._config = config
        self._reference: Modality = reference
        self._homographies = homographies
        height, width = reference_size
        self._scale = width / config.width_px
        self._size = (config.width_px, round(height / self._scale))
        asked = dict.fromkeys((*config.day_modalities, *config.night_modalities))
        helpers = [m for m in asked if m in homographies and m != reference]
        self._background = Background(config, frame_rate, shadows=True)
        self._helpers = {m: Background(config, frame_rate, shadows=False) for m in helpers}
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
        if not masks:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), night)
        return self._boxes(np.bitwise_or.reduce(masks), night)

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

    def _boxes(self, mask: Mask, night: bool) -> Detections:
        opened: Mask = np.asarray(
            cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8
        )
        _, _, stats, _ = cv2.connectedComponentsWithStats(_closed(opened, self._config.close_px))
        parts = [
            (x, y, x + w, y + h)
            for x, y, w, h, area in stats[1:].tolist()
            if area >= self._config.min_area * mask.size / 4
        ]
        found = [(box, _fill(opened, box)) for box in join_parts(parts)]
        kept = [(box, fill) for box, fill in found if self._plausible(box, fill, mask)]
        boxes = np.array([self._padded(box) for box, _ in kept], np.float32).reshape(-1, 4)
        return Detections(boxes, np.array([fill for _, fill in kept], np.float32), night)

    def _plausible(self, box: Box, fill: float, mask: Mask) -> bool:
        width, height = box[2] - box[0], box[3] - box[1]
        big = width * height >= self._config.min_area * mask.size and width >= NARROWEST_PX
        return big and fill >= self._config.min_fill

    def _padded(self, box: Box) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = box
        dx, dy = self._config.pad * (x1 - x0), self._config.pad * (y1 - y0)
        width, height = self._size
        left, right = max(0.0, x0 - dx), min(float(width), x1 + dx)
        top, bottom = max(0.0, y0 - dy), min(float(height), y1 + dy)
        scale = self._scale
        return left * scale, top * scale, right * scale, bottom * scale


def join_parts(parts: list[Box]) -> list[Box]:
    """Join boxes that stand above each other with a small gap: head and legs of one body."""
    parts = sorted(parts, key=lambda box: box[1])
    joined = True
    while joined:
        joined = False
        for i, upper in enumerate(parts):
            j = next((j for j in range(i + 1, len(parts)) if _one_body(upper, parts[j])), None)
            if j is not None:
                parts[i] = _union(upper, parts.pop(j))
                joined = True
                break
    return parts


def _one_body(a: Box, b: Box) -> bool:
    union = _union(a, b)
    gap = max(a[1], b[1]) - min(a[3], b[3])
    near = gap <= 0.25 * max(a[3] - a[1], b[3] - b[1])
    if union[3] - union[1] > SLIMMEST * (union[2] - union[0]) or not near:
        return False
    if _upright(a) and _upright(b):  # two persons, unless exactly above each other
        wide = max(a[2] - a[0], b[2] - b[0])
        return abs((a[0] + a[2]) - (b[0] + b[2])) / 2 <= 0.3 * wide
    overlap = min(a[2], b[2]) - max(a[0], b[0])
    return overlap >= 0.6 * min(a[2] - a[0], b[2] - b[0])


def _closed(mask: Mask, size: tuple[int, int]) -> Mask:
    """Join what is less than ``size`` = (width, height) apart, but not with the border."""
    width, height = size
    framed = cv2.copyMakeBorder(mask, height, height, width, width, cv2.BORDER_CONSTANT, value=0)
    joined = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, np.ones((height, width), np.uint8))
    return np.ascontiguousarray(joined[height:-height, width:-width], np.uint8)


def _upright(box: Box) -> bool:
    return box[3] - box[1] >= 1.5 * (box[2] - box[0])


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _fill(mask: Mask, box: Box) -> float:
    return float(np.count_nonzero(mask[box[1] : box[3], box[0] : box[2]])) / max(
        1, (box[2] - box[0]) * (box[3] - box[1])
    )
