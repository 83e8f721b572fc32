"""Cloth and paint patterns: which of two materials shows at a place on a part."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from mambapro.synthetic.buffers import Mask, Plane


class Motif(Enum):
    """What a pattern looks like; angles run around the body from the front (0) over its right."""

    PLAIN = "plain"
    BANDS = "bands"
    PINSTRIPES = "pinstripes"
    CHECKS = "checks"
    YOKE = "yoke"
    HEM = "hem"
    OPEN_FRONT = "open front"
    FRONT_LOGO = "front logo"
    BACK_LOGO = "back logo"
    SASH = "sash"
    HALVES = "halves"
    PATCHES = "patches"
    SIDE_SEAM = "side seam"


@dataclass(frozen=True)
class Pattern:
    """A motif with its size and place, part of an identity."""

    motif: Motif = Motif.PLAIN
    size: float = 0.2
    """Period or width as a share of the part's length."""
    phase: float = 0.0

    def accent(self, angle: Plane, v: Plane) -> Mask:
        """Return where the second material shows; ``angle`` in radians, ``v`` 0 top .. 1 bottom."""
        angle = (angle + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi)
        return _RULES[self.motif](angle, v, np.float32(self.size), np.float32(self.phase))


def _plain(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.zeros(v.shape, np.bool_)


def _bands(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(((v + phase) / size) % 1.0 < 0.45)


def _pinstripes(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray((angle / (size * np.float32(3.0)) + phase) % 1.0 < 0.42)


def _checks(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(_bands(angle, v, size, phase) ^ _pinstripes(angle, v, size, phase))


def _yoke(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(v < 0.22 + size * 0.9)


def _hem(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(v > 0.86 - size * 0.9)


def _open_front(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(np.abs(angle) < 0.22 + size * (0.6 + 0.5 * v))


def _front_logo(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray((angle / 0.75) ** 2 + ((v - 0.33) / (0.1 + 0.5 * size)) ** 2 < 1)


def _back_logo(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(
        ((np.abs(angle) - np.pi) / 0.85) ** 2 + ((v - 0.36) / (0.1 + 0.6 * size)) ** 2 < 1
    )


def _sash(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(np.abs(v - 0.45 - 0.36 * np.sin(angle)) < 0.05 + size * 0.3)


def _halves(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(angle > 0)


def _patches(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    one = np.sin(angle * 3.1 + phase * 9 + 2.3 * np.sin(v * 11 + phase * 5))
    other = np.sin(v / size * 3.3 + phase * 7 + 1.7 * np.sin(angle * 2.3))
    return np.asarray(one + other > 0.35)


def _side_seam(angle: Plane, v: Plane, size: np.float32, phase: np.float32) -> Mask:
    return np.asarray(np.abs(np.abs(angle) - np.pi / 2) < 0.25 + size)


_RULES = {
    Motif.PLAIN: _plain,
    Motif.BANDS: _bands,
    Motif.PINSTRIPES: _pinstripes,
    Motif.CHECKS: _checks,
    Motif.YOKE: _yoke,
    Motif.HEM: _hem,
    Motif.OPEN_FRONT: _open_front,
    Motif.FRONT_LOGO: _front_logo,
    Motif.BACK_LOGO: _back_logo,
    Motif.SASH: _sash,
    Motif.HALVES: _halves,
    Motif.PATCHES: _patches,
    Motif.SIDE_SEAM: _side_seam,
}
