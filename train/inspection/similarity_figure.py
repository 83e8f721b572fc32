"""The picture of similarities: pairs of one identity and pairs of two, before and after MA."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mambapro.metrics import Floats
from train.inspection.style import BAD, GOOD, INK, QUIET, canvas
from train.inspection.views import Views

FALSE_MATCHES: Final = 0.01
"""Share of pairs of two identities that the marked threshold lets through."""
BARS: Final = 80


def pair_cosines(views: Views, stage: str) -> tuple[Floats, Floats]:
    """Return the cosines of pairs of one identity, and of two, as the protocol counts pairs."""
    cosines = views.query.features[stage] @ views.gallery.features[stage].T
    counts = ~views.dropped
    if views.query is views.gallery:  # each pair once
        counts &= np.triu(np.ones_like(counts), k=1)
    return cosines[counts & views.same], cosines[counts & ~views.same]


def found_at(positive: Floats, negative: Floats, false_matches: float) -> tuple[float, float]:
    """Return the threshold at a share of false matches and the share of positives above it."""
    threshold = float(np.quantile(negative, 1 - false_matches))
    return threshold, float((positive > threshold).mean())


def draw_similarities(views: Views) -> Figure:
    """Draw a panel for each kind of features."""
    stages = list(views.query.features)
    figure = canvas(
        6.2 * len(stages), 3.9, "How alike are the same, and how alike are others?",
        "cosines of all pairs that the protocol counts; the dashed line lets "
        f"{FALSE_MATCHES:.0%} of the pairs of two identities through",
    )  # fmt: skip
    figure.subplots_adjust(left=0.035, bottom=0.09, wspace=0.08)
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        _draw(axes, stage, views)
    return figure


def _draw(axes: Axes, stage: str, views: Views) -> None:
    positive, negative = pair_cosines(views, stage)
    low = min(positive.min(), negative.min())
    edges = np.linspace(low, max(positive.max(), negative.max()), BARS + 1)
    for values, colour, name in (
        (negative, BAD, "two identities"),
        (positive, GOOD, "one identity"),
    ):
        mean = round(float(values.mean()), 2) + 0.0  # no minus before a zero
        axes.hist(values, edges.tolist(), density=True, color=colour, alpha=0.55, label=f"{name}: "
                  f"{len(values):,} pairs, mean {mean:.2f}")  # fmt: skip
    threshold, found = found_at(positive, negative, FALSE_MATCHES)
    axes.axvline(threshold, color=INK, lw=1.2, ls="--",
                 label=f"above {threshold:.2f}: {found:.0%} of those of one identity")  # fmt: skip
    ranking = views.rankings[stage]
    axes.set_title(f"{stage}: mAP {ranking.map:.1%}, R-1 {ranking.rank(1):.1%}",
                   size=11, color=INK, loc="left")  # fmt: skip
    axes.set_yticks([])
    axes.tick_params(colors=QUIET)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", labelcolor=INK)
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend
