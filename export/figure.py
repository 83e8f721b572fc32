"""The picture of a comparison: what accuracy costs, quality, distance to PyTorch, similarities."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from export.label_places import label_points
from export.measure import Measured
from export.report import Report
from export.tables import percentages, signed
from mambapro.metrics import Floats

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_GRID: Final = "#e4e7eb"
_GOOD, _BAD = "#1a7f4b", "#c4321c"
_COLOURS: Final = (
    "#8a94a3", "#0b6bcb", "#63b0f5", "#e08a00", "#12906f", "#b4489c", "#6a4fc0", "#8c5a2b",
    "#c4321c", "#3d4f5f",
)  # fmt: skip
"""PyTorch first; told apart by people who confuse red and green, too."""
_LEGEND_COLUMNS: Final = 5
_MOST_UPRIGHT_LABELS: Final = 3
"""Models beside each other whose labels fit without being turned or made smaller."""
_LEAST_MARGIN_POINTS: Final = 1.0
"""Of mAP, above and below the points: a hundredth of a point must not look like a gulf."""
_SMALLEST: Final = 1e-8
"""Distances below are rounding of float32; the logarithmic axis ends there."""


def draw(report: Report, path: Path) -> None:
    """Draw ``report`` to the PNG file ``path``."""
    figure = Figure(figsize=(13.2, 13.2), dpi=140, facecolor="white")
    axes = figure.subplots(3, 2)
    figure.subplots_adjust(left=0.075, right=0.975, top=0.84, bottom=0.055, wspace=0.2, hspace=0.44)
    _headline(figure, report)
    _draw_tradeoff(axes[0, 0], report)
    _draw_latency(axes[0, 1], report)
    _draw_quality(axes[1, 0], report)
    _draw_subsets(axes[1, 1], report)
    _draw_distances(axes[2, 0], report)
    _draw_similarities(axes[2, 1], report)
    figure.savefig(str(path))


def _headline(figure: Figure, report: Report) -> None:
    passed = not report.problems()
    subject = report.reference.spec.subject
    figure.text(0.025, 0.968, f"Model files against PyTorch: {subject}", size=18, weight="bold",
                color=_INK)  # fmt: skip
    figure.text(0.025, 0.949, f"{report.dataset}  ·  {report.environment['device']}", size=10,
                color=_QUIET)  # fmt: skip
    figure.text(
        0.975, 0.968, "PASSED" if passed else "FAILED", size=13, weight="bold", color="white",
        ha="right", va="center",
        bbox={"boxstyle": "round,pad=0.45", "facecolor": _GOOD if passed else _BAD, "lw": 0},
    )  # fmt: skip
    reason = textwrap.shorten("; ".join(report.problems()), 70, placeholder=" …")
    figure.text(0.975, 0.94, reason, size=9.5, color=_BAD, ha="right")
    for index, model in enumerate(report.models):
        row, column = divmod(index, _LEGEND_COLUMNS)
        x, y = 0.025 + 0.95 * column / _LEGEND_COLUMNS, 0.926 - 0.017 * row
        figure.text(x, y, "■", size=13, color=_colour(index), va="center")
        figure.text(x + 0.014, y + 0.001, model.name, size=10.5, color=_INK, va="center")


def _draw_tradeoff(axes: Axes, report: Report) -> None:
    _style(axes, "Accuracy against latency", "mAP in percent over the median of one triplet, ms")
    sound = [(i, m) for i, m in enumerate(report.models) if m.quality is not None]
    if not sound:
        return
    points = [(model.percentile_ms(50), percentages(model)[0]) for _, model in sound]
    colours = [_colour(index) for index, _ in sound]
    slow, best = max(x for x, _ in points), max(y for _, y in points)
    fast, worst = min(x for x, _ in points), min(y for _, y in points)
    margin = max(0.35 * (best - worst), _LEAST_MARGIN_POINTS)
    axes.set_xscale("log")
    axes.set_xlim(fast / 2.5, slow * 2)  # names have their places beside the points
    axes.set_ylim(worst - margin, best + margin)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(color=_GRID)
    _draw_limit(axes, report)
    for (x, y), colour in zip(points, colours, strict=True):
        axes.plot(x, y, "o", ms=9, color=colour, mec="white")
    label_points(axes, points, [model.name for _, model in sound], colours)


def _draw_limit(axes: Axes, report: Report) -> None:
    if report.reference.quality is None:
        return
    limit = percentages(report.reference)[0] - report.max_map_drop_points
    axes.axhline(limit, color=_BAD, lw=1, ls="--")
    axes.text(0.995, limit, "least mAP that passes ", transform=axes.get_yaxis_transform(),
              size=8.5, color=_BAD, ha="right", va="bottom", clip_on=True)  # fmt: skip


def _draw_subsets(axes: Axes, report: Report) -> None:
    _style(axes, "Missing modalities", "mAP in percent when only these are there")
    names = list(report.reference.subset_maps)
    if len(names) == 1:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0, 0.85, "not measured (--quick)", transform=axes.transAxes, color=_QUIET)
        return
    step = 0.6 / len(report.models)
    for index, model in enumerate(report.models):
        x = np.arange(len(names)) + (index - (len(report.models) - 1) / 2) * step
        maps = [_or_nan(model.subset_maps[name]) for name in names]
        axes.plot(x, maps, "o", ms=6, color=_colour(index), mec="white", mew=0.6)
    axes.set_xticks(range(len(names)), [name.replace("+", "\n") for name in names])
    for position in np.arange(len(names) - 1) + 0.5:
        axes.axvline(position, color=_GRID, lw=0.8)
    axes.set_ylim(0, 104)
    axes.grid(axis="y", color=_GRID)


def _or_nan(share: float | None) -> float:
    return float("nan") if share is None else 100 * share


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
        upright = len(report.models) <= _MOST_UPRIGHT_LABELS
        for position, value, text in zip(x, own, _bar_labels(model, report), strict=True):
            axes.text(position, value + 1.5, text, ha="center", va="bottom", size=8.5, color=_INK,
                      rotation=0 if upright else 90)  # fmt: skip
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=_GRID)


def _bar_labels(model: Measured, report: Report) -> list[str]:
    own = percentages(model)
    if model is report.reference or report.reference.quality is None:
        return [f"{value:.1f}" for value in own]
    pairs = zip(own, percentages(report.reference), strict=True)
    return [signed(value - reference) for value, reference in pairs]


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
    _style(
        axes, "Latency of one triplet", "bar: median, line: to the 90th percentile, dot: 99th, ms"
    )
    reference_ms = report.reference.percentile_ms(50)
    longest_ms = max(model.percentile_ms(99) for model in report.models)
    for index, model in enumerate(report.models):
        p50, p90, p99 = (model.percentile_ms(percent) for percent in (50, 90, 99))
        axes.barh(index, p50, 0.58, color=_colour(index))
        axes.plot([p50, p90], [index, index], color=_INK, lw=1.6, solid_capstyle="butt")
        axes.plot([p99], [index], "o", ms=3, color=_INK)
        ratio = "" if model is report.reference else f"   {reference_ms / p50:.1f}× as fast"
        text = f"median {p50:.1f} ms{ratio}"
        axes.text(p99 + 0.02 * longest_ms, index, text, va="center", size=9.5, color=_INK)
    sizes = [f"{model.spec.precision}\n{model.size_bytes / 1e6:.1f} MB" for model in report.models]
    axes.set_yticks(range(len(report.models)), sizes)
    axes.tick_params(axis="y", labelsize=8 if len(sizes) > _MOST_UPRIGHT_LABELS else 9.5)
    axes.set_ylim(len(report.models) - 0.4, -0.6)
    axes.set_xlim(0, longest_ms * 1.5)
    axes.grid(axis="x", color=_GRID)


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
