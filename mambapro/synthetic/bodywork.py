"""Draw a vehicle: its walls from far to near, and the roundness of its sides."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from mambapro.synthetic.buffers import GBuffer, Mask, Plane, View
from mambapro.synthetic.carbody import Car
from mambapro.synthetic.faces import BLACK, SHADE, Face, State
from mambapro.synthetic.surfaces import GLOSS, Surface, material_table
from mambapro.synthetic.vehicles import SHAPES, Vehicle


class Bodywork:
    """The faces of one vehicle that one view shows."""

    def __init__(self, vehicle: Vehicle, state: State, view: View) -> None:
        self.view = view
        self.height_px = SHAPES[vehicle.kind].height_m * vehicle.scale[1] * view.px_per_m
        self.faces = list(_sorted_faces(vehicle, state, view))

    def draw(self, buffer: GBuffer) -> None:
        """Draw the faces into ``buffer``, whose `part` becomes a running face number."""
        for number, face in enumerate(self.faces, start=1):
            corners = [self.view.project(corner) for corner in face.corners]
            buffer.add_polygon(number, [(column, row) for column, row, _ in corners])

    def cover(self, buffer: GBuffer, first_row: int) -> Surface:
        """Return the surface of a window of a drawn buffer that begins at ``first_row``."""
        table = material_table([BLACK, *(face.material for face in self.faces)])
        normals = np.array(
            [(0, 0, 1), *(self.view.turn(face.normal) for face in self.faces)], np.float32
        )
        normal = np.take(normals.T.copy(), buffer.part, axis=1)
        planes = np.take(table, buffer.part, axis=1)
        curved = np.array([False, *(face.curved for face in self.faces)])[buffer.part]
        rows = np.arange(first_row, first_row + buffer.height, dtype=np.float32)
        level = (np.float32(self.view.origin[1]) - rows)[:, None] / np.float32(self.height_px)
        self._round_walls(curved, level, planes, normal)
        return Surface(planes, normal)

    def _round_walls(self, curved: Mask, level: Plane, planes: Plane, normal: Plane) -> None:
        """Shade side walls by height over the ground, so that they do not look like boards."""
        tilt = np.float32(0.55) * np.clip((level - 0.36) * 3.2, -1, 1)
        normal[1] += np.where(curved, tilt, np.float32(0))
        planes[:4] *= np.where(curved, 0.62 + 0.38 * np.clip(level * 2.4, 0, 1), np.float32(1))
        band = np.exp(-(((level - 0.5) / 0.035) ** 2))
        planes[GLOSS] += np.where(curved, 0.5 * band * planes[GLOSS], np.float32(0))


def _sorted_faces(vehicle: Vehicle, state: State, view: View) -> Iterable[Face]:
    """Yield visible faces from far to near."""
    car = Car(vehicle, state)
    yield from _underbody(car)
    groups = car.body()
    if car.shape.cargo is not None:
        groups += car.cargo()
    yield from _visible(groups, view)
    yield from _visible(car.roof_load(), view)


def _visible(groups: list[list[Face]], view: View) -> Iterable[Face]:
    def depth(group: list[Face]) -> float:
        corners = group[0].corners
        return sum(view.project(corner)[2] for corner in corners) / len(corners)

    for group in sorted(groups, key=depth):
        if view.turn(group[0].normal)[2] > 0.01:
            yield from group


def _underbody(car: Car) -> Iterable[Face]:
    """Yield the dark underside and the far wheels, which anything else may cover."""
    half, low = car.half * 0.86, 0.2 * car.height
    for y in (0.45, -0.45):
        end = tuple(
            (x, y * car.length, z)
            for x, z in ((-half, low), (half, low), (half, 0.1), (-half, 0.1))
        )
        yield Face(end, SHADE, (0, math.copysign(1, y), 0))
    rows = ((0.45, low), (-0.45, low), (-0.45, 0.12), (0.45, 0.12))
    for x in (-half, half):
        yield Face(tuple((x, y * car.length, z) for y, z in rows), SHADE, (1, 0, 0))
    for axle, warmth in zip(car.shape.axles, car.wheel_c, strict=True):
        for side in (-1, 1):
            yield from car.tread(axle, side, warmth)
