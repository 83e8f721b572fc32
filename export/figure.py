"""The picture of a comparison: quality, distance to PyTorch, latency, similarities."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.measure import Measured
from export.report import Report, percentages
from mambapro.metrics import Floats

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_GRID: Final = "#e4e7eb"
_GOOD, _BAD = "#1a7f4b", "#c4321c"
_COLOURS: Final = ("#8a94a3", "#0b6bcb", "#e08a00", "#12906f", "#b4489c", "#6a4fc0")
"""PyTorch first; told apart by people who confuse red and green, too."""
_SMALLEST: Final = 1e-8
"""Distances below are rounding of float32; the logarithmic axis ends there."""


def draw(report: Report, path: Path) -> None:
    """Draw ``report`` to the PNG file ``path``."""
    figure = Figure(figsize=(13.2, 8.6), dpi=140, facecolor="white")
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.075, right=0.975, top=0.79, bottom=0.075, wspace=0.2, hspace=0.46)
    _headline(figure, report)
    _draw_quality(axes[0, 0], report)
    _draw_distances(axes[0, 1], report)
    _draw_latency(axes[1, 0], report)
    _draw_similarities(axes[1, 1], report)
    figure.savefig(str(path))


def _headline(figure: Figure, report: Report) -> None:
    passed = not report.problems()
    subject = report.reference.spec.subject
    figure.text(0.025, 0.95, f"Model files against PyTorch: {subject}", size=18, weight="bold",
                color=_INK)  # fmt: skip
    figure.text(0.025, 0.92, f"{report.dataset}  ·  {report.environment['device']}", size=10,
                color=_QUIET)  # fmt: skip
    figure.text(
        0.975, 0.95, "PASSED" if passed else "FAILED", size=13, weight="bold", color="white",
        ha="right", va="center",
        bbox={"boxstyle": "round,pad=0.45", "facecolor": _GOOD if passed else _BAD, "lw": 0},
    )  # fmt: skip
    reason = textwrap.shorten("; ".join(report.problems()), 70, placeholder=" …")
    figure.text(0.975, 0.905, reason, size=9.5, color=_BAD, ha="right")
    for index, model in enumerate(report.models):
        x = 0.025 + 0.19 * index
        figure.text(x, 0.882, "■", size=13, color=_colour(index), va="center")
        figure.text(x + 0.014, 0.883, model.name, size=10.5, color=_INK, va="center")


def _draw_quality(axes: Axes, report: Report) -> None:
    _style(axes, "Ranking quality", "percent; differences to PyTorch above the bars")
    labels = ("mAP", "R-1", "R-5", "R-10")
    width = 0.8 / len(report.models)
    for index, model in enumerate(report.models):
        if model.quality is None:
            continue
        own = np.array(percentages(model))
        x = np.arange(len(labels)) + (index - (len(report.models) - 1) / 2) * width
        axes.bar(x, own, width * 0.9, color=_colour(index))
        for position, value, text in zip(x, own, _bar_labels(model, report), strict=True):
            axes.text(position, value + 1.5, text, ha="center", size=8.5, color=_INK)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=_GRID)


def _bar_labels(model: Measured, report: Report) -> list[str]:
    own = percentages(model)
    if model is report.reference or report.reference.quality is None:
        return [f"{value:.1f}" for value in own]
    pairs = zip(own, percentages(report.reference), strict=True)
    return [f"{value - reference + 0.0:+.1f}" for value, reference in pairs]


def _draw_distances(axes: Axes, report: Report) -> None:
    _style(axes, "Distance to PyTorch's embedding", "share of embeddings closer than 1 − cosine")
    for index, model in enumerate(report.models[1:], start=1):
        if model.quality is None:
            continue
        distances = np.sort(np.clip(1 - model.quality.cosines, _SMALLEST, None))
        share = np.arange(1, len(distances) + 1) / len(distances)
        axes.step([_SMALLEST, *distances, 2], [0, *share, 1], where="post", color=_colour(index),
                  lw=2.2)  # fmt: skip
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(_SMALLEST, 2)
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("1 − cosine (the left edge is float32 rounding)", color=_QUIET, size=9)
    axes.grid(color=_GRID)


def _draw_latency(axes: Axes, report: Report) -> None:
    _style(axes, "Latency of one triplet", "bar: median, line: to the 90th percentile, ms")
    reference_ms = report.reference.percentile_ms(50)
    longest_ms = max(model.percentile_ms(90) for model in report.models)
    for index, model in enumerate(report.models):
        p50, p90 = model.percentile_ms(50), model.percentile_ms(90)
        axes.barh(index, p50, 0.58, color=_colour(index))
        axes.plot([p50, p90], [index, index], color=_INK, lw=1.6, solid_capstyle="butt")
        ratio = "" if model is report.reference else f"   {reference_ms / p50:.1f}× as fast"
        axes.text(p90 + 0.02 * longest_ms, index, f"{p50:.1f} ms{ratio}", va="center", size=9.5,
                  color=_INK)  # fmt: skip
    axes.set_yticks(range(len(report.models)), [_size(model) for model in report.models])
    axes.set_ylim(len(report.models) - 0.4, -0.6)
    axes.set_xlim(0, longest_ms * 1.4)
    axes.grid(axis="x", color=_GRID)


def _size(model: Measured) -> str:
    return f"{model.spec.precision}\n{model.size_bytes / 1e6:.1f} MB"


def _draw_similarities(axes: Axes, report: Report) -> None:
    _style(axes, "Does similarity tell identities apart?", "density of pairs over their cosine")
    sound = [(i, m.quality) for i, m in enumerate(report.models) if m.quality is not None]
    if not sound:
        return
    lowest = min(float(np.percentile(quality.impostor, 0.1)) for _, quality in sound)
    edges = np.linspace(max(-1.0, lowest - 0.05), 1.0, 70)
    for index, quality in sound:
        for values, style in ((quality.impostor, "--"), (quality.genuine, "-")):
            _outline(axes, values, edges, _colour(index), style, filled=index == 0)
    thresholds = [m.spec.match_threshold for m in report.models if m.spec.match_threshold]
    for threshold in thresholds[:1]:
        x, top = threshold.cosine, axes.get_ylim()[1]
        axes.axvline(x, color=_INK, lw=1.2)
        axes.text(x, top, f"threshold {x:.3f} ", ha="right", va="top", size=9, color=_INK)
    axes.set_xlabel("cosine; solid: one identity, dashed: different identities", color=_QUIET,
                    size=9)  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks([])


def _outline(
    axes: Axes, values: Floats, edges: Floats, colour: str, style: str, filled: bool
) -> None:
    density, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges, density=True)
    centres = (edges[1:] + edges[:-1]) / 2
    axes.plot(centres, density, style, color=colour, lw=1.8)
    if filled:
        axes.fill_between(centres, density, color=colour, alpha=0.22, lw=0)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _style(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", size=12.5, weight="bold", color=_INK, pad=22)
    axes.text(0, 1.035, subtitle, transform=axes.transAxes, size=9.5, color=_QUIET)
    axes.tick_params(colors=_QUIET, labelsize=9.5, length=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
