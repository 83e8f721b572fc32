"""Labels beside points of a picture, none on another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

Pixels = tuple[float, float]

_RADII_PX: Final = tuple(range(14, 400, 10))
_ANGLES: Final = tuple(
    math.radians(side + turn)
    for turn in (0, 30, -30, 60, -60, 90, -90, 15, -15, 45, -45, 75, -75)
    for side in (0, 180)
)
"""Places around a point, the best first: to the right, then to the left."""
_POINT_PX: Final = 9
_AIR_PX: Final = 3
_DOTS: Final = 24
"""Of a line, where it is looked at."""


def label_points(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], colours: Sequence[str]
) -> list[Annotation]:
    """Write each text near its point, with a line to it, clear of all points and other texts.

    Limits and scales of ``axes`` must be final. In a crowd a line may pass behind a text.
    """
    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    frame = axes.get_window_extent()
    centres = [_pixels(axes, point) for point in points]
    crowd = _Crowd([_square(centre, _POINT_PX) for centre in centres])
    written = []
    for centre, text, colour in zip(centres, texts, colours, strict=True):
        note = axes.annotate(
            text, centre, xycoords="figure pixels", size=9.5, color=colour, va="center",
            ha="center", annotation_clip=False, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )  # fmt: skip
        size = note.get_window_extent(renderer)
        end = _middle(crowd.take_place(centre, (size.width, size.height), frame))
        note.set_position(end)
        ends = axes.transData.inverted().transform([centre, end])
        axes.plot(*ends.T, color=colour, lw=0.8, zorder=1.5)
        written.append(note)
    return written


class _Crowd:
    """Places that are taken: points, texts, and the lines between them."""

    def __init__(self, points: Sequence[Bbox]) -> None:
        self._points = list(points)
        self._texts: list[Bbox] = []
        self._lines: list[Bbox] = []

    def take_place(self, centre: Pixels, size: Pixels, frame: Bbox) -> Bbox:
        """Return the nearest place inside ``frame`` that is free, of lines, too, if possible."""
        places = list(_places(centre, size[0] + 2 * _AIR_PX, size[1] + 2 * _AIR_PX))
        inside = [box for box in places if _contains(frame, box)]
        free = [box for box in inside if not box.count_overlaps([*self._points, *self._texts])]
        clear = (box for box in free if self._is_clear(centre, box))
        chosen = next(clear, (free or inside or places)[0])
        self._texts.append(chosen)
        self._lines += _line(centre, chosen)
        return chosen

    def _is_clear(self, centre: Pixels, box: Bbox) -> bool:
        crosses = any(dot.count_overlaps(self._texts) for dot in _line(centre, box))
        return not crosses and not box.count_overlaps(self._lines)


def _places(centre: Pixels, width: float, height: float) -> Iterator[Bbox]:
    """Boxes around the point, near ones first; each touches its circle with the side it faces."""
    for radius, angle in itertools.product(_RADII_PX, _ANGLES):
        x = centre[0] + math.cos(angle) * (radius + width / 2)
        y = centre[1] + math.sin(angle) * (radius + height / 2)
        yield Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _line(centre: Pixels, box: Bbox) -> list[Bbox]:
    """Dots of the line from a point to its text."""
    x, y = _middle(box)
    parts = [index / _DOTS for index in range(_DOTS)]
    steps = [(centre[0] + t * (x - centre[0]), centre[1] + t * (y - centre[1])) for t in parts]
    return [dot for dot in (_square(step, 1) for step in steps) if not dot.overlaps(box)]


def _contains(frame: Bbox, box: Bbox) -> bool:
    return bool(
        frame.x0 <= box.x0 and frame.y0 <= box.y0 and box.x1 <= frame.x1 and box.y1 <= frame.y1
    )


def _middle(box: Bbox) -> Pixels:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def _square(centre: Pixels, half: float) -> Bbox:
    x, y = centre
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _pixels(axes: Axes, point: Pixels) -> Pixels:
    x, y = axes.transData.transform(point)
    return float(x), float(y)
