"""How a homography's error grows with the distance from the plane it was made on.

Two cameras a baseline b apart see a thing at distance Z displaced by f b / Z pixels against one at
infinity. A homography takes that out for one distance Z0; at Z there remain f b |1/Z - 1/Z0|
(Hartley and Zisserman, Multiple View Geometry, chapter 13, plane and parallax).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STEPS_M: Final = (-5.0, -2.0, -1.0, 1.0, 2.0, 5.0, 10.0)
"""Distances beyond the plane that are told, m."""
NEAREST_M: Final = 0.5


@dataclass(frozen=True)
class Mounting:
    """What must be measured on the rig to know its parallax."""

    baseline_m: float
    """Between the lenses of the reference and the other camera."""
    distance_m: float
    """From the rig to the plane that was registered."""
    focal_px: float
    """Focal length of the other camera in its pixels."""

    def error_px(self, distance_m: float) -> float:
        """Return the displacement of a subject at ``distance_m`` in the other camera's pixels."""
        return self.focal_px * self.baseline_m * abs(1 / distance_m - 1 / self.distance_m)

    def table(self, steps_m: Sequence[float] = STEPS_M) -> list[tuple[float, float]]:
        """Return (distance m, error px) around the plane, from near to far."""
        distances = [self.distance_m + step for step in steps_m]
        return [(d, self.error_px(d)) for d in distances if d >= NEAREST_M]

    def reach_m(self, allowed_px: float) -> tuple[float, float]:
        """Return between which distances the error stays within ``allowed_px``; far may be inf."""
        per_m = self.focal_px * self.baseline_m
        if per_m == 0:
            return 0.0, math.inf
        near = 1 / (1 / self.distance_m + allowed_px / per_m)
        inverse = 1 / self.distance_m - allowed_px / per_m
        return near, 1 / inverse if inverse > 0 else math.inf


def focal_px(width_px: float, field_of_view_deg: float) -> float:
    """Return the focal length in px of a picture ``width_px`` wide from its horizontal field."""
    return width_px / 2 / math.tan(math.radians(field_of_view_deg) / 2)
