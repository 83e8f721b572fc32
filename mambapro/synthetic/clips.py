"""Render one camera's frames: lit backdrop, moving subjects, noise, and their ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mambapro.synthetic.buffers import Bytes, Mask, Plane, as_plane
from mambapro.synthetic.crops import Drawn, draw_person_at, draw_vehicle_at
from mambapro.synthetic.faces import State
from mambapro.synthetic.figure import Pose
from mambapro.synthetic.imaging import cast_shadow, expose, noise_level, to_bytes, vignette
from mambapro.synthetic.light import Light
from mambapro.synthetic.people import Person
from mambapro.synthetic.rigs import MARGIN, Camera, Homography, Rig
from mambapro.synthetic.routes import Placement, Visit
from mambapro.synthetic.sprites import BLUR_PX, Sprite, blend, to_camera, truth_of, warp
from mambapro.synthetic.surfaces import EXCESS, Surface

_RELIGHT_S = 0.4
_STEPS_PER_M = 4.2
"""Radians of the walking cycle for each metre."""
_NOISE_SHIFT = 64
_FALLOFF = 0.16
"""Share of grey level that the lenses lose in the corners."""


@dataclass(frozen=True)
class Frame:
    """A rendered frame with its truth."""

    picture: Bytes
    """(H, W, 3) R, G, B for the visible camera, (H, W) for the others."""
    subjects: list[dict[str, Any]]


class Painter:
    """Renders the frames of one camera, in order of time."""

    def __init__(
        self, rig: Rig, camera: Camera, visits: list[Visit], seconds: float, seed: int
    ) -> None:
        self.rig, self.camera, self.seconds = rig, camera, seconds
        self.visits = [visit for visit in visits if visit.rig == rig.index]
        self.rng = np.random.default_rng(
            [seed, 0x3A1, rig.index, list(BLUR_PX).index(camera.modality)]
        )
        shift = np.array([[1, 0, -MARGIN[0]], [0, 1, -MARGIN[1]], [0, 0, 1]], np.float64)
        self.backdrop = _warped(rig.backdrop.surface, camera.homography @ shift, camera.size)
        self.plants = warp(rig.backdrop.sway, camera.homography @ shift, camera.size) > 0.5
        self.plant_rows = _row_range(self.plants)
        self.falloff = vignette(camera.size[1], camera.size[0], _FALLOFF)
        self.lit_at = -math.inf
        channels = 3 if camera.modality == "rgb" else 1
        self.grain = _grain(self.rng, camera.size, channels)

    def paint(self, time_s: float) -> Frame:
        """Render the picture at a true capture time."""
        frame = self.compose(time_s)
        return Frame(self._with_noise(frame.picture), frame.subjects)

    def compose(self, time_s: float) -> Frame:
        """Render the picture at a true capture time without sensor noise."""
        if time_s - self.lit_at >= _RELIGHT_S:
            self._relight(time_s)
        picture = self.base.copy()
        self._move_plants(picture, time_s)
        sprites, actors = [], []
        for visit, place in self._present(time_s):
            sprites.append(self._sprite(visit, place))
            actors.append(visit.actor)
            blend(picture, sprites[-1])
        truth = [truth_of(actor, sprites, i, self.camera.size) for i, actor in enumerate(actors)]
        return Frame(picture, [line for line in truth if line is not None])

    def _present(self, time_s: float) -> list[tuple[Visit, Placement]]:
        """Return who is there, from far to near."""
        found = []
        for visit in self.visits:
            place = visit.at(time_s)
            if place is not None:
                found.append((visit, place))
        return sorted(found, key=lambda pair: pair[1].foot[1])

    def _relight(self, time_s: float) -> None:
        self.lit_at = time_s
        self.light: Light = self.rig.light(time_s / self.seconds, self.seconds)
        surface = Surface(self.backdrop.planes.copy(), self.backdrop.normal)
        surface.planes[EXCESS] *= self.light.stored
        lit = expose(self.camera.modality, surface, self.light)
        if self.camera.modality != "tir":
            lit = lit * (self.falloff[..., None] if lit.ndim == 3 else self.falloff)
        self.base = to_bytes(as_plane(cv2.GaussianBlur(lit, (0, 0), BLUR_PX[self.camera.modality])))
        level = noise_level(self.camera.modality, self.light)
        self.scaled_grain = np.round(self.grain * np.float32(level)).astype(np.int16)

    def _move_plants(self, picture: Bytes, time_s: float) -> None:
        rows = self.plant_rows
        if rows.start == rows.stop:
            return
        dx = 1.4 * math.sin(1.9 * time_s) + 0.6 * math.sin(5.3 * time_s + 1)
        matrix = np.array([[1, 0, dx], [0, 1, 0.4 * math.sin(2.7 * time_s)]], np.float64)
        band = self.base[rows]
        size = (band.shape[1], band.shape[0])
        moved = cv2.warpAffine(band, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        cv2.copyTo(moved, self.plants[rows].astype(np.uint8), picture[rows])

    def _with_noise(self, picture: Bytes) -> Bytes:
        y, x = self.rng.integers(0, _NOISE_SHIFT, 2)
        grain = self.scaled_grain[y : y + picture.shape[0], x : x + picture.shape[1]]
        return np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), np.uint8)

    def _sprite(self, visit: Visit, place: Placement) -> Sprite:
        drawn = self._draw(visit, place)
        light, modality = self.light, self.camera.modality
        alpha = (drawn.part > 0).astype(np.float32)
        shadow = cast_shadow(alpha, drawn.foot_row, light)
        x0, y0, x1, y1 = _grown(drawn)
        lit = expose(modality, drawn.surface((x0, y0, x1, y1)), light)
        colour = np.zeros((*alpha.shape, *lit.shape[2:]), np.float32)
        colour[y0:y1, x0:x1] = lit * self._falloff_at(place)
        left, top = place.foot[0] - alpha.shape[1] / 2, place.foot[1] - drawn.foot_row
        origin = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
        matrix = self.camera.homography @ self.camera.parallax(place.px_per_m) @ origin
        return to_camera(colour, alpha, self._shade(shadow), matrix, modality)

    def _falloff_at(self, place: Placement) -> float:
        """Return the lens's fall-off at a subject's foot."""
        if self.camera.modality == "tir":
            return 1.0
        height, width = self.falloff.shape
        row, column = min(height - 1, int(place.foot[1])), min(width - 1, int(place.foot[0]))
        return float(self.falloff[max(0, row), max(0, column)])

    def _shade(self, shadow: Plane) -> Plane:
        """Return the factor on grey levels that a share of sunlight means."""
        light = self.light
        if self.camera.modality == "tir":
            return np.ones_like(shadow)
        sun, sky = (sum(light.sun_rgb), sum(light.sky_rgb) + sum(light.lamp_rgb))
        if self.camera.modality == "nir":
            sun, sky = light.nir_sun, light.nir_sky + light.nir_active
        part = 0.6 * sun / (0.6 * sun + sky) + 0.2
        return as_plane(np.sqrt(1 - np.float32(part) * (1 - shadow)))

    def _draw(self, visit: Visit, place: Placement) -> Drawn:
        who = visit.actor.who
        if isinstance(who, Person):
            pose = Pose(place.travelled_m * _STEPS_PER_M)
            return draw_person_at(who, pose, place.yaw, self.rig.elevation, place.px_per_m)
        lights = 0.9 if self.light.daylight < 0.4 else 0.0
        state = State(visit.warm, lights)
        return draw_vehicle_at(who, state, place.yaw, self.rig.elevation + 0.06, place.px_per_m)


def _grown(drawn: Drawn) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = drawn.box
    height, width = drawn.part.shape
    return max(0, x0 - 3), max(0, y0 - 3), min(width, x1 + 3), min(height, y1 + 3)


def _grain(rng: np.random.Generator, size: tuple[int, int], channels: int) -> Plane:
    """Return unit noise larger than the picture, so that each frame can take another piece."""
    shape = (size[1] + _NOISE_SHIFT, size[0] + _NOISE_SHIFT, channels)
    fine = rng.standard_normal(shape).astype(np.float32)
    coarse = rng.standard_normal((shape[0] // 3 + 1, shape[1] // 3 + 1, channels)).astype(
        np.float32
    )
    grown = cv2.resize(coarse, (shape[1], shape[0])).reshape(shape)
    total = 0.75 * fine + 0.8 * grown
    return np.asarray(total if channels == 3 else total[..., 0], np.float32)


def _warped(surface: Surface, matrix: Homography, size: tuple[int, int]) -> Surface:
    planes = np.stack([warp(plane, matrix, size, replicate=True) for plane in surface.planes])
    normal = np.stack([warp(plane, matrix, size, replicate=True) for plane in surface.normal])
    return Surface(planes, normal)


def _row_range(mask: Mask) -> slice:
    rows = np.flatnonzero(mask.any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
