"""The walls of a vehicle: a profile extruded across its width, decals, wheels and roof load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mambapro.synthetic.buffers import Point
from mambapro.synthetic.faces import (
    BLACK,
    CHROME,
    PLASTIC,
    PLATE,
    SHADE,
    Face,
    State,
    disc,
    rectangle,
)
from mambapro.synthetic.surfaces import Material
from mambapro.synthetic.vehicles import SHAPES, Shape, Spot, Vehicle


class Car:
    """One vehicle in one state, in metres."""

    def __init__(self, vehicle: Vehicle, state: State) -> None:
        self.vehicle, self.state = vehicle, state
        self.shape: Shape = SHAPES[vehicle.kind]
        self.length = self.shape.length_m * vehicle.scale[0]
        self.height = self.shape.height_m * vehicle.scale[1]
        self.half = self.shape.width_m / 2
        self.wheel_c = tuple(1.0 + warmth * state.warm for warmth in vehicle.wheel_c)

    def body(self) -> list[list[Face]]:
        """Return groups of a wall and its decals, in no order."""
        groups = [self._strip(i) for i in range(len(self.shape.panels))]
        return [*groups, self._side(-1), self._side(1)]

    def heated(self, material: Material, excess: float) -> Material:
        """Return a panel that is ``excess`` °C above the air when the vehicle is warm."""
        return replace(material, excess=excess * self.state.warm)

    def painted(self, paint: Material, excess: float) -> Material:
        """Return a painted wall with its own warmth, and ``excess`` °C more when warmed up."""
        return replace(paint, excess=self.vehicle.body_c + excess * self.state.warm)

    def at(self, x: float, spot: Spot) -> Point:
        """Return the point at share ``x`` of the half-width and a place of the profile."""
        lean = max(0.0, (spot[1] - self.shape.belt) / (1.001 - self.shape.belt))
        narrow = 1 - (0.2 if self.shape.belt < 0.8 else 0.04) * lean
        return x * self.half * narrow, spot[0] * self.length, spot[1] * self.height

    def _strip(self, i: int) -> list[Face]:
        """Return the wall between two neighbours of the profile, across the whole width."""
        front, back = self.shape.profile[i], self.shape.profile[i + 1]
        dy, dz = (back[0] - front[0]) * self.length, (back[1] - front[1]) * self.height
        size = math.hypot(dy, dz)
        normal: Point = (0.0, dz / size, -dy / size)
        panel = self.shape.panels[i]
        wall = _Strip(self, front, back, normal)
        faces = [wall.quad(-1, 1, 0, 1, self._panel(panel, front[0] > 0))]
        if panel == "glass":
            faces.append(wall.quad(-0.88, 0.88, 0.08, 0.92, self.vehicle.glass))
        if panel in ("hood", "roof", "trunk") and self.vehicle.scheme == "racing":
            faces += [wall.quad(x, x + 0.2, 0, 1, self._same_heat(faces[0])) for x in (-0.3, 0.1)]
        if panel == "bed":
            faces.append(wall.quad(-0.86, 0.86, 0.08, 0.95, PLASTIC))
        if panel == "front" or (panel == "bumper" and front[0] > 0):
            faces += self._face_decals(wall, panel, i)
        if panel == "rear" or (panel == "bumper" and front[0] < 0):
            faces += self._tail_decals(wall, panel)
        return faces

    def _same_heat(self, face: Face) -> Material:
        return replace(self.vehicle.second, excess=face.material.excess)

    def _panel(self, panel: str, at_front: bool) -> Material:
        v = self.vehicle
        second = v.scheme == panel or (v.scheme == "roof" and panel == "cabback")
        second |= v.scheme == "band" and panel in ("front", "rear")
        paint = v.second if second else v.paint
        heat = {"hood": v.engine_c, "front": v.engine_c * 0.6, "trunk": v.tail_c, "rear": v.tail_c}
        warmth = heat.get(panel, 0.0)
        if panel == "roof":
            return replace(paint, excess=v.body_c + v.roof_c)
        if panel == "bumper":
            paint = v.second if v.scheme == "lower" else (PLASTIC if v.dark_trim else v.paint)
            warmth = v.grille_c * 0.3 if at_front else v.tail_c * 0.5
        return self.painted(paint, warmth)

    def _face_decals(self, wall: _Strip, panel: str, index: int) -> list[Face]:
        """Return grille, lamps and plate of the front."""
        v, on = self.vehicle, self.state.lights
        if index == 0:
            grille = self.heated(BLACK, v.grille_c)
            low = [
                wall.quad(-0.62, 0.62, 0.15, 0.6, grille),
                wall.quad(-0.24, 0.24, 0.38, 0.62, PLATE),
            ]
            return low if panel == "bumper" else [*low, *self._lamps(wall, on, 0.7, 0.92)]
        if index == 1:
            bar = CHROME if v.spokes % 2 else self.heated(BLACK, v.grille_c)
            return [wall.quad(-0.5, 0.5, 0.15, 0.75, bar), *self._lamps(wall, on, 0.05, 0.85)]
        return []

    def _lamps(self, wall: _Strip, on: float, low: float, high: float) -> list[Face]:
        lamp = Material((0.85, 0.85, 0.8), 0.7, excess=1 + 6 * on, gloss=0.3, glow=2.2 * on)
        inner = 0.62 if self.vehicle.lamp_round else 0.52
        return [wall.quad(-0.96, -inner, low, high, lamp), wall.quad(inner, 0.96, low, high, lamp)]

    def _tail_decals(self, wall: _Strip, panel: str) -> list[Face]:
        """Return lights, plate and exhaust of the rear."""
        v, on = self.vehicle, self.state.lights
        red = Material((0.5, 0.015, 0.015), 0.45, excess=0.5 + 2 * on, glow=0.35 * on)
        pipe = self.heated(Material((0.25, 0.24, 0.22), 0.3), 32.0)
        x = 0.55 * v.exhaust_side
        faces = [wall.quad(x - 0.14, x + 0.14, 0.82, 1.0, pipe)]
        if panel == "bumper":
            return faces
        wide = 0.3 if v.lamp_round else 0.18
        faces += [
            wall.quad(-0.97, -0.97 + wide, 0.1, 0.6, red),
            wall.quad(0.97 - wide, 0.97, 0.1, 0.6, red),
        ]
        return [*faces, wall.quad(-0.25, 0.25, 0.3, 0.55, PLATE)]

    def _side(self, side: int) -> list[Face]:
        """Return one side: lower body, greenhouse, windows, doors, wheels."""
        normal: Point = (float(side), 0.0, 0.0)
        leaning: Point = (0.93 * side, 0.0, 0.36)
        v, belt = self.vehicle, self.shape.belt
        lower = self.painted(v.paint, 0.0)
        faces = [self._wall(side, self.shape.profile, lower, normal)]
        top = [spot for spot in self.shape.profile if spot[1] >= belt - 0.03]
        upper = v.second if v.scheme == "roof" else v.paint
        if self.shape.belt < 0.8:
            faces.append(self._wall(side, top, self.painted(upper, 0.0), leaning, curved=False))
        faces += self._side_panels(side, normal)
        faces += [
            self._wall(side, window, v.glass, leaning, curved=False)
            for window in self.shape.windows
        ]
        if v.sticker is not None:
            faces.append(self._wall(side, rectangle(*v.sticker_at, 0.11, 0.12), v.sticker, normal))
        for axle, warmth in zip(self.shape.axles, self.wheel_c, strict=True):
            faces += self._wheel(axle, side, warmth)
        return faces

    def _side_panels(self, side: int, normal: Point) -> list[Face]:
        """Return doors with their own warmth, second paint and seams."""
        v, belt = self.vehicle, min(self.shape.belt, 0.62)
        rear_end = max(-0.47, self.shape.profile[-1][0] + 0.02)
        middle = max(rear_end + 0.03, -0.02)
        paint = v.second if v.scheme == "band" else v.paint
        low, high = (0.2, belt - 0.03) if v.scheme != "band" else (0.3, belt - 0.06)
        faces = []
        for (x0, x1), warmth in zip(((middle, 0.2), (rear_end, middle)), v.door_c, strict=True):
            x0, x1 = max(x0, rear_end), max(x1, rear_end + 0.02)
            corners = ((x0, low), (x1, low), (x1, high), (x0, high))
            faces.append(self._wall(side, corners, self.painted(paint, warmth), normal))
        if v.scheme == "lower" or v.dark_trim:
            trim = v.second if v.scheme == "lower" else PLASTIC
            high = 0.42 if v.scheme == "lower" else 0.24
            front = self.shape.profile[0][0] - 0.005
            corners = ((rear_end, 0.15), (front, 0.15), (front, high), (rear_end, high))
            faces.append(self._wall(side, corners, trim, normal))
        for x in (middle, 0.2):
            corners = ((x, low), (x + 0.004, low), (x + 0.004, belt), (x, belt))
            faces.append(self._wall(side, corners, BLACK, normal))
        return faces

    def _wall(
        self,
        side: int,
        spots: Sequence[Spot],
        material: Material,
        normal: Point,
        curved: bool = True,
    ) -> Face:
        return Face(tuple(self.at(side, spot) for spot in spots), material, normal, curved)

    def _wheel(self, axle: float, side: int, warmth: float) -> list[Face]:
        """Return arch, tyre, rim and spokes of one wheel."""
        v, r = self.vehicle, self.shape.wheel_m
        normal: Point = (float(side), 0.0, 0.0)
        centre = (side * self.half * 1.005, axle * self.length)
        tyre = replace(v.tyre, excess=0.35 * warmth)
        rim = replace(v.rim, excess=warmth)
        faces = [
            Face(disc(centre, r, r * 1.14), SHADE, normal),
            Face(disc(centre, r, r), tyre, normal),
            Face(disc(centre, r, r * 0.66), rim, normal),
        ]
        for k in range(v.spokes):
            a = 2 * math.pi * k / v.spokes
            tips = [
                (r * 0.14, a + 0.9),
                (r * 0.6, a + 0.28),
                (r * 0.6, a - 0.28),
                (r * 0.14, a - 0.9),
            ]
            corners = tuple(
                (centre[0], centre[1] + d * math.sin(b), r + d * math.cos(b)) for d, b in tips
            )
            faces.append(Face(corners, replace(BLACK, excess=warmth * 0.7), normal))
        return faces

    def tread(self, axle: float, side: int, warmth: float) -> list[Face]:
        """Return the tyre's running face as seen from front or rear."""
        r, outer = self.shape.wheel_m, side * self.half * 0.97
        inner = side * (self.half - 0.22)
        tyre = replace(self.vehicle.tyre, excess=0.5 * warmth)
        outline = ((inner, 0.0), (outer, 0.0), (outer, 1.7 * r), (inner, 1.7 * r))
        ends = (axle * self.length - r * 0.8, axle * self.length + r * 0.8)
        return [Face(tuple((x, y, z) for x, z in outline), tyre, (0.0, 1.0, 0.0)) for y in ends]

    def cargo(self) -> list[list[Face]]:
        """Return the box behind a cab."""
        assert self.shape.cargo is not None
        front, rear, low, high = self.shape.cargo
        v = self.vehicle
        groups = self.box(
            (-1.0, 1.0), (rear, front), (low, high), self.painted(v.cargo, v.door_c[1])
        )
        for group in groups:
            if abs(group[0].normal[0]) > 0.5:
                x = group[0].normal[0]
                spots = rectangle((front + rear) / 2 + 0.05, (low + high) / 2, 0.16, 0.12)
                badge = v.second if v.sticker is None else v.sticker
                points = tuple((x * self.half, y * self.length, z * self.height) for y, z in spots)
                group.append(Face(points, badge, group[0].normal))
                group += self._wheel(self.shape.axles[1], int(x), self.wheel_c[1])
        return groups

    def roof_load(self) -> list[list[Face]]:
        """Return rack and roof box."""
        tops = [
            spot
            for spot, panel in zip(self.shape.profile, self.shape.panels, strict=False)
            if panel == "roof"
        ]
        if not tops or self.shape.cargo is not None:
            return []
        front = tops[0][0] - 0.03
        rear = self.shape.profile[self.shape.panels.index("roof") + 1][0] + 0.03
        groups: list[list[Face]] = []
        if self.vehicle.rack:
            for y in (front - 0.04, (front + rear) / 2, rear + 0.04):
                groups += self.box((-0.8, 0.8), (y - 0.012, y + 0.012), (1.0, 1.045), CHROME)
        if self.vehicle.roof_box is not None:
            span = (max(rear, front - 0.36), front)
            groups += self.box(
                (-0.55, 0.2), span, (1.02, 1.02 + 0.34 / self.height), self.vehicle.roof_box
            )
        return groups

    def box(self, xs: Spot, ys: Spot, zs: Spot, material: Material) -> list[list[Face]]:
        """Return a box in shares of half-width, length and height: one group a wall."""
        x0, x1 = (x * self.half for x in xs)
        y0, y1 = (y * self.length for y in ys)
        z0, z1 = (z * self.height for z in zs)
        walls: list[tuple[tuple[Point, ...], Point]] = [
            (((x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1)), (-1.0, 0.0, 0.0)),
            (((x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)), (1.0, 0.0, 0.0)),
            (((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)), (0.0, -1.0, 0.0)),
            (((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)), (0.0, 1.0, 0.0)),
            (((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)), (0.0, 0.0, 1.0)),
        ]
        return [
            [Face(corners, material, normal, abs(normal[2]) < 0.5)] for corners, normal in walls
        ]


@dataclass(frozen=True)
class _Strip:
    """A wall across the width; places on it are shares: across -1..1, along 0 (front) .. 1."""

    car: Car
    front: Spot
    back: Spot
    normal: Point

    def quad(self, x0: float, x1: float, t0: float, t1: float, material: Material) -> Face:
        """Return a rectangle; t runs from the top of a front or rear wall, else from the front."""
        descending = self.back[1] < self.front[1] or self.normal[2] > 0.6
        low, high = (t0, t1) if descending else (1 - t1, 1 - t0)
        corners = ((x0, low), (x1, low), (x1, high), (x0, high))
        return Face(tuple(self._at(x, t) for x, t in corners), material, self.normal)

    def _at(self, x: float, t: float) -> Point:
        y = self.front[0] + (self.back[0] - self.front[0]) * t
        z = self.front[1] + (self.back[1] - self.front[1]) * t
        return self.car.at(x, (y, z))
