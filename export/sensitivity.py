"""Which layer groups INT8 harms, and how many must stay float for ranking to hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from export.calibrate import Calibrated
from export.holdout import Harm
from export.int8_graph import int8_model
from export.qdq import Target
from mambapro.config import to_dict

_NOISE_POINTS: Final = 0.1
"""Differences of mAP below are chance; cosine tells groups apart there."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupHarm:
    """What INT8 does to the model when one group alone is quantised."""

    group: str
    """Name of the layer group."""
    work_share: float
    """Its share of the work of all layers that may be INT8."""
    harm: Harm
    """What that does to the held-out triplets."""


@dataclass(frozen=True)
class Point:
    """One trade-off of ranking against INT8 work."""

    keep_float: tuple[str, ...]
    """Groups that stay float32, the most harmful first."""
    int8_share: float
    """Share of the work that is INT8."""
    harm: Harm
    """What that does to the held-out triplets."""


def sensitivity(calibrated: Calibrated, target: Target) -> list[GroupHarm]:
    """Quantise each group alone; the most harmful first: by mAP, then by cosine."""
    everything = calibrated.groups
    found = []
    for index, group in enumerate(everything, start=1):
        others = tuple(name for name in everything if name != group)
        harm = _harm(calibrated, target, others)
        _log.info("%d of %d, %s alone: mAP %+.2f points, cosine %.6f", index, len(everything),
                  group, -harm.map_drop_points, harm.cosine_mean)  # fmt: skip
        found.append(GroupHarm(group, calibrated.int8_share(others), harm))
    return sorted(found, key=_harmfulness)


def trade_off(
    calibrated: Calibrated, target: Target, harms: Sequence[GroupHarm], allowed: float
) -> tuple[Point, list[Point]]:
    """Return the first point whose mAP drop is ``allowed``, and all points that were tried.

    Groups go back to float in the order of ``harms``: 0, 1, 2, 4, 8 and so on, then all; the gap
    before the first that holds is halved until it is closed. With all in float nothing drops.
    """
    order = [item.group for item in harms]
    counts = [0, *(2**power for power in range(len(order).bit_length())), len(order)]
    points = {
        count: _point(calibrated, target, tuple(order[:count]))
        for count in sorted({min(count, len(order)) for count in counts})
    }
    holds = min(n for n, point in points.items() if point.harm.map_drop_points <= allowed)
    below = max((n for n in points if n < holds), default=holds)
    while holds - below > 1:
        middle = (holds + below) // 2
        points[middle] = _point(calibrated, target, tuple(order[:middle]))
        if points[middle].harm.map_drop_points <= allowed:
            holds = middle
        else:
            below = middle
    return points[holds], [points[count] for count in sorted(points)]


def sensitivity_table(harms: Sequence[GroupHarm]) -> str:
    """Return one line a group, the most harmful first."""
    lines = [f"{'quantised alone':<32} {'work':>6} {'mAP':>7} {'cosine':>9} {'min':>9} {'@10':>6}"]
    lines += [
        f"{item.group:<32} {item.work_share:>6.1%} {-item.harm.map_drop_points:>+7.2f} "
        f"{_figures(item.harm)}"
        for item in harms
    ]
    return "\n".join(lines)


def trade_off_table(points: Sequence[Point], chosen: Point) -> str:
    """Return one line a point, the one that was chosen marked."""
    lines = [f"{'groups in float':<32} {'INT8':>6} {'mAP':>7} {'cosine':>9} {'min':>9} {'@10':>6}"]
    for point in points:
        count = f"{len(point.keep_float)}{'  <- chosen' if point is chosen else ''}"
        lines.append(
            f"{count:<32} {point.int8_share:>6.1%} {-point.harm.map_drop_points:>+7.2f} "
            f"{_figures(point.harm)}"
        )
    return "\n".join(lines)


def as_json(harms: Sequence[GroupHarm], points: Sequence[Point]) -> dict[str, Any]:
    """Return all figures; shares from 0 to 1, drops in points."""
    return {
        "sensitivity": [to_dict(item) for item in harms],
        "trade_off": [to_dict(point) for point in points],
    }


def worst(harms: Sequence[GroupHarm], count: int = 3) -> str:
    """Name the groups that hurt most."""
    return ", ".join(
        f"{item.group} ({-item.harm.map_drop_points:+.2f} points, cosine "
        f"{item.harm.cosine_mean:.4f})"
        for item in harms[:count]
    )


def _harmfulness(item: GroupHarm) -> tuple[float, float]:
    steps = round(max(item.harm.map_drop_points, 0.0) / _NOISE_POINTS)
    return -steps, item.harm.cosine_mean


def _point(calibrated: Calibrated, target: Target, keep_float: tuple[str, ...]) -> Point:
    harm = _harm(calibrated, target, keep_float)
    return Point(keep_float, calibrated.int8_share(keep_float), harm)


def _harm(calibrated: Calibrated, target: Target, keep_float: tuple[str, ...]) -> Harm:
    assert calibrated.judge is not None
    return calibrated.judge.model(int8_model(calibrated, target, keep_float), calibrated.spec)


def _figures(harm: Harm) -> str:
    return f"{harm.cosine_mean:>9.6f} {harm.cosine_min:>9.6f} {harm.overlap_at_10:>6.3f}"
