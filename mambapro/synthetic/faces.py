"""Flat polygons that vehicles are made of, and the materials that all vehicles share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mambapro.synthetic.buffers import Point
from mambapro.synthetic.surfaces import Material
from mambapro.synthetic.vehicles import Spot

BLACK = Material((0.02, 0.02, 0.02), 0.05)
PLASTIC = Material((0.045, 0.045, 0.048), 0.1, excess=0.5)
PLATE = Material((0.7, 0.7, 0.62), 0.9, excess=-0.5, emissivity=0.8)
CHROME = Material((0.5, 0.5, 0.5), 0.55, emissivity=0.4, gloss=0.5)
SHADE = Material((0.01, 0.01, 0.01), 0.015, excess=2.5)


@dataclass(frozen=True)
class State:
    """What changes from one sighting of a vehicle to the next."""

    warm: float = 1.0
    """Share of its running temperatures reached: 0 long parked, 1 hot."""
    lights: float = 0.0
    """Brightness of head and tail lights, 1 fully on."""


@dataclass(frozen=True)
class Face:
    """A flat polygon of one material, in the subject's metres."""

    corners: tuple[Point, ...]
    material: Material
    normal: Point
    curved: bool = False
    """A side wall: its normal tilts up towards the shoulder and down towards the sill."""


def rectangle(x: float, z: float, half_x: float, half_z: float) -> tuple[Spot, ...]:
    """Return the corners of a rectangle on a side wall."""
    return (
        (x - half_x, z - half_z),
        (x + half_x, z - half_z),
        (x + half_x, z + half_z),
        (x - half_x, z + half_z),
    )


def disc(centre: Spot, height: float, radius: float) -> tuple[Point, ...]:
    """Return an upright disc around (x, y), metres; it does not reach below the ground."""
    angles = [2 * math.pi * k / 14 for k in range(14)]
    return tuple(
        (centre[0], centre[1] + radius * math.sin(a), max(0.0, height + radius * math.cos(a)))
        for a in angles
    )
