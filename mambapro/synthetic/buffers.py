"""Geometry of one view: which part of the subject a pixel shows, where on it, and how it faces.

Subjects are drawn once per view into a `GBuffer`; materials and light come later (`surfaces.py`,
`imaging.py`), so that the three modalities see the same shape through different physics.

Frames of reference. Subject: x to the picture's right at yaw 0, y forward, z up, metres,
origin on the ground. Picture: column, row, and depth towards the viewer, all in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""Float picture; its shape is given where it is used."""
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Point = tuple[float, float, float]

_SUBPIXEL_BITS = 3


def as_plane(values: NDArray[Any]) -> Plane:
    """Return ``values`` as float32, without a copy where they are."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class View:
    """An orthographic camera: good for one subject that is small against its distance."""

    yaw: float
    """Heading in radians: 0 walks towards the camera, pi/2 to the picture's right."""
    elevation: float
    """How far the camera looks down, radians."""
    px_per_m: float
    origin: tuple[float, float]
    """Column and row of the subject's ground point, pixels."""

    def project(self, point: Point) -> Point:
        """Return column, row and depth (towards the viewer) of a subject point, pixels."""
        x, y, z = point
        across = x * math.cos(self.yaw) + y * math.sin(self.yaw)
        near = y * math.cos(self.yaw) - x * math.sin(self.yaw)
        up = z * math.cos(self.elevation) - near * math.sin(self.elevation)
        depth = near * math.cos(self.elevation) + z * math.sin(self.elevation)
        scale = self.px_per_m
        return self.origin[0] + scale * across, self.origin[1] - scale * up, scale * depth

    def turn(self, normal: Point) -> Point:
        """Return a subject direction as (right, up, towards the viewer)."""
        column, row, depth = self.project(normal)
        scale = self.px_per_m
        return (column - self.origin[0]) / scale, (self.origin[1] - row) / scale, depth / scale


@dataclass(frozen=True)
class Tube:
    """A tapered round solid around a segment: a limb, a trunk, a head, a soft bag."""

    part: int
    top: Point
    bottom: Point
    radii: tuple[float, float]
    """Half-widths across at top and bottom, metres."""
    depths: tuple[float, float]
    """Half-depths along the subject's y at top and bottom, metres."""
    cap: float = 1.0
    """Length of the rounded ends in half-widths; 0.05 is nearly flat."""
    bulge: float = 0.0
    """Half-width added half-way, metres: negative makes a waist."""
    square: int = 2
    """Exponent of the outline across: 2 is round, 6 nearly a box."""


@dataclass
class GBuffer:
    """Part index, position on the part and normal of each pixel; `part` 0 is empty.

    Shapes (H, W). On tubes `u` is the sine of the angle around (-1 left rim, 1 right rim) and `v`
    the share of the way from top to bottom; polygons set `part` only.
    """

    height: int
    width: int
    part: Bytes = field(init=False)
    u: Plane = field(init=False)
    v: Plane = field(init=False)
    normal: Plane = field(init=False)
    """(3, H, W): right, up, towards the viewer."""
    depth: Plane = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.height, self.width)
        self.part = np.zeros(shape, np.uint8)
        self.u = np.zeros(shape, np.float32)
        self.v = np.zeros(shape, np.float32)
        self.normal = np.zeros((3, *shape), np.float32)
        self.depth = np.full(shape, -1e9, np.float32)

    def add_tube(self, tube: Tube, view: View) -> None:
        """Draw a tube where it is nearer than what is there."""
        top, bottom = view.project(tube.top), view.project(tube.bottom)
        across, along = _half_widths(tube, view)
        window = self._around(tube, top, bottom, max(across) + abs(tube.bulge) * view.px_per_m + 1)
        if window is None:
            return
        rows, columns = window
        length = math.hypot(bottom[0] - top[0], bottom[1] - top[1]) + 1e-3
        dx, dy = (bottom[0] - top[0]) / length, (bottom[1] - top[1]) / length
        if length < 0.01:
            dx, dy = 0.0, 1.0
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(top[0])
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(top[1])
        t = x * np.float32(dx / length) + y * np.float32(dy / length)
        inner = np.clip(t, 0.0, 1.0)
        radius = _between(across, inner)
        if tube.bulge:
            radius += np.float32(4 * tube.bulge * view.px_per_m) * inner * (1 - inner)
        u = (x * np.float32(dy) - y * np.float32(dx)) / radius
        over = (t - inner) * (np.float32(length / max(tube.cap, 0.05)) / radius)
        inside = _power(u, tube.square) + over * over
        near = np.sqrt(np.maximum(1 - inside, 0))
        depth = _between((top[2], bottom[2]), inner) + _between(along, inner) * near
        shown = (inside < 1) & (depth > self.depth[window])
        flank = u if tube.square == 2 else u * np.abs(u) ** (tube.square - 2)
        right = np.float32(dy) * flank + np.float32(dx) * over
        up = np.float32(dx) * flank - np.float32(dy) * over
        np.copyto(self.part[window], np.uint8(tube.part), where=shown)
        targets = (self.depth, self.u, self.v, *self.normal)
        for target, value in zip(targets, (depth, u, t, right, up, near), strict=True):
            np.copyto(target[window], value, where=shown)

    def _around(
        self, tube: Tube, top: Point, bottom: Point, reach: float
    ) -> tuple[slice, slice] | None:
        """Return the rows and columns that a projected tube can touch, None if there are none."""
        lean = reach * abs(bottom[0] - top[0]) / (math.dist(top[:2], bottom[:2]) + 1e-3)
        end = reach * max(tube.cap, 0.05) + 1 + lean
        columns = _clip_range(
            min(top[0], bottom[0]) - reach, max(top[0], bottom[0]) + reach, self.width
        )
        rows = _clip_range(min(top[1], bottom[1]) - end, max(top[1], bottom[1]) + end, self.height)
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return None
        return rows, columns

    def add_polygon(self, part: int, corners: Sequence[tuple[float, float]]) -> None:
        """Draw a polygon over what is there; corners are columns and rows in pixels."""
        points = np.round(np.asarray(corners) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(self.part, [points], part, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)

    def window(self, box: tuple[int, int, int, int]) -> GBuffer:
        """Return the pixels within x0, y0, x1, y1 (exclusive), sharing memory."""
        x0, y0, x1, y1 = box
        part = GBuffer(0, 0)
        part.height, part.width = y1 - y0, x1 - x0
        part.part, part.u = self.part[y0:y1, x0:x1], self.u[y0:y1, x0:x1]
        part.v, part.depth = self.v[y0:y1, x0:x1], self.depth[y0:y1, x0:x1]
        part.normal = self.normal[:, y0:y1, x0:x1]
        return part

    def box(self) -> tuple[int, int, int, int]:
        """Return x0, y0, x1, y1 (exclusive) of what was drawn; the whole picture if nothing was."""
        x, y, width, height = cv2.boundingRect(self.part)
        if width == 0:
            return 0, 0, self.width, self.height
        return x, y, x + width, y + height


def _half_widths(tube: Tube, view: View) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return half-widths across the picture and along the view, (top, bottom), pixels."""
    cosine, sine = math.cos(view.yaw) ** 2, math.sin(view.yaw) ** 2
    scale = view.px_per_m
    pairs = list(zip(tube.radii, tube.depths, strict=True))
    across = [scale * math.sqrt(r * r * cosine + d * d * sine) for r, d in pairs]
    along = [scale * math.sqrt(r * r * sine + d * d * cosine) for r, d in pairs]
    return (across[0], across[1]), (along[0], along[1])


def _between(ends: tuple[float, float], share: Plane) -> Plane:
    return as_plane(np.float32(ends[0]) + np.float32(ends[1] - ends[0]) * share)


def _power(values: Plane, exponent: int) -> Plane:
    squared = values * values
    if exponent == 2:
        return squared
    return squared * squared if exponent == 4 else squared * squared * squared


def _clip_range(low: float, high: float, limit: int) -> slice:
    return slice(max(0, math.floor(low)), min(limit, math.ceil(high) + 1))
