"""One subject as a detector would cut it out: a crop in each of the three modalities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mambapro.contract import MODALITIES, Modality
from mambapro.synthetic.backdrop import Backdrop, build_backdrop, occlude
from mambapro.synthetic.bodywork import Bodywork
from mambapro.synthetic.buffers import Bytes, GBuffer, Plane, View, as_plane
from mambapro.synthetic.faces import State
from mambapro.synthetic.figure import Pose, draw_person
from mambapro.synthetic.imaging import (
    cast_shadow,
    expose,
    noise,
    noise_level,
    to_bytes,
)
from mambapro.synthetic.light import Light, Response, sample_light
from mambapro.synthetic.people import Person
from mambapro.synthetic.surfaces import EXCESS, Surface
from mambapro.synthetic.vehicles import SHAPES, Vehicle
from mambapro.synthetic.wardrobe import cover

Triplet = dict[Modality, Bytes]
"""rgb, nir and tir, each (H, W, 3) uint8, R, G, B."""

_BACKDROP_SIZE = (420, 1280)
_OVERSAMPLING = 1.45
_OCCLUDED_SHARE = 0.1
_HEADINGS = tuple(math.pi * turn for turn in (0, 1, 0.5, -0.27, -0.5, 0.75, 0.25, 1.2))
_VEHICLE_HEADINGS = tuple(math.pi * turn for turn in (0.16, 0.8, 0.42, -0.3, 1.22, 0.62, 0.3, -0.2))
"""Heading of subjects at each viewing position: vehicles are seen obliquely, as from a roadside."""


@dataclass(frozen=True)
class Site:
    """One viewing position: its heading towards subjects, backdrop and camera response."""

    heading: float
    """Usual heading of persons, radians: 0 towards the camera."""
    vehicle_heading: float
    elevation: float
    backdrop: Backdrop
    response: Response


@dataclass(frozen=True)
class Drawn:
    """A subject on a canvas of its own."""

    part: Bytes
    """(H, W), 0 where the subject is not."""
    box: tuple[int, int, int, int]
    foot_row: float
    surface: Callable[[tuple[int, int, int, int]], Surface]
    """Gives the surface within a box (x0, y0, x1, y1) of the canvas."""


def build_site(seed: int, camera: int) -> Site:
    """Return the viewing position ``camera`` (from 0) of the world ``seed``."""
    rng = np.random.default_rng([seed, 0x517E, camera])
    return Site(
        heading=_HEADINGS[camera],
        vehicle_heading=_VEHICLE_HEADINGS[camera],
        elevation=float(rng.uniform(0.08, 0.26)),
        backdrop=build_backdrop(rng, *_BACKDROP_SIZE, float(rng.uniform(0.42, 0.55))),
        response=Response.sample(rng),
    )


def draw_person_at(
    person: Person, pose: Pose, yaw: float, elevation: float, px_per_m: float
) -> Drawn:
    """Draw a person on a canvas that fits, with room around for shadow and jitter."""
    tall = person.height_m * px_per_m
    height, width = round(tall * 1.42), round(tall * 0.98)
    view = View(yaw, elevation, px_per_m, (width / 2, tall * 1.2))
    buffer = GBuffer(height, width)
    draw_person(person, pose, view, buffer)
    return Drawn(
        buffer.part,
        buffer.box(),
        view.origin[1],
        lambda box: cover(person, buffer.window(box), yaw),
    )


def draw_vehicle_at(
    vehicle: Vehicle, state: State, yaw: float, elevation: float, px_per_m: float
) -> Drawn:
    """Draw a vehicle on a canvas that fits, with room around for shadow and jitter."""
    shape = SHAPES[vehicle.kind]
    long = abs(math.sin(yaw)) * shape.length_m * 1.08 + abs(math.cos(yaw)) * shape.width_m
    deep = (abs(math.cos(yaw)) * shape.length_m * 1.08 + shape.width_m) * math.sin(elevation)
    tall = shape.height_m * 1.08 + 0.4
    height = round(px_per_m * (tall + deep) * 1.4)
    width = round(px_per_m * long * 1.4)
    view = View(yaw, elevation, px_per_m, (width / 2, px_per_m * (tall * 1.16 + deep * 0.7)))
    buffer = GBuffer(height, width)
    body = Bodywork(vehicle, state, view)
    body.draw(buffer)
    return Drawn(
        buffer.part,
        buffer.box(),
        view.origin[1],
        lambda box: body.cover(buffer.window(box), box[1]),
    )


def person_crop(
    person: Person, site: Site, phase: str, size: tuple[int, int], rng: np.random.Generator
) -> Triplet:
    """Render one sighting of a person; ``size`` is (height, width) in pixels."""
    pose = Pose(float(rng.uniform(0, 2 * math.pi)), float(rng.choice([0.15, 0.8, 1.0])))
    px_per_m = _OVERSAMPLING * size[0] / (1.08 * person.height_m)
    yaw = site.heading + float(rng.normal(0, 0.3))
    drawn = draw_person_at(person, pose, yaw, site.elevation, px_per_m)
    return _photograph(drawn, site, sample_light(rng, phase, site.response), size, rng)


def vehicle_crop(
    vehicle: Vehicle, site: Site, phase: str, size: tuple[int, int], rng: np.random.Generator
) -> Triplet:
    """Render one sighting of a vehicle; ``size`` is (height, width) in pixels."""
    lit = phase != "day" and rng.random() < 0.7
    state = State(float(rng.uniform(0.45, 1.0)), float(rng.uniform(0.5, 1.0)) if lit else 0.0)
    yaw = site.vehicle_heading + float(rng.normal(0, 0.2))
    shape = SHAPES[vehicle.kind]
    long = abs(math.sin(yaw)) * shape.length_m + abs(math.cos(yaw)) * shape.width_m
    px_per_m = min(_OVERSAMPLING * size[1] / long, _OVERSAMPLING * 1.35 * size[0] / shape.height_m)
    drawn = draw_vehicle_at(vehicle, state, yaw, site.elevation + 0.06, px_per_m)
    return _photograph(drawn, site, sample_light(rng, phase, site.response), size, rng)


def _photograph(
    drawn: Drawn, site: Site, light: Light, size: tuple[int, int], rng: np.random.Generator
) -> Triplet:
    """Put a drawn subject before the backdrop and take its picture in all three modalities."""
    box = x0, y0, x1, y1 = detector_box(drawn, rng)
    inside = drawn.part[y0:y1, x0:x1] > 0
    scene = _backdrop_window(site.backdrop, y1 - y0, x1 - x0, drawn.foot_row - y0, light, rng)
    shadow = cast_shadow((drawn.part > 0).astype(np.float32), drawn.foot_row, light)[y0:y1, x0:x1]
    shadow[inside] = 1
    scene.put(drawn.surface(box), inside)
    if rng.random() < _OCCLUDED_SHARE:
        occlude(scene, rng)
    lens = Lens.sample(rng, light)
    return {
        modality: lens.develop(modality, scene, light, shadow, size, rng) for modality in MODALITIES
    }


def detector_box(drawn: Drawn, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return the box as a detector finds it: each side up to 5 % inside or 10 % outside."""
    x0, y0, x1, y1 = drawn.box
    height, width = drawn.part.shape
    side = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) * [-1, -1, 1, 1]
    grow = side * rng.uniform(-0.05, 0.1, 4)
    left, top, right, bottom = np.round(np.array([x0, y0, x1, y1]) + grow).astype(int).tolist()
    return max(0, left), max(0, top), min(width, right), min(height, bottom)


def _backdrop_window(
    backdrop: Backdrop, height: int, width: int, foot: float, light: Light, rng: np.random.Generator
) -> Surface:
    """Return a piece of the backdrop on whose ground the subject's feet stand."""
    _, tall, wide = backdrop.surface.planes.shape
    row = float(rng.uniform(backdrop.ground_row + 0.15 * (tall - backdrop.ground_row), tall * 0.98))
    top = int(np.clip(row - foot, 0, max(0, tall - height)))
    left = int(rng.integers(0, max(1, wide - width)))
    window = backdrop.surface.window(left, top, left + width, top + height)
    window.planes[EXCESS] *= light.stored
    if window.planes.shape[1:] == (height, width):
        return window
    pad = ((0, 0), (0, height - window.planes.shape[1]), (0, width - window.planes.shape[2]))
    return Surface(np.pad(window.planes, pad, "edge"), np.pad(window.normal, pad, "edge"))


@dataclass(frozen=True)
class Lens:
    """What one exposure does to sharpness: focus, motion, and light that strays into the lens."""

    focus_px: float
    motion_px: float
    glare: tuple[float, float, float] | None
    """Column and row (shares of the picture) and strength of a headlamp's or the sun's flare."""

    @staticmethod
    def sample(rng: np.random.Generator, light: Light) -> Lens:
        """Draw the lens of one picture."""
        blinded = rng.random() < (0.15 if light.daylight < 0.5 else 0.08)
        glare = (
            (float(rng.random()), float(rng.random()), float(rng.uniform(40, 150)))
            if blinded
            else None
        )
        return Lens(0.9 * float(rng.random()) ** 3, 2.2 * float(rng.random()) ** 4, glare)

    def develop(
        self,
        modality: Modality,
        surface: Surface,
        light: Light,
        shadow: Plane,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> Bytes:
        """Expose, blur, shrink, flare and add noise; the result is (H, W, 3) uint8."""
        sigma = {"rgb": 0.5, "nir": 0.7, "tir": 1.3}[modality] + self.focus_px
        picture = expose(modality, surface, light, shadow)
        picture = as_plane(cv2.GaussianBlur(picture, (0, 0), sigma + self.motion_px, sigmaY=sigma))
        picture = np.asarray(
            cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32
        )
        if self.glare is not None and modality != "tir":
            picture = picture + self._flare(modality, size)
        channels = 3 if modality == "rgb" else 1
        picture = picture + np.float32(noise_level(modality, light)) * noise(rng, *size, channels)
        levels = to_bytes(picture)
        return levels if channels == 3 else np.repeat(levels[..., None], 3, axis=-1)

    def _flare(self, modality: Modality, size: tuple[int, int]) -> Plane:
        """Return grey levels that stray light adds, (H, W, 3) for rgb or (H, W)."""
        assert self.glare is not None
        x, y, strength = self.glare
        rows = np.linspace(0, 1, size[0], dtype=np.float32)[:, None] - np.float32(y)
        columns = np.linspace(0, 1, size[1], dtype=np.float32)[None] - np.float32(x)
        flare = np.exp(-6 * np.sqrt(rows * rows + columns * columns)) * np.float32(strength)
        if modality == "nir":
            return np.asarray(flare * np.float32(0.4), np.float32)
        return np.asarray(flare[..., None] * np.array([1.0, 0.95, 0.82], np.float32), np.float32)
