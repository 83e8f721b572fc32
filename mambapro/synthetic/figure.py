"""Draw a person's shape: limbs as tubes in a walking pose.

Lengths in this file are shares of body height, x to the side, y forward, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum, auto

from mambapro.synthetic.buffers import GBuffer, Point, Tube, View
from mambapro.synthetic.people import Person

_PADDING = {"coat": 0.014, "jacket": 0.009, "hoodie": 0.012}
"""What a garment adds to the trunk's half-width."""
_SLEEVES = {"coat": 1.22, "jacket": 1.15, "hoodie": 1.18}
"""Width of an arm in a sleeve against the bare arm."""
_LEGS = {"wide": 1.45, "trousers": 1.12, "jeans": 1.0}
"""Width of a trouser leg against the average leg."""


class Part(IntEnum):
    """What a pixel of a person belongs to."""

    HEAD = auto()
    HAIR = auto()
    NECK = auto()
    TORSO = auto()
    YOKE = auto()
    HEM = auto()
    SLEEVE = auto()
    FOREARM = auto()
    HAND = auto()
    HIPS = auto()
    THIGH = auto()
    SHIN = auto()
    SHOE = auto()
    SKIRT = auto()
    HAT = auto()
    BRIM = auto()
    HOOD = auto()
    BAG = auto()
    STRAP = auto()


@dataclass(frozen=True)
class Pose:
    """Where a walk is in its cycle."""

    phase: float
    """Radians; pi later the other leg leads."""
    swing: float = 1.0
    """Share of the person's full stride: 0 stands still."""


def draw_person(person: Person, pose: Pose, view: View, buffer: GBuffer) -> None:
    """Draw the person's geometry into ``buffer``."""
    scaled = replace(view, px_per_m=view.px_per_m * person.height_m)
    for tube in _tubes(person, pose):
        buffer.add_tube(tube, scaled)


def _tubes(person: Person, pose: Pose) -> list[Tube]:
    tubes = [*_trunk(person), *_garment_ends(person), *_head(person), *_hat(person), *_bag(person)]
    for side in (-1, 1):
        tubes += _leg(person, pose, side) + _arm(person, pose, side)
    return tubes


def _trunk_half(person: Person) -> tuple[float, float]:
    """Return the trunk's half-width (at average shoulders) and half-depth."""
    padding = _PADDING.get(person.upper_kind, 0.0)
    return 0.098 * person.girth + padding, 0.064 * person.girth**1.3 + padding


def _trunk(person: Person) -> list[Tube]:
    hips, (width, depth) = person.leg_share, _trunk_half(person)
    wide = width * person.shoulders
    chest, waist = (wide, width * 0.92), (depth * 0.95, depth * 1.12)
    seat, slope = (width * 0.84, width * 0.8), (0.04, wide * 0.96)
    return [
        Tube(Part.TORSO, (0, 0, 0.77), (0, 0, hips - 0.02), chest, waist, 0.6, -0.01),
        Tube(Part.YOKE, (0, -0.004, 0.833), (0, 0, 0.765), slope, (0.045, depth * 0.9), 0.2),
        Tube(Part.HIPS, (0, 0, hips + 0.03), (0, 0, hips - 0.055), seat, (depth, depth), 0.35),
        Tube(Part.NECK, (0, 0.01, 0.875), (0, 0, 0.8), (0.03, 0.034), (0.031, 0.036), 0.3),
    ]


def _garment_ends(person: Person) -> list[Tube]:
    """Return what hangs from the trunk: coat skirts, a hood, a skirt."""
    hips, (width, depth) = person.leg_share, _trunk_half(person)
    tubes = []
    low = {"coat": 0.36, "jacket": hips - 0.02, "hoodie": hips - 0.03}.get(person.upper_kind)
    if low is not None:
        flare = 1.12 if person.upper_kind == "coat" else 1.0
        across, along = (width * 0.9, width * 0.92 * flare), (depth * 1.05, depth * 1.1 * flare)
        tubes.append(Tube(Part.HEM, (0, 0, hips + 0.04), (0, 0, low), across, along, 0.05))
    if person.upper_kind == "hoodie":
        top, bottom = (0, -depth * 0.8, 0.845), (0, -depth, 0.77)
        tubes.append(Tube(Part.HOOD, top, bottom, (0.07, 0.05), (0.045, 0.03), 0.7))
    if person.lower_kind in ("skirt", "dress"):
        end = 0.27 if person.lower_kind == "skirt" else 0.2
        across, along = (width * 0.82, width * 1.3), (depth * 0.98, depth * 1.7)
        tubes.append(Tube(Part.SKIRT, (0, 0, hips + 0.06), (0, 0, end), across, along, 0.06))
    return tubes


def _head(person: Person) -> list[Tube]:
    skull, face = (0, 0.01, 0.956), (0, 0.018, 0.898)
    tubes = [Tube(Part.HEAD, skull, face, (0.046, 0.034), (0.056, 0.043), 0.95)]
    if person.hairstyle == "long":
        crown, ends = (0, -0.015, 0.965), (0, -0.055, 0.76)
        tubes.append(Tube(Part.HAIR, crown, ends, (0.055, 0.062), (0.04, 0.02), 0.6))
    if person.hairstyle == "bun":
        top, bottom = (0, -0.06, 0.985), (0, -0.06, 0.96)
        tubes.append(Tube(Part.HAIR, top, bottom, (0.03, 0.03), (0.03, 0.03)))
    return tubes


def _hat(person: Person) -> list[Tube]:
    if person.hat_kind == "none":
        return []
    low = {"cap": 0.965, "beanie": 0.945, "brim": 0.968}[person.hat_kind]
    high = {"cap": 0.985, "beanie": 0.995, "brim": 1.0}[person.hat_kind]
    crown, band = (0, 0.006, high), (0, 0.008, low)
    tubes = [Tube(Part.HAT, crown, band, (0.047, 0.054), (0.055, 0.062), 0.5)]
    if person.hat_kind == "cap":
        top, bottom = (0, 0.09, low + 0.004), (0, 0.09, low - 0.008)
        tubes.append(Tube(Part.BRIM, top, bottom, (0.04, 0.042), (0.05, 0.05), 0.1))
    if person.hat_kind == "brim":
        top, bottom = (0, 0.01, low + 0.006), (0, 0.01, low - 0.006)
        tubes.append(Tube(Part.BRIM, top, bottom, (0.1, 0.105), (0.11, 0.115), 0.1))
    return tubes


def _leg(person: Person, pose: Pose, side: int) -> list[Tube]:
    g = person.girth**0.8
    cycle = pose.phase + (math.pi if side > 0 else 0.0)
    hip = person.stride * pose.swing * math.sin(cycle)
    lift = max(0.0, math.cos(cycle)) ** 2 * (0.6 - 0.4 * math.sin(cycle))
    knee = pose.swing * (0.12 + 0.75 * lift)
    bone = 0.5 * (person.leg_share - 0.04)
    x = side * 0.052 * person.girth**0.7
    start: Point = (x, 0.0, person.leg_share - 0.02)
    middle = _swing(start, bone, hip, x * 0.92)
    ankle = _swing(middle, bone, hip - knee, x * 0.85)
    wide = _LEGS.get(person.lower_kind, 0.95)
    upper, lower = 0.046 * g * min(wide, 1.15), 0.031 * g * wide
    cuff = 0.026 * wide if person.lower_kind in _LEGS else 0.021
    heel: Point = (ankle[0], ankle[1] - 0.012, ankle[2])
    toe: Point = (ankle[0] + side * 0.006, ankle[1] + 0.085, max(0.012, ankle[2] - 0.012))
    thigh, shin = (upper, lower * 1.1), (lower * 1.08, cuff)
    return [
        Tube(Part.THIGH, start, middle, thigh, (upper * 0.8, lower * 1.1), 0.25),
        Tube(Part.SHIN, middle, ankle, shin, (lower * 1.15, cuff), 0.7, 0.004),
        Tube(Part.SHOE, heel, toe, (0.027, 0.024), (0.03, 0.022), 0.8),
    ]


def _arm(person: Person, pose: Pose, side: int) -> list[Tube]:
    reach = _trunk_half(person)[0] * person.shoulders - 0.012
    carrying = person.bag_kind in ("handbag", "suitcase") and side == person.side
    cycle = pose.phase + (math.pi if side > 0 else 0.0)
    angle = -0.9 * person.stride * pose.swing * math.sin(cycle) * (0.15 if carrying else 1.0)
    bend = angle + (0.08 if carrying else 0.28 + 0.25 * max(0.0, angle))
    start: Point = (side * reach, 0.0, 0.766)
    elbow = _swing(start, 0.155, angle, side * (reach + 0.022))
    wrist = _swing(elbow, 0.14, bend, side * (reach + 0.022))
    hand = _swing(wrist, 0.045, bend, side * (reach + 0.016))
    r = 0.0265 * person.girth**0.8 * _SLEEVES.get(person.upper_kind, 1.0)
    upper, lower = (r * 1.12, r * 0.92), (r * 0.92, r * 0.66)
    return [
        Tube(Part.SLEEVE, start, elbow, upper, upper),
        Tube(Part.FOREARM, elbow, wrist, lower, lower),
        Tube(Part.HAND, wrist, hand, (0.018, 0.018), (0.02, 0.018)),
    ]


def _swing(start: Point, length: float, angle: float, x: float) -> Point:
    """Return the end of a bone that swings forward by ``angle`` and ends ``x`` to the side."""
    return x, start[1] + length * math.sin(angle), start[2] - length * math.cos(angle)


def _bag(person: Person) -> list[Tube]:
    width, depth = _trunk_half(person)
    out = person.side * (width * person.shoulders + 0.045)
    top: Point
    bottom: Point
    if person.bag_kind == "backpack":
        top, bottom = (0, -depth - 0.032, 0.81), (0, -depth - 0.04, 0.56)
        return [Tube(Part.BAG, top, bottom, (0.085, 0.095), (0.06, 0.085), 0.5, 0.0, 4)]
    if person.bag_kind == "shoulder":
        top, bottom = (out, -0.012, 0.55), (out, -0.012, 0.43)
        return [Tube(Part.BAG, top, bottom, (0.035, 0.04), (0.1, 0.105), 0.2, 0.0, 4)]
    if person.bag_kind == "handbag":
        top, bottom = (out, 0.017, 0.41), (out, 0.017, 0.27)
        return [Tube(Part.BAG, top, bottom, (0.04, 0.055), (0.1, 0.12), 0.15, 0.0, 4)]
    if person.bag_kind == "suitcase":
        top, bottom = (out, -0.115, 0.36), (out, -0.125, 0.05)
        hand, handle = (out, -0.03, 0.47), (out, -0.115, 0.34)
        case = Tube(Part.BAG, top, bottom, (0.07, 0.075), (0.11, 0.12), 0.15, 0.0, 6)
        return [case, Tube(Part.STRAP, hand, handle, (0.007, 0.007), (0.007, 0.007))]
    return []
