"""What stands behind the subjects of one rig: ground, wall, plants, sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mambapro.synthetic.buffers import Mask, Plane
from mambapro.synthetic.surfaces import (
    EMISSIVITY,
    EXCESS,
    GLOSS,
    NIR,
    PLANES,
    Colour,
    Surface,
    linear,
)


@dataclass(frozen=True)
class Backdrop:
    """A wide view without subjects."""

    surface: Surface
    ground_row: int
    """Row where wall meets ground."""
    sway: Plane
    """(H, W) how much wind moves a place, 0..1."""


_WALLS = tuple(
    linear(*c)
    for c in (
        (150, 84, 62),
        (176, 170, 160),
        (206, 190, 156),
        (120, 124, 130),
        (196, 204, 208),
        (128, 108, 88),
    )
)
_GROUNDS = tuple(
    linear(*c) for c in ((84, 84, 88), (138, 134, 128), (160, 150, 134), (112, 110, 108))
)
_EMISSIVITY = np.float32(0.95)
_FRAME = (0.55, 0.55, 0.52, 0.5)
_PANE = (0.05, 0.06, 0.075, 0.06)
"""Red, green, blue and near-infrared reflectance of window frames and panes."""
_LEAVES = linear(58, 88, 38)
_GRASS = linear(82, 108, 52)


def build_backdrop(rng: np.random.Generator, height: int, width: int, horizon: float) -> Backdrop:
    """Draw a rig's backdrop; ``horizon`` is the share of the height above the ground."""
    planes = np.zeros((PLANES, height, width), np.float32)
    normal = np.zeros((3, height, width), np.float32)
    planes[EMISSIVITY] = _EMISSIVITY
    surface = Surface(planes, normal)
    row = round(height * horizon)
    _add_wall(rng, surface, row)
    _add_ground(rng, surface, row)
    sway = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(2, 5)) * width // 640 + 1):
        _add_plant(rng, surface, row, sway)
    _add_poles(rng, surface, row)
    return Backdrop(surface, row, sway)


def fractal(rng: np.random.Generator, height: int, width: int, grain: int) -> Plane:
    """Return (H, W) cloudy noise of about unit deviation, no finer than ``grain`` pixels."""
    total = np.zeros((height, width), np.float32)
    size, weight = grain, 0.5
    while size < max(height, width):
        small = rng.standard_normal((height // size + 2, width // size + 2)).astype(np.float32)
        total += weight * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        size, weight = size * 3, weight * 1.15
    return total


def _paint(
    surface: Surface,
    where: Mask,
    rgb: Colour,
    nir: float,
    excess: float,
    grain: Plane,
    depth: float,
) -> None:
    """Cover ``where`` with a material whose brightness follows ``grain``."""
    vary = np.clip(1 + depth * grain, 0.3, 1.8)
    for plane, value in ((0, rgb[0]), (1, rgb[1]), (2, rgb[2]), (NIR, nir)):
        np.copyto(surface.planes[plane], value * vary, where=where)
    np.copyto(surface.planes[EXCESS], excess + 0.5 * grain, where=where)
    np.copyto(surface.planes[EMISSIVITY], _EMISSIVITY, where=where)
    np.copyto(surface.planes[GLOSS], np.float32(0), where=where)


def _face(surface: Surface, where: Mask, right: float, up: float, near: float) -> None:
    for axis, value in enumerate((right, up, near)):
        np.copyto(surface.normal[axis], np.float32(value), where=where)


def _add_wall(rng: np.random.Generator, surface: Surface, row: int) -> None:
    _, height, width = surface.planes.shape
    grain = fractal(rng, height, width, 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    where: Mask = y < row
    rgb = _WALLS[int(rng.integers(len(_WALLS)))]
    nir = float(rng.uniform(0.25, 0.6))
    _paint(surface, where, rgb, nir, 1.5, grain, 0.09)
    _face(surface, where, 0.0, 0.05, 0.8)
    _add_joints(rng, surface, where, x, y)
    _add_windows(rng, surface, row)
    plinth: Mask = where & (y > row - height * 0.05)
    _paint(surface, plinth, (0.16, 0.155, 0.15), 0.2, 2.0, grain, 0.12)
    surface.planes[:4] *= np.where(
        where, 0.75 + 0.25 * np.clip((row - y) / (0.4 * height), 0, 1), 1
    )


def _add_joints(
    rng: np.random.Generator, surface: Surface, where: Mask, x: Plane, y: Plane
) -> None:
    """Draw brick or panel joints."""
    if rng.random() < 0.5:
        course = np.floor(y / 5)
        joint = (y % 5 < 1) | ((x + 6 * (course % 2)) % 12 < 1)
        tint = (np.sin(course * 12.9 + np.floor((x + 6 * (course % 2)) / 12) * 78.2) * 43758.5) % 1
        surface.planes[:4] *= np.where(where, 0.8 + 0.35 * tint, 1)
    else:
        wide, high = float(rng.uniform(60, 110)), float(rng.uniform(40, 80))
        joint = (x % wide < 2) | (y % high < 2)
    surface.planes[:4] *= np.where(where & joint, 0.65, 1)


def _add_windows(rng: np.random.Generator, surface: Surface, row: int) -> None:
    _, _, width = surface.planes.shape
    step = int(rng.integers(90, 170))
    for x in range(int(rng.integers(0, step)), width, step):
        if rng.random() < 0.3:
            continue
        wide, top = int(rng.integers(30, 60)), max(0, row - int(rng.integers(110, 150)))
        bottom = row if rng.random() < 0.3 else row - int(rng.integers(35, 60))
        frame = (slice(top, bottom), slice(x, x + wide))
        inner = (slice(top + 3, bottom - 3), slice(x + 3, x + wide - 3))
        for plane, light, dark in zip(range(4), _FRAME, _PANE, strict=True):
            surface.planes[plane][frame] = light
            surface.planes[plane][inner] = dark
        surface.planes[EXCESS][inner] = float(rng.uniform(-3, 4))
        surface.planes[EMISSIVITY][inner] = 0.85
        surface.planes[GLOSS][inner] = 0.3


def _add_ground(rng: np.random.Generator, surface: Surface, row: int) -> None:
    _, height, width = surface.planes.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    where: Mask = y >= row
    near = np.clip((y - row) / (height - row), 0.0, 1.0)
    grain = fractal(rng, height, width, 1) * 0.8
    rgb = _GROUNDS[int(rng.integers(len(_GROUNDS)))]
    _paint(surface, where, rgb, float(rng.uniform(0.15, 0.4)), 3.0, grain, 0.11)
    _face(surface, where, 0.0, 0.85, 0.3)
    depth = 1 / (0.25 + near)
    slabs = rng.random() < 0.6
    if slabs:
        rows_of = (depth * float(rng.uniform(5, 8))) % 1 < 0.06
        columns_of = (((x - width / 2) * (depth / 4 + 0.25)) % float(rng.uniform(36, 60))) < 1.2
        surface.planes[:4] *= np.where(where & (rows_of | columns_of), 0.72, 1)
    kerb = float(rng.uniform(0.2, 0.4))
    road: Mask = where & (near > kerb)
    _paint(
        surface, road, (0.085, 0.085, 0.09) if slabs else (0.3, 0.29, 0.27), 0.14, 4.0, grain, 0.14
    )
    edge: Mask = where & (np.abs(near - kerb) < 0.016)
    _paint(surface, edge, (0.42, 0.41, 0.39), 0.45, 2.0, grain, 0.1)
    if rng.random() < 0.5:
        verge: Mask = where & (near < 0.1)
        _paint(surface, verge, _GRASS, 0.62, -1.0, grain, 0.3)


def _add_plant(rng: np.random.Generator, surface: Surface, row: int, sway: Plane) -> None:
    """Grow a bush or tree crown: green and cool, and bright in near infrared as all leaves are."""
    _, height, width = surface.planes.shape
    tree = rng.random() < 0.5
    rx, ry = float(rng.uniform(25, 75)), float(rng.uniform(22, 50))
    cx = float(rng.uniform(0, width))
    cy = row - float(rng.uniform(75, 150)) if tree else row - ry * 0.55
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ragged = fractal(rng, height, width, 3)
    reach = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
    if tree:
        trunk: Mask = (np.abs(x - cx) < 5) & (y > cy) & (y < row + 4)
        _paint(surface, trunk, (0.12, 0.09, 0.065), 0.3, -0.5, ragged, 0.25)
    leaves: Mask = (reach + 0.16 * ragged < 1) & (y < row + 8)
    tint = float(rng.uniform(0.7, 1.3))
    _paint(
        surface,
        leaves,
        (_LEAVES[0] * tint, _LEAVES[1] * tint, _LEAVES[2] * tint),
        0.58,
        -2.0,
        ragged,
        0.42,
    )
    _face(surface, leaves, 0.0, 0.45, 0.55)
    np.copyto(sway, np.float32(1.0), where=leaves)


def _add_poles(rng: np.random.Generator, surface: Surface, row: int) -> None:
    _, height, width = surface.planes.shape
    x = np.arange(width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(0, 3))):
        at, half = float(rng.uniform(0, width)), float(rng.uniform(2, 4))
        pole: Mask = (np.abs(x - at) < half) & (y < row + 10)
        flat = np.zeros((height, width), np.float32)
        _paint(surface, pole, (0.2, 0.22, 0.22), 0.3, 0.5, flat, 0.0)
        np.copyto(surface.normal[0], np.broadcast_to((x - at) / half * 0.8, pole.shape), where=pole)


def occlude(surface: Surface, rng: np.random.Generator) -> None:
    """Put a post, a hedge or a board before the subject, in place."""
    _, height, width = surface.planes.shape
    x = np.arange(width, dtype=np.float32)[None] / width
    y = np.arange(height, dtype=np.float32)[:, None] / height
    kind = int(rng.integers(3))
    if kind == 0:
        at, half = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.04, 0.08))
        where: Mask = np.broadcast_to(np.abs(x - at) < half, (height, width))
        grey = float(rng.uniform(0.1, 0.4))
        _paint(
            surface,
            where,
            (grey, grey, grey),
            float(rng.uniform(0.2, 0.5)),
            0.5,
            np.zeros_like(x * y),
            0.0,
        )
        _face(surface, where, 0.0, 0.1, 0.9)
        return
    ragged = fractal(rng, height, width, 3)
    if kind == 1:
        leaves: Mask = y + 0.025 * ragged > float(rng.uniform(0.72, 0.88))
        _paint(surface, leaves, _LEAVES, 0.58, -2.0, ragged, 0.42)
        _face(surface, leaves, 0.0, 0.45, 0.55)
        return
    side = x if rng.random() < 0.5 else 1 - x
    board: Mask = np.broadcast_to(side < float(rng.uniform(0.1, 0.28)), (height, width))
    rgb = _WALLS[int(rng.integers(len(_WALLS)))]
    _paint(surface, board, rgb, float(rng.uniform(0.2, 0.6)), 1.0, ragged, 0.08)
    _face(surface, board, 0.0, 0.1, 0.9)
