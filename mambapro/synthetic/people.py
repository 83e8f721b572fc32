"""Who a person is: proportions, clothes, bags and hats, in all three modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mambapro.synthetic.patterns import Motif, Pattern
from mambapro.synthetic.surfaces import Colour, Material, linear

_T = TypeVar("_T")

CLOTH_COLOURS: tuple[Colour, ...] = tuple(
    linear(*colour)
    for colour in (
        (26, 26, 28), (62, 62, 66), (122, 124, 128), (238, 238, 232), (24, 32, 72), (46, 62, 100),
        (196, 30, 34), (118, 18, 32), (232, 118, 24), (240, 204, 40), (60, 148, 58), (22, 74, 44),
        (104, 112, 60), (28, 156, 160), (34, 104, 208), (120, 182, 232), (110, 52, 150),
        (222, 66, 136), (244, 176, 190), (110, 72, 42), (202, 172, 124), (236, 222, 186),
    )
)  # fmt: skip
_SKINS = tuple(
    linear(*c)
    for c in ((240, 204, 178), (222, 172, 136), (186, 128, 92), (128, 82, 56), (84, 54, 40))
)
_HAIRS = tuple(
    linear(*c)
    for c in (
        (22, 18, 16),
        (62, 40, 26),
        (122, 76, 38),
        (206, 168, 96),
        (140, 138, 136),
        (150, 58, 24),
    )
)
_UPPERS = ("t-shirt", "shirt", "jacket", "hoodie", "coat", "vest")
_LOWERS = ("trousers", "trousers", "jeans", "shorts", "skirt", "dress", "wide")
_HATS = ("none", "none", "none", "cap", "beanie", "brim")
_BAGS = ("none", "none", "backpack", "backpack", "shoulder", "handbag", "suitcase")
_HAIRSTYLES = ("short", "short", "long", "bun", "bald")
_UPPER_MOTIFS = (
    Motif.PLAIN, Motif.PLAIN, Motif.PLAIN, Motif.BANDS, Motif.CHECKS, Motif.YOKE, Motif.YOKE,
    Motif.HEM,
    Motif.OPEN_FRONT, Motif.OPEN_FRONT, Motif.FRONT_LOGO, Motif.BACK_LOGO, Motif.SASH,
    Motif.PATCHES,
    Motif.PINSTRIPES, Motif.SIDE_SEAM,
)  # fmt: skip
_LOWER_MOTIFS = (
    Motif.PLAIN, Motif.PLAIN, Motif.PLAIN, Motif.PLAIN, Motif.SIDE_SEAM, Motif.SIDE_SEAM, Motif.HEM,
    Motif.PATCHES,
)  # fmt: skip
_BAG_MOTIFS = (Motif.PLAIN, Motif.YOKE, Motif.HEM)
_HEAT_MOTIFS = (
    Motif.PLAIN, Motif.BANDS, Motif.YOKE, Motif.HEM, Motif.SIDE_SEAM, Motif.OPEN_FRONT,
    Motif.HALVES,
)  # fmt: skip


_PLAIN = Pattern()


@dataclass(frozen=True)
class Garment:
    """Cloth with a visible pattern and, apart from it, a pattern of insulation."""

    base: Material
    accent: Material
    pattern: Pattern = _PLAIN
    heat_pattern: Pattern = _PLAIN
    heat_step: float = 0.0
    """Warmth added where `heat_pattern` shows: quilting, a lining, a thin back."""


@dataclass(frozen=True)
class Person:
    """An individual: all that stays the same from one sighting to the next."""

    height_m: float
    girth: float
    """Width of body and limbs against the average, about 0.8..1.35."""
    leg_share: float
    """Height of the hips over body height."""
    shoulders: float
    """Width of the shoulders against that of the average body."""
    skin: Material
    hair: Material
    hairstyle: str
    upper_kind: str
    upper: Garment
    sleeve: Garment
    lower_kind: str
    lower: Garment
    shoes: Material
    hat_kind: str
    hat: Material
    bag_kind: str
    bag: Garment
    side: int
    """Side on which bags hang: 1 or -1."""
    stride: float
    """Largest hip angle in walking, radians."""


def sample_person(rng: np.random.Generator) -> Person:
    """Draw an individual; the same generator state gives the same individual."""
    upper_kind, lower_kind = _pick(rng, _UPPERS), _pick(rng, _LOWERS)
    upper = _garment(rng, _UPPER_MOTIFS, _leak(rng, upper_kind))
    lower = _garment(rng, _LOWER_MOTIFS, float(rng.uniform(0.15, 0.75)))
    if lower_kind == "dress":
        upper_kind, upper = "t-shirt", lower
    two_tone = rng.random() < 0.35 and upper_kind not in ("t-shirt", "vest")
    return Person(
        height_m=float(rng.uniform(1.52, 1.95)),
        girth=float(rng.choice([0.82, 0.95, 1.1, 1.3]) * rng.uniform(0.95, 1.05)),
        leg_share=float(rng.uniform(0.47, 0.54)),
        shoulders=float(rng.uniform(0.88, 1.15)),
        skin=Material(_pick(rng, _SKINS), float(rng.uniform(0.5, 0.62)), 0.92),
        hair=Material(_pick(rng, _HAIRS), float(rng.uniform(0.15, 0.6)), 0.42),
        hairstyle=_pick(rng, _HAIRSTYLES),
        upper_kind=upper_kind,
        upper=upper,
        sleeve=_garment(rng, _LOWER_MOTIFS, _leak(rng, upper_kind)) if two_tone else upper,
        lower_kind=lower_kind,
        lower=lower,
        shoes=_cloth(rng, 0.2),
        hat_kind=_pick(rng, _HATS),
        hat=_cloth(rng, float(rng.uniform(0.05, 0.4))),
        bag_kind=_pick(rng, _BAGS),
        bag=_garment(rng, _BAG_MOTIFS, float(rng.uniform(-0.05, 0.12))),
        side=int(rng.choice([-1, 1])),
        stride=float(rng.uniform(0.32, 0.52)),
    )


def _leak(rng: np.random.Generator, kind: str) -> float:
    """Return how much body heat shows through a garment of this kind."""
    low, high = (0.08, 0.4) if kind in ("jacket", "hoodie", "coat") else (0.3, 0.8)
    return float(rng.uniform(low, high))


def _cloth(rng: np.random.Generator, warmth: float) -> Material:
    """Draw a dyed cloth; its near-infrared reflectance owes nothing to its colour."""
    red, green, blue = CLOTH_COLOURS[int(rng.integers(len(CLOTH_COLOURS)))]
    fade = float(rng.uniform(0.85, 1.1))
    rgb = (min(red * fade, 0.95), min(green * fade, 0.95), min(blue * fade, 0.95))
    return Material(
        rgb, float(rng.choice([0.06, 0.16, 0.32, 0.55, 0.85]) * rng.uniform(0.85, 1.1)), warmth
    )


def _garment(rng: np.random.Generator, motifs: tuple[Motif, ...], warmth: float) -> Garment:
    pattern = Pattern(_pick(rng, motifs), float(rng.uniform(0.14, 0.34)), float(rng.random()))
    heat = Pattern(_pick(rng, _HEAT_MOTIFS), float(rng.uniform(0.2, 0.4)), float(rng.random()))
    step = float(rng.uniform(0.12, 0.35)) * (1 if warmth < 0.45 else -1)
    return Garment(_cloth(rng, warmth), _cloth(rng, warmth), pattern, heat, step)


def _pick(rng: np.random.Generator, options: tuple[_T, ...]) -> _T:
    return options[int(rng.integers(len(options)))]
