"""One camera's background: what differs from it, and what is only light or shadow."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from mambapro.preprocess import Picture
from runtime.config import DetectConfig
from runtime.watching.detectors.blobs import Mask

SHADOW: Final = 127
"""What cv2's subtractors write for a shadow."""
RELEARN_RATE: Final = 0.4
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
SIGMAS: Final = 1.4826
"""Standard deviation over median absolute deviation, of normal noise."""
UNEVEN_NOISE: Final = 4.0
"""Grey levels left by a gain from which a tone curve is tried in its place."""
CLEAN_NOISE: Final = 3.0
"""The curve is taken when it leaves less: it has explained what changed."""
CURVE_RANGE: Final = 0.55
"""Logarithm of the change from which none is tried: a near-black picture would look like day."""
TONES: Final = 12
"""Points of a tone curve."""
QUICK_CHANGE: Final = 0.04
QUICK_RATE: Final = 4.0
"""While brightness is off its usual level by QUICK_CHANGE, the model learns so much faster."""
BACKGROUND_RATIO: Final = 0.7
"""MOG2's share of the past that is background; its 0.9 takes in who stands for a tenth of it."""


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
        noise = SIGMAS * float(np.median(residue))
        if noise > UNEVEN_NOISE and np.median(np.abs(field)) < CURVE_RANGE:
            curve, left = _tone_curve(now, self._usual)
            if left < CLEAN_NOISE:  # exposure, gamma or an offset: no gain does that
                self._allow_for(left)
                return np.asarray(cv2.LUT(small, curve), np.uint8), True
        self._allow_for(noise)
        if np.median(np.abs(field)) < QUICK_CHANGE:  # else a pale subject would look like light
            return small, False
        gains = cv2.resize(np.exp(field), small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return cv2.multiply(small, gains, dtype=cv2.CV_8U).astype(np.uint8, copy=False), True

    def _allow_for(self, noise: float) -> None:
        self._model.setVarMin(min(max(self._config.min_noise, noise), MAX_NOISE) ** 2)

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


def _tone_curve(
    now: npt.NDArray[np.float32], usual: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint8], float]:
    """Return what takes each level of ``now`` (h, w, C) to its usual one, and the noise it leaves.

    The curve is (1, 256, C). Medians keep subjects out of it; both inputs are a level too high.
    """
    curves, left = [], []
    for channel in range(now.shape[2]):
        seen, known = now[..., channel].ravel(), usual[..., channel].ravel()
        parts = np.array_split(np.argsort(seen, kind="stable"), TONES)
        x = np.array([np.median(seen[part]) for part in parts])
        y = np.array([np.median(known[part]) for part in parts])
        x, y = np.array([x[0] - 256, *x, x[-1] + 256]), np.array([y[0] - 256, *y, y[-1] + 256])
        left.append(np.abs(np.interp(seen, x, y) - known))
        curves.append(np.interp(np.arange(1, 257), x, y) - 1)
    curve = np.stack(curves, axis=1)[None].round().clip(0, 255).astype(np.uint8)
    return curve, SIGMAS * float(np.median(np.concatenate(left)))
