"""The line under a camera's delays: its clock's offset and drift.

After Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay
measurements", 1999; over a window that moves on, with one point a second.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

WINDOW_S: Final = 30.0
BUCKET_S: Final = 1.0
"""Of each stretch of this length only the fastest frame counts, s."""
LEARN_S: Final = 10.0
"""Drift is read from points that span at least this long, s."""
MAX_DRIFT: Final = 500e-6
"""Largest drift believed; quartz is good to 100 ppm."""

Point = tuple[float, float]


class DelayEnvelope:
    """The highest line below all (time stamp, delay) points of the last WINDOW_S."""

    def __init__(self, slope: float | None = None) -> None:
        """Start empty; ``slope`` is taken until the points tell their own."""
        self.slope = slope
        """Change of delay per second of time stamps; None while it is unknown."""
        self._points: deque[Point] = deque()
        self._bucket = 0
        self._base: Point = (0.0, 0.0)

    def at(self, time_s: float) -> float:
        """Return the line's height: the least delay of a frame stamped ``time_s``, s."""
        return self._base[1] + (self.slope or 0.0) * (time_s - self._base[0])

    def excess(self, time_s: float, delay_s: float) -> float:
        """Return how far a point is above the line, s; 0 while there is none."""
        return delay_s - self.at(time_s) if self._points else 0.0

    def add(self, time_s: float, delay_s: float) -> None:
        """Take a point."""
        bucket = int(time_s // BUCKET_S)
        if not self._points or bucket > self._bucket:
            self._bucket = bucket
            self._points.append((time_s, delay_s))
        elif delay_s < self._points[-1][1]:
            self._points[-1] = (time_s, delay_s)
        else:
            return
        while time_s - self._points[0][0] > WINDOW_S:
            self._points.popleft()
        self._fit()

    def _fit(self) -> None:
        first_s, last_s = self._points[0][0], self._points[-1][0]
        if last_s - first_s >= LEARN_S:
            slope = _slope_at(_lower_hull(self._points), (first_s + last_s) / 2)
            self.slope = min(MAX_DRIFT, max(-MAX_DRIFT, slope))
        slope = self.slope or 0.0
        self._base = min(self._points, key=lambda point: point[1] - slope * (point[0] - first_s))


def _lower_hull(points: deque[Point]) -> list[Point]:
    """Return the corners of the convex hull seen from below; ``points`` are in order of time."""
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope_at(hull: list[Point], time_s: float) -> float:
    """Return the slope of the side that spans ``time_s``.

    In the middle of the points it is the line below all of them that is nearest on average.
    """
    for left, right in pairwise(hull):
        if right[0] >= time_s:
            return _slope(left, right)
    return 0.0


def _slope(left: Point, right: Point) -> float:
    return (right[1] - left[1]) / max(right[0] - left[0], 1e-6)
