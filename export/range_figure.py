"""The picture of calibration: what each activation takes for values, and what is clipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.ranges import Histogram, Range
from mambapro.contract import MODALITIES

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_CLIPPED: Final = "#c4321c"
_COLOURS: Final = ("#0b6bcb", "#e08a00", "#12906f")
_COLUMNS: Final = 4
_SHOWN: Final = 16
"""Activations in the picture: those with the most beyond their range."""
_BARS: Final = 128


def draw_ranges(
    histograms: Mapping[str, Histogram],
    ranges: Mapping[str, Range],
    labels: Mapping[str, str],
    title: str,
    path: Path,
) -> None:
    """Draw the activations that lose most to the PNG file ``path``: values by modality, range.

    ``labels`` says what to call each activation.
    """
    names = sorted(histograms, key=lambda name: -_loss(histograms[name], ranges[name]))[:_SHOWN]
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(15, 1.6 + 2.5 * rows), dpi=120, facecolor="white")
    figure.subplots_adjust(left=0.045, right=0.985, top=1 - 1.15 / (1.6 + 2.5 * rows),
                           bottom=0.55 / (1.6 + 2.5 * rows), wspace=0.2, hspace=0.55)  # fmt: skip
    height = 1.6 + 2.5 * rows
    figure.text(0.015, 1 - 0.42 / height, f"Calibrated ranges: {title}", size=16, weight="bold",
                color=_INK)  # fmt: skip
    figure.text(0.015, 1 - 0.72 / height,
                f"the {len(names)} of {len(histograms)} inputs of layers that lose most; share of "
                "values, logarithmic; red: beyond the range, clipped", size=10,
                color=_QUIET)  # fmt: skip
    for slot, modality in enumerate(MODALITIES):
        figure.text(0.80 + 0.06 * slot, 1 - 0.42 / height, f"■ {modality}", size=12,
                    color=_COLOURS[slot])  # fmt: skip
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        _draw(axes, labels[name], histograms[name], ranges[name])
    figure.savefig(str(path))


def _loss(histogram: Histogram, limits: Range) -> float:
    """Furthest value beyond the range, in ranges."""
    width = limits[1] - limits[0]
    below, above = limits[0] - histogram.lowest.min(), histogram.highest.max() - limits[1]
    return float(max(below, above) / width)


def _draw(axes: Axes, label: str, histogram: Histogram, limits: Range) -> None:
    edges = histogram.edges[:: len(histogram.edges) // _BARS]
    centres = (edges[1:] + edges[:-1]) / 2
    for slot in histogram.seen:
        counts = histogram.counts[slot].reshape(_BARS, -1).sum(axis=1)
        shares = np.where(counts > 0, counts / counts.sum(), np.nan)
        axes.step(centres, shares, where="mid", color=_COLOURS[slot], lw=1.3)
    low, high = float(histogram.lowest.min()), float(histogram.highest.max())
    margin = 0.04 * (high - low)
    axes.set_yscale("log")
    axes.set_xlim(low - margin, high + margin)
    for start, end in ((low - margin, limits[0]), (limits[1], high + margin)):
        if limits[0] > low or limits[1] < high:
            axes.axvspan(start, end, color=_CLIPPED, alpha=0.13, lw=0)
    for limit in limits:
        axes.axvline(limit, color=_CLIPPED, lw=1)
    clipped = "  ".join(f"{histogram.clipped(limits)[slot]:.4%}" for slot in histogram.seen)
    axes.set_title(label, loc="left", size=8.5, color=_INK, pad=14)
    axes.text(0, 1.03, f"range {limits[0]:.3g} to {limits[1]:.3g}, clipped {clipped}",
              transform=axes.transAxes, size=7.5, color=_QUIET)  # fmt: skip
    axes.tick_params(colors=_QUIET, labelsize=7, length=2)
    axes.minorticks_off()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
