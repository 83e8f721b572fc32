"""The picture of a threshold: false matches against false non-matches, by modalities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.open_set import OpenSet
from mambapro.files import replacing
from mambapro.metrics import Floats
from mambapro.thresholds import COMPLETE, Threshold, Thresholds

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_COLOURS: Final = {
    "rgb+nir+tir": "#1f2933", "rgb+nir": "#0b6bcb", "rgb+tir": "#12906f", "nir+tir": "#a3298a",
    "rgb": "#0b6bcb", "nir": "#e08a00", "tir": "#12906f",
}  # fmt: skip
_TICKS: Final = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
_LIMITS: Final = (0.00005, 0.97)


def det_curve(comparisons: OpenSet) -> tuple[Floats, Floats]:
    """Return (n,) false-match and false-non-match rates by threshold (Martin et al., 1997)."""
    impostor, genuine = np.sort(comparisons.impostor()), np.sort(comparisons.genuine())
    cosines = np.unique(np.concatenate([impostor, genuine[np.isfinite(genuine)]]))
    false_match = 1 - np.searchsorted(impostor, cosines, side="left") / len(impostor)
    false_non_match = np.searchsorted(genuine, cosines, side="left") / len(genuine)
    return false_match, false_non_match


def draw_det(
    cases: Mapping[str, Mapping[str, OpenSet]], thresholds: Thresholds, title: str, path: Path
) -> None:
    """Draw the trade-off of every case and the thresholds chosen into the PNG file ``path``."""
    figure = Figure(figsize=(13, 6.6), dpi=110, facecolor="white")
    figure.subplots_adjust(left=0.06, right=0.985, top=0.83, bottom=0.1, wspace=0.17)
    figure.text(0.015, 0.945, f"Which threshold? {title}", size=15, weight="bold", color=_INK)
    figure.text(0.015, 0.905, f"{thresholds.source}; {_asked(thresholds)}; further down and left "
                "is better", size=10, color=_QUIET)  # fmt: skip
    complete = {COMPLETE: cases["same"][COMPLETE]}
    panels = (
        ("track and template show the same", cases["same"], thresholds.same),
        ("the track lacks a camera, the template is complete",
         {**complete, **cases["mixed"]}, {**thresholds.mixed, COMPLETE: thresholds.same[COMPLETE]}),
    )  # fmt: skip
    for place, (name, curves, chosen) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, place)
        _frame(axes, name)
        for subset, comparisons in curves.items():
            _draw(axes, subset, comparisons, chosen[subset])
        axes.legend(
            loc="upper right", fontsize=8.5, framealpha=0.9, edgecolor="white", labelcolor=_INK
        )
    with replacing(path) as aside:
        figure.savefig(str(aside))


def _asked(thresholds: Thresholds) -> str:
    if thresholds.gallery == 1:
        return f"dots: {thresholds.far:.2%} of comparisons with somebody else match"
    return (
        f"dots: {thresholds.far:.2%} of strangers match anybody in a gallery of "
        f"{thresholds.gallery}"
    )


def _draw(axes: Axes, subset: str, comparisons: OpenSet, threshold: Threshold) -> None:
    false_match, false_non_match = det_curve(comparisons)
    style = {1: ":", 2: "--", 3: "-"}[subset.count("+") + 1]
    colour = _COLOURS[subset]
    axes.plot(
        _deviates(false_match), _deviates(false_non_match), style, color=colour, linewidth=1.8,
        label=f"{subset}: threshold {threshold.cosine:.3f}, {threshold.identified.value:.0%} "
        "identified",
    )  # fmt: skip
    at = threshold.false_match.value, threshold.false_non_match.value
    axes.plot(*map(_deviate, at), "o", color=colour, markersize=6, clip_on=False)


def _frame(axes: Axes, name: str) -> None:
    axes.set_title(name, size=11, color=_INK, loc="left")
    axes.set_xlabel("false matches: comparisons with somebody else that reach it", color=_QUIET)
    axes.set_ylabel("false non-matches: own identity below it", color=_QUIET)
    places = [_deviate(tick) for tick in _TICKS]
    names = [f"{tick:.2%}" if tick < 0.01 else f"{tick:.0%}" for tick in _TICKS]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    limits = tuple(map(_deviate, _LIMITS))
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.tick_params(colors=_QUIET, labelsize=8.5)
    for side in axes.spines.values():
        side.set_color("#cbd2d9")


def _deviates(rates: Floats) -> Floats:
    return np.array([_deviate(float(rate)) for rate in rates])


def _deviate(rate: float) -> float:
    """Return the normal deviate, in which the curve of normal scores is straight."""
    low, high = _LIMITS
    return NormalDist().inv_cdf(min(max(rate, low), high))
