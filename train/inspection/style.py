"""What the figures share: colours, a canvas with a headline, and triplets as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mambapro.contract import MODALITIES
from mambapro.preprocess import Picture

INK: Final = "#1f2933"
QUIET: Final = "#7b8794"
GOOD: Final = "#12805c"
BAD: Final = "#d1341f"
DPI: Final = 130
MARGIN_IN: Final = 0.3
HEAD_IN: Final = 1.0
"""Room for the headline, inches."""
CELL_IN: Final = 3.0
"""Width of a triplet where it is shown large, inches."""


def canvas(width_in: float, body_in: float, title: str, note: str) -> Figure:
    """Return a figure with a headline above a body of ``body_in`` inches."""
    height = body_in + HEAD_IN
    figure = Figure(figsize=(width_in, height), dpi=DPI, facecolor="white")
    figure.subplots_adjust(
        left=MARGIN_IN / width_in, right=1 - MARGIN_IN / width_in,
        bottom=MARGIN_IN / height, top=body_in / height,
    )  # fmt: skip
    left = MARGIN_IN / width_in
    figure.text(left, 1 - 0.38 / height, title, size=15, weight="bold", color=INK)
    figure.text(left, 1 - 0.64 / height, note, size=9.5, color=QUIET)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(str(path))
    return path


def plain(axes: Axes, title: str = "") -> None:
    """Leave pictures alone: no ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, size=9.5, color=INK, loc="left", pad=4)


def framed(axes: Axes, colour: str) -> None:
    """Put a border around a picture."""
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.6)


def strip(images: Picture) -> Picture:
    """Put the modalities (M, H, W, 3) beside each other, or below each other when they are wide."""
    axis = 1 if images.shape[1] >= images.shape[2] else 0
    beside: Picture = np.concatenate(list(images), axis=axis)
    return beside


def cell_height(size: tuple[int, int], width_in: float = CELL_IN) -> float:
    """Return the height in inches of a triplet of crops of ``size`` (H, W) px."""
    height, width = strip(np.zeros((len(MODALITIES), *size, 3), np.uint8)).shape[:2]
    return float(width_in * height / width)
