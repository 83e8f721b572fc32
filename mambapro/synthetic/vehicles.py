"""What a vehicle is: shape, paint, trim and accessories, in all three modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mambapro.synthetic.surfaces import Colour, Material, linear

_T = TypeVar("_T")
Spot = tuple[float, float]
"""Place on the side: share of the length (0.5 front, -0.5 rear), share of the height."""


@dataclass(frozen=True)
class Shape:
    """A class of bodies, as shares of length and height, seen from the right-hand side."""

    length_m: float
    width_m: float
    height_m: float
    profile: tuple[Spot, ...]
    """From the front's lower edge over hood and roof to the rear's lower edge."""
    panels: tuple[str, ...]
    """What the strip between two neighbours of `profile` is made of."""
    windows: tuple[tuple[Spot, ...], ...]
    belt: float
    """Height where the body starts to lean inwards."""
    wheel_m: float = 0.32
    axles: tuple[float, ...] = (0.31, -0.30)
    cargo: tuple[float, float, float, float] | None = None
    """A box behind the cab: front and rear (shares of length), bottom and top (of height)."""


_CAR_FRONT = ((0.5, 0.16), (0.5, 0.43), (0.465, 0.54))
_CAR_PANELS = ("bumper", "front")
SHAPES: dict[str, Shape] = {
    "sedan": Shape(
        4.6, 1.8, 1.45,
        (*_CAR_FRONT, (0.22, 0.63), (0.07, 0.98), (-0.17, 1.0), (-0.35, 0.68), (-0.49, 0.64),
         (-0.5, 0.42), (-0.5, 0.16)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "trunk", "rear", "bumper"),
        (((0.19, 0.65), (0.075, 0.93), (-0.02, 0.95), (-0.03, 0.65)),
         ((-0.05, 0.65), (-0.04, 0.95), (-0.165, 0.95), (-0.3, 0.68))), 0.63),
    "hatch": Shape(
        3.9, 1.72, 1.5,
        (*_CAR_FRONT, (0.25, 0.62), (0.1, 0.98), (-0.3, 1.0), (-0.46, 0.64), (-0.5, 0.42),
         (-0.5, 0.16)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "rear", "bumper"),
        (((0.22, 0.64), (0.1, 0.93), (-0.04, 0.94), (-0.04, 0.64)),
         ((-0.06, 0.64), (-0.06, 0.94), (-0.28, 0.94), (-0.38, 0.66))), 0.62, 0.31, (0.33, -0.33)),
    "estate": Shape(
        4.7, 1.8, 1.5,
        (*_CAR_FRONT, (0.22, 0.62), (0.08, 0.97), (-0.42, 1.0), (-0.48, 0.64), (-0.5, 0.42),
         (-0.5, 0.16)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "rear", "bumper"),
        (((0.19, 0.64), (0.08, 0.93), (-0.04, 0.94), (-0.04, 0.64)),
         ((-0.06, 0.64), (-0.06, 0.94), (-0.22, 0.95), (-0.22, 0.64)),
         ((-0.24, 0.64), (-0.24, 0.95), (-0.4, 0.95), (-0.44, 0.66))), 0.62),
    "suv": Shape(
        4.6, 1.92, 1.8,
        ((0.5, 0.2), (0.5, 0.48), (0.47, 0.58), (0.24, 0.64), (0.13, 0.98), (-0.4, 1.0),
         (-0.485, 0.66),
         (-0.5, 0.42), (-0.5, 0.2)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "rear", "bumper"),
        (((0.22, 0.66), (0.135, 0.93), (0.0, 0.94), (0.0, 0.66)),
         ((-0.02, 0.66), (-0.02, 0.94), (-0.2, 0.94), (-0.2, 0.66)),
         ((-0.22, 0.66), (-0.22, 0.94), (-0.38, 0.94), (-0.43, 0.68))), 0.65, 0.39, (0.31, -0.31)),
    "coupe": Shape(
        4.3, 1.86, 1.25,
        (*_CAR_FRONT, (0.16, 0.65), (0.02, 0.98), (-0.14, 1.0), (-0.42, 0.7), (-0.5, 0.64),
         (-0.5, 0.16)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "trunk", "rear"),
        (((0.13, 0.67), (0.03, 0.93), (-0.13, 0.95), (-0.28, 0.7)),), 0.65, 0.34, (0.31, -0.31)),
    "pickup": Shape(
        5.2, 1.9, 1.75,
        ((0.5, 0.22), (0.5, 0.5), (0.475, 0.58), (0.25, 0.63), (0.16, 0.98), (-0.05, 1.0),
         (-0.1, 0.63),
         (-0.5, 0.61), (-0.5, 0.22)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "bed", "rear"),
        (((0.225, 0.65), (0.16, 0.93), (0.06, 0.94), (0.06, 0.65)),
         ((0.045, 0.65), (0.045, 0.94), (-0.04, 0.94), (-0.07, 0.65))), 0.63, 0.4, (0.33, -0.29)),
    "van": Shape(
        5.0, 1.95, 2.1,
        ((0.5, 0.14), (0.5, 0.4), (0.475, 0.48), (0.37, 0.54), (0.25, 0.96), (-0.49, 1.0),
         (-0.5, 0.6),
         (-0.5, 0.14)),
        (*_CAR_PANELS, "hood", "glass", "roof", "rear", "bumper"),
        (((0.345, 0.56), (0.255, 0.88), (0.13, 0.88), (0.13, 0.56)),), 0.55, 0.34, (0.34, -0.3)),
    "minibus": Shape(
        5.6, 2.0, 2.35,
        ((0.5, 0.14), (0.5, 0.4), (0.48, 0.46), (0.42, 0.5), (0.35, 0.95), (-0.49, 1.0),
         (-0.5, 0.5),
         (-0.5, 0.14)),
        (*_CAR_PANELS, "hood", "glass", "roof", "glass", "rear"),
        tuple(((x + 0.145, 0.55),
        (x + 0.135, 0.86), (x, 0.87), (x, 0.55)) for x in (0.24, 0.07, -0.1, -0.27, -0.44)),
        0.55, 0.36, (0.33, -0.3)),
    "truck": Shape(
        6.4, 2.2, 2.6,
        ((0.5, 0.14), (0.5, 0.38), (0.49, 0.42), (0.48, 0.46), (0.455, 0.8), (0.28, 0.84),
         (0.27, 0.14)),
        ("bumper", "front", "front", "glass", "roof", "cabback"),
        (((0.45, 0.5), (0.43, 0.74), (0.32, 0.75), (0.32, 0.5)),), 0.5, 0.42, (0.37, -0.28),
        (0.25, -0.5, 0.24, 1.0)),
    "bus": Shape(
        7.6, 2.4, 2.9,
        ((0.5, 0.1), (0.5, 0.36), (0.49, 0.9), (0.46, 1.0), (-0.49, 1.0), (-0.5, 0.5), (-0.5, 0.1)),
        ("front", "glass", "roof", "roof", "glass", "rear"),
        tuple(((x + 0.15, 0.45),
        (x + 0.15, 0.84), (x, 0.84), (x, 0.45)) for x in (0.32, 0.155, -0.01, -0.175, -0.34)),
        0.9, 0.46, (0.32, -0.28)),
}  # fmt: skip

PAINTS: tuple[Colour, ...] = tuple(
    linear(*colour)
    for colour in (
        (22, 22, 24), (112, 114, 118), (206, 208, 210), (244, 244, 242), (20, 32, 110),
        (30, 100, 210), (120, 190, 236), (196, 20, 26), (104, 12, 26), (236, 104, 12),
        (246, 206, 24), (14, 92, 48), (96, 176, 60), (116, 76, 40), (214, 190, 140), (112, 36, 136),
        (16, 146, 146), (236, 120, 160),
    )
)  # fmt: skip
_SCHEMES = ("plain", "lower", "lower", "roof", "roof", "band", "band", "hood", "racing")


@dataclass(frozen=True)
class Vehicle:
    """An individual vehicle: all that stays the same from one sighting to the next."""

    kind: str
    scale: Spot
    """Length and height against the shape's own."""
    paint: Material
    second: Material
    scheme: str
    """Where `second` is painted: nowhere, lower body, roof, a band, hood, racing stripes."""
    cargo: Material
    glass: Material
    rim: Material
    spokes: int
    tyre: Material
    dark_trim: bool
    rack: bool
    roof_box: Material | None
    sticker: Material | None
    sticker_at: Spot
    body_c: float
    """Warmth of all painted walls (insulation, heating, a coat that takes up the sun), °C."""
    roof_c: float
    """What the roof adds to that, °C."""
    engine_c: float
    """How much hotter than the air the hood gets, °C."""
    grille_c: float
    door_c: tuple[float, float]
    """Warmth of front and rear side panels (insulation, heating), °C."""
    tail_c: float
    wheel_c: tuple[float, float]
    """Warmth of front and rear wheels (brakes), °C."""
    exhaust_side: int
    lamp_round: bool


def sample_vehicle(rng: np.random.Generator) -> Vehicle:
    """Draw an individual; the same generator state gives the same individual."""
    return Vehicle(
        kind=_pick(rng, tuple(SHAPES)),
        scale=(float(rng.uniform(0.93, 1.08)), float(rng.uniform(0.93, 1.08))),
        paint=_paint(rng),
        second=_paint(rng),
        scheme=_pick(rng, _SCHEMES),
        cargo=_paint(rng),
        glass=_glass(rng),
        rim=_matt(float(rng.choice([0.03, 0.25, 0.6])), float(rng.uniform(0.1, 0.7))),
        spokes=int(rng.choice([0, 3, 5, 8])),
        tyre=Material((0.02, 0.02, 0.022), float(rng.uniform(0.04, 0.1)), excess=1.0),
        dark_trim=bool(rng.random() < 0.5),
        rack=bool(rng.random() < 0.35),
        roof_box=_paint(rng) if rng.random() < 0.3 else None,
        sticker=_paint(rng) if rng.random() < 0.7 else None,
        sticker_at=(float(rng.uniform(-0.3, 0.25)), float(rng.uniform(0.36, 0.5))),
        body_c=float(rng.choice([-5.0, -1.0, 4.0, 10.0])),
        roof_c=float(rng.choice([-6.0, 0.0, 8.0])),
        engine_c=float(rng.choice([0.0, 8.0, 18.0])),
        grille_c=float(rng.choice([2.0, 10.0, 22.0])),
        door_c=(float(rng.choice([-3.0, 0.0, 7.0])), float(rng.choice([-3.0, 0.0, 7.0]))),
        tail_c=float(rng.choice([-3.0, 3.0, 12.0])),
        wheel_c=(float(rng.choice([1.0, 7.0, 16.0])), float(rng.choice([1.0, 7.0, 16.0]))),
        exhaust_side=int(rng.choice([-1, 1])),
        lamp_round=bool(rng.random() < 0.4),
    )


def _paint(rng: np.random.Generator) -> Material:
    """Draw a paint; near-infrared reflectance and emissivity owe nothing to its colour."""
    nir = float(rng.choice([0.03, 0.11, 0.28, 0.52, 0.88]) * rng.uniform(0.92, 1.08))
    emissivity = float(rng.choice([0.78, 0.87, 0.96]))
    return Material(
        _pick(rng, PAINTS), nir, emissivity=emissivity, gloss=float(rng.uniform(0.1, 0.3))
    )


def _glass(rng: np.random.Generator) -> Material:
    tint = float(rng.choice([0.015, 0.04, 0.09]))
    return Material(
        (tint, tint * 1.05, tint * 1.1),
        float(rng.uniform(0.03, 0.25)),
        excess=-1.0,
        emissivity=0.82,
        gloss=0.5,
    )


def _matt(grey: float, nir: float) -> Material:
    return Material((grey, grey, grey), nir)


def _pick(rng: np.random.Generator, options: tuple[_T, ...]) -> _T:
    return options[int(rng.integers(len(options)))]
