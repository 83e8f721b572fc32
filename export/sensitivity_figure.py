"""The picture of what INT8 harms: bars by layer group, and mAP against INT8 work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.sensitivity import GroupHarm, Point

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_GRID: Final = "#e4e7eb"
_MAP, _COSINE, _LIMIT = "#0b6bcb", "#e08a00", "#c4321c"
_SHOWN: Final = 40
"""Groups in the picture, the most harmful."""


def draw_sensitivity(
    harms: Sequence[GroupHarm], points: Sequence[Point], allowed: float, title: str, path: Path
) -> None:
    """Draw the PNG file ``path``; ``points`` may be empty, ``allowed`` is a drop in points."""
    shown = harms[:_SHOWN]
    height = 2.0 + 0.27 * max(len(shown), 12)
    figure = Figure(figsize=(16, height), dpi=110, facecolor="white")
    widths = (1, 1, 1.1) if points else (1, 1)
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    figure.subplots_adjust(left=0.17, right=0.98, top=1 - 1.15 / height, bottom=0.55 / height,
                           wspace=0.12 if not points else 0.2)  # fmt: skip
    figure.text(0.015, 1 - 0.45 / height, title, size=16, weight="bold", color=_INK)
    labels = [f"{item.group}  {item.work_share:.1%}" for item in shown]
    drops = [item.harm.map_drop_points for item in shown]
    losses = [1 - item.harm.cosine_mean for item in shown]
    _bars(axes[0], drops, _MAP, "mAP lost when quantised alone, points")
    _bars(axes[1], losses, _COSINE, "1 − mean cosine to float32")
    axes[0].set_yticks(range(len(shown)), labels)
    axes[1].set_yticks([])
    axes[0].axvline(allowed, color=_LIMIT, lw=1.2)
    if points:
        _curve(axes[2], points, allowed)
    figure.savefig(str(path))


def _bars(axes: Axes, values: Sequence[float], colour: str, title: str) -> None:
    _style(axes, title)
    axes.barh(range(len(values)), values, 0.7, color=colour)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(axis="x", color=_GRID)
    axes.axvline(0, color=_QUIET, lw=0.8)


def _curve(axes: Axes, points: Sequence[Point], allowed: float) -> None:
    _style(axes, "mAP against share of INT8 work, %")
    shares = [100 * point.int8_share for point in points]
    maps = [100 * point.harm.map for point in points]
    best = maps[0] + points[0].harm.map_drop_points
    axes.plot(shares, maps, "o-", color=_MAP, lw=1.8)
    axes.axhline(best - allowed, color=_LIMIT, lw=1.2)
    axes.text(2, best - allowed, " allowed", color=_LIMIT, size=9, va="bottom")
    lowest, highest = min(*maps, best - allowed), max(*maps, best)
    margin = 0.08 * (highest - lowest)
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(-3, 103)
    axes.grid(color=_GRID)


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=11, color=_INK)
    axes.tick_params(colors=_QUIET, labelsize=8.5, length=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
