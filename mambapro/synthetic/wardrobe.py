"""Lay cloth, skin and hair over the shape of a person."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mambapro.synthetic.buffers import GBuffer, Mask, Plane, as_plane
from mambapro.synthetic.figure import Part
from mambapro.synthetic.people import Garment, Person
from mambapro.synthetic.surfaces import EXCESS, WARMTH, Material, Surface, material_table

_Index = NDArray[np.intp]
"""Row of the material table at each pixel, (H, W)."""
_CONTINUED = {
    Part.YOKE: (-0.2, 0.3), Part.HEM: (0.85, 0.4), Part.HOOD: (-0.1, 0.3), Part.SLEEVE: (0.0, 0.5),
    Part.FOREARM: (0.5, 0.5), Part.HIPS: (-0.1, 0.1), Part.THIGH: (0.0, 0.5), Part.SHIN: (0.5, 0.5),
}  # fmt: skip
"""Where on their garment's pattern parts begin, and how much of it they span."""


def cover(person: Person, buffer: GBuffer, yaw: float) -> Surface:
    """Return the surface of a drawn person: cloth, skin, hair and their warmth.

    ``yaw`` is the view's; patterns are fixed to the body and turn with it.
    """
    wardrobe = _Wardrobe(person)
    angle = np.arcsin(np.clip(buffer.u, -1, 1)) - np.float32(yaw)
    index, heat = _dress(buffer, angle, wardrobe)
    _dress_torso(person, buffer, angle, index, wardrobe)
    _paint_head(person, buffer, yaw, index, wardrobe)
    planes = np.take(wardrobe.table, index, axis=1)
    down, around = buffer.v * 70 + buffer.part * 53.0, angle * 24
    folds = _folds()[down.astype(np.int32) & 255, around.astype(np.int32) & 255]
    planes[:4] *= (0.62 + 0.38 * buffer.normal[2]) * (1 + 0.13 * folds)
    planes[WARMTH] = np.clip(planes[WARMTH] + heat, -0.1, 1.0) * (0.84 + 0.16 * buffer.normal[2])
    planes[EXCESS] += 0.45 * folds
    return Surface(planes, buffer.normal)


def _dress(buffer: GBuffer, angle: Plane, wardrobe: _Wardrobe) -> tuple[_Index, Plane]:
    """Return the row of the material table at each pixel, and the warmth that linings add."""
    index = wardrobe.first[buffer.part]
    heat = np.zeros(buffer.part.shape, np.float32)
    for part, garment, first in wardrobe.patterned:
        rows, columns = np.nonzero(buffer.part == part)
        if len(rows) == 0:
            continue
        start, length = _CONTINUED.get(part, (0.0, 1.0))
        a, v = angle[rows, columns], start + length * buffer.v[rows, columns]
        index[rows, columns] = first + garment.pattern.accent(a, v)
        heat[rows, columns] = garment.heat_step * garment.heat_pattern.accent(a, v)
    return index, heat


@lru_cache(maxsize=1)
def _folds() -> Plane:
    """Return (256, 256) creases of cloth, which run across a part more than along it."""
    rng = np.random.default_rng(4711)

    def grown(rows: int, columns: int) -> Plane:
        small = rng.standard_normal((rows, columns)).astype(np.float32)
        return as_plane(cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC))

    return as_plane(0.8 * grown(26, 18) + 0.45 * grown(80, 90))


class _Wardrobe:
    """Material table of one person; garments take two rows: base, accent."""

    def __init__(self, person: Person) -> None:
        sleeves = person.upper_kind in ("shirt", "jacket", "hoodie", "coat")
        legs = person.lower_kind in ("trousers", "jeans", "wide")
        lower, upper, sleeve = person.lower, person.upper, person.sleeve
        bare = Garment(person.skin, person.skin)
        garments: list[tuple[Part, Garment]] = [
            (Part.TORSO, upper), (Part.YOKE, upper), (Part.HEM, upper), (Part.HOOD, upper),
            (Part.SLEEVE, bare if person.upper_kind == "vest" else sleeve),
            (Part.FOREARM, sleeve if sleeves else bare),
            (Part.HIPS, lower), (Part.SKIRT, lower),
            (Part.THIGH, bare if person.lower_kind in ("skirt", "dress") else lower),
            (Part.SHIN, lower if legs else bare), (Part.BAG, person.bag),
        ]  # fmt: skip
        plain: list[tuple[Part, Material]] = [
            (Part.HEAD, person.skin), (Part.HAIR, person.hair), (Part.NECK, person.skin),
            (Part.HAND, person.skin), (Part.SHOE, person.shoes), (Part.HAT, person.hat),
            (Part.BRIM, person.hat), (Part.STRAP, person.bag.base),
        ]  # fmt: skip
        materials = [Material((0, 0, 0), 0)]
        self.first = np.zeros(len(Part) + 1, np.intp)
        self.patterned: list[tuple[Part, Garment, int]] = []
        for part, garment in garments:
            self.first[part] = len(materials)
            self.patterned.append((part, garment, len(materials)))
            materials += [garment.base, garment.accent]
        for part, material in plain:
            self.first[part] = len(materials)
            materials.append(material)
        self.table = material_table(materials)


def _dress_torso(
    person: Person, buffer: GBuffer, angle: Plane, index: _Index, wardrobe: _Wardrobe
) -> None:
    """Lay straps over the torso."""
    torso = buffer.part == Part.TORSO
    if person.bag_kind == "backpack":
        straps = (np.cos(angle) > 0) & (np.abs(np.abs(np.sin(angle)) - 0.58) < 0.13)
        index[torso & straps] = wardrobe.first[Part.STRAP]
    if person.bag_kind == "shoulder":
        line = 0.5 + 0.5 * person.side * np.sin(angle)
        index[torso & (np.abs(buffer.v - line) < 0.07)] = wardrobe.first[Part.STRAP]


def _paint_head(
    person: Person, buffer: GBuffer, yaw: float, index: _Index, wardrobe: _Wardrobe
) -> None:
    """Lay hair and eyes over the head, fixed to the skull."""
    right, up, near = buffer.normal
    cosine, sine = np.float32(math.cos(yaw)), np.float32(math.sin(yaw))
    forward, aside = right * sine + near * cosine, right * cosine - near * sine
    face: Mask = (buffer.part == Part.HEAD) & (forward > 0.3)
    eyes: Mask = face & (np.abs(buffer.v - 0.42) < 0.09) & (np.abs(np.abs(aside) - 0.38) < 0.16)
    index[eyes] = wardrobe.first[Part.HAIR]
    if person.hairstyle == "bald":
        return
    hairline = {"short": 0.3, "long": -0.1, "bun": 0.25}[person.hairstyle]
    hair: Mask = (buffer.part == Part.HEAD) & (up > hairline + 0.7 * forward)
    index[hair] = wardrobe.first[Part.HAIR]
