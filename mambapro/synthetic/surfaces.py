"""Materials, and the surface planes that light falls on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mambapro.synthetic.buffers import Mask, Plane, as_plane

Colour = tuple[float, float, float]

RED, GREEN, BLUE, NIR, WARMTH, EXCESS, EMISSIVITY, GLOSS, GLOW = range(9)
"""Planes of a `Surface`; also the columns of a material table."""
PLANES = 9


@dataclass(frozen=True)
class Material:
    """What one piece of cloth, paint, skin or glass does with light and heat."""

    rgb: Colour
    """Share of visible light reflected, linear, 0..1."""
    nir: float
    """Share of near infrared (about 850 nm) reflected, 0..1; not a function of rgb."""
    warmth: float = 0.0
    """Surface temperature as a share of the way from the air to blood heat."""
    excess: float = 0.0
    """Degrees Celsius above the air from engines, brakes or stored sun."""
    emissivity: float = 0.95
    gloss: float = 0.0
    """Mirror-like share, 0..1."""
    glow: float = 0.0
    """Light given off, in units of the sun's illumination; its colour is `rgb`."""

    def row(self) -> tuple[float, ...]:
        """Return the nine columns of a material table."""
        return (
            *self.rgb,
            self.nir,
            self.warmth,
            self.excess,
            self.emissivity,
            self.gloss,
            self.glow,
        )


@dataclass
class Surface:
    """What a picture shows before light: `planes` (9, H, W), `normal` (3, H, W), float32."""

    planes: Plane
    normal: Plane
    """Right, up, towards the viewer; not always of unit length."""

    def window(self, x0: int, y0: int, x1: int, y1: int) -> Surface:
        """Return a copy of a rectangle."""
        return Surface(self.planes[:, y0:y1, x0:x1].copy(), self.normal[:, y0:y1, x0:x1].copy())

    def put(self, other: Surface, where: Mask) -> None:
        """Replace the pixels of ``where`` (H, W) by those of ``other``."""
        np.copyto(self.planes, other.planes, where=where)
        np.copyto(self.normal, other.normal, where=where)


def material_table(materials: list[Material]) -> Plane:
    """Return the (9, N) table that `numpy.take` turns a material map into planes with."""
    return as_plane(np.array([material.row() for material in materials]).T.copy())


def linear(red: int, green: int, blue: int) -> Colour:
    """Return an sRGB colour (0..255) as linear reflectances."""
    return _linear(red), _linear(green), _linear(blue)


def _linear(value: int) -> float:
    return max(0.012, float((value / 255) ** 2.2) * 0.92)
