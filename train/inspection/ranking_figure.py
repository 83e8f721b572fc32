"""The picture of rank lists: a query, and the triplets that the network takes for the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mambapro.contract import MODALITIES
from train.inspection.choice import RankList
from train.inspection.style import BAD, GOOD, QUIET, canvas, cell_height, framed, plain, strip
from train.inspection.views import View, Views

HITS: Final = 8
"""Entries of a list that are shown."""
LABEL_IN: Final = 0.5
"""Room above a triplet, inches."""
SMALL_IN: Final = 1.55
"""Width of a triplet, inches."""


def draw_rank_lists(views: Views, lists: Sequence[RankList]) -> Figure:
    """Draw a line a query: its three modalities, then those of its first hits, right or wrong."""
    order = ", ".join(MODALITIES)
    cell = cell_height(views.query.pictures.size, SMALL_IN)
    figure = canvas(
        SMALL_IN * (HITS + 1), (cell + LABEL_IN) * len(lists), "What is taken for the same",
        f"queries from the worst ranked to the best; each picture is a triplet ({order}); "
        "green: right, red: wrong; cosine to the query",
    )  # fmt: skip
    gaps = {"wspace": 0.08, "hspace": LABEL_IN / cell}
    grid = figure.subplots(len(lists), HITS + 1, squeeze=False, gridspec_kw=gaps)
    for row, ranked in zip(grid, lists, strict=True):
        record = views.query.split.records[ranked.query]
        show(row[0], views.query, ranked.query)
        row[0].set_title(
            f"{record.identity}, camera {record.camera}\nAP {ranked.average_precision:.0%}",
            size=8.5, loc="left",
        )  # fmt: skip
        for axes, hit, cosine, right in zip(
            row[1:], ranked.hits, ranked.cosines, ranked.right, strict=False
        ):
            show(axes, views.gallery, hit)
            framed(axes, GOOD if right else BAD)
            mark = "right" if right else "wrong"
            axes.set_title(f"{mark}  {cosine:.2f}", size=8.5, color=GOOD if right else BAD)
        for axes in row[1 + len(ranked.hits) :]:
            axes.set_axis_off()
    return figure


def show(axes: Axes, view: View, row: int) -> None:
    """Show the three modalities of one triplet."""
    plain(axes)
    axes.imshow(strip(view.pictures[row]), interpolation="lanczos")
    axes.title.set_color(QUIET)
