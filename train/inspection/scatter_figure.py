"""The picture of features in the plane: t-SNE (van der Maaten and Hinton, JMLR 2008)."""

from __future__ import annotations

from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from mambapro.cli import InputError
from mambapro.metrics import Floats, Ints
from train.inspection.style import INK, canvas, plain
from train.inspection.views import View, Views

MARKS: Final = "os^DvP"
"""Marks in turn with the colours, so that no two identities look the same."""
PERPLEXITY: Final = 15.0


def draw_features(views: Views, identities: int, seed: int) -> Figure:
    """Draw a panel for each kind of features, a colour an identity."""
    stages = list(views.query.features)
    labels, rows = chosen_rows(views, identities, seed)
    figure = canvas(
        5.4 * len(stages) + 1.5, 5.2, "Where identities lie",
        f"t-SNE of cosine distances, {len(rows)} test triplets of {len(np.unique(labels))} "
        "identities; distances between far groups mean nothing",
    )  # fmt: skip
    figure.subplots_adjust(right=1 - 1.5 / figure.get_figwidth(), wspace=0.04)
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    for axes, stage in zip(panels, stages, strict=True):
        plain(axes, f"{stage}: mAP {views.rankings[stage].map:.1%}")
        _scatter(axes, in_the_plane(features_of(views, stage)[rows], seed), labels)
    panels[-1].legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.01, 0.5),
                      title="identity", alignment="left", labelcolor=INK)  # fmt: skip
    return figure


def chosen_rows(views: Views, identities: int, seed: int) -> tuple[Ints, Ints]:
    """Return identities and rows, queries first, of at most ``identities`` drawn identities."""
    everyone = np.concatenate([v.split.labels().identity for v in _views(views)])
    known = np.unique(everyone)
    drawn = np.random.default_rng(seed).permutation(known)[:identities]
    rows = np.flatnonzero(np.isin(everyone, drawn))
    if len(rows) < 3:
        raise InputError(f"t-SNE needs at least 3 test triplets, the test split has {len(rows)}")
    return everyone[rows], rows


def features_of(views: Views, stage: str) -> Floats:
    """Return the features of queries and gallery, once where they are the same."""
    features: Floats = np.concatenate([v.features[stage] for v in _views(views)])
    return features


def in_the_plane(features: Floats, seed: int) -> Floats:
    """Return (n, 2) positions of unit features (n, C)."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(metric="cosine", perplexity=perplexity, init="random", random_state=seed)
    places: Floats = tsne.fit_transform(features)
    return places


def _views(views: Views) -> list[View]:
    return [views.query] if views.query is views.gallery else [views.query, views.gallery]


def _scatter(axes: Axes, places: Floats, labels: Ints) -> None:
    colours = matplotlib.color_sequences["tab10"]
    for index, identity in enumerate(np.unique(labels)):
        x, y = places[labels == identity].T
        colour, mark = colours[index % 10], MARKS[index // 10 % len(MARKS)]
        axes.scatter(x, y, s=26, color=colour, marker=mark, lw=0.4, ec="white", label=str(identity))
