"""The picture of what makes two triplets alike: maps over each modality of query and match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from mambapro.contract import MODALITIES
from mambapro.metrics import Floats
from mambapro.model.network import MambaPro
from mambapro.preprocess import Picture
from train.inspection.choice import RankList
from train.inspection.relevance import relevance
from train.inspection.style import CELL_IN, canvas, cell_height, plain, strip
from train.inspection.views import View, Views

LABEL_IN: Final = 0.4
"""Room above a triplet for what it is, inches."""
STRONGEST: Final = 0.85
"""Opacity of a map where a patch adds most."""


def draw_relevance(
    network: MambaPro, views: Views, lists: Sequence[RankList], method: str
) -> Figure:
    """Draw a line a query: itself and its first right hit, each bare and under its map."""
    queries, matches = ([r.query for r in lists], [r.first_right for r in lists])
    sides = (
        (views.query, queries, views.gallery.features[views.last][matches]),
        (views.gallery, matches, views.query.features[views.last][queries]),
    )
    cell = cell_height(views.query.pictures.size)
    figure = canvas(
        4 * CELL_IN, (cell + LABEL_IN) * len(lists), "What makes two triplets alike",
        f"{method.replace('-', ' ')} of the cosine of a query and its first right match; "
        "the brighter, the more a patch adds to it; each triplet has a scale of its own",
    )  # fmt: skip
    gaps = {"wspace": 0.05, "hspace": LABEL_IN / cell}
    grid = figure.subplots(len(lists), 4, squeeze=False, gridspec_kw=gaps)
    for side, (view, rows, wanted) in enumerate(sides):
        images = np.stack([view.pictures[row] for row in rows])
        maps = explain(network, images, view, rows, wanted, method)
        for line, (picture, added) in enumerate(zip(images, maps, strict=True)):
            bare, mapped = grid[line, 2 * side : 2 * side + 2]
            plain(bare, name(view, rows[line], ("query", "match")[side]))
            bare.imshow(strip(picture), interpolation="lanczos")
            plain(mapped, shares(added))
            mapped.imshow(strip(overlay(picture, added)), interpolation="lanczos")
    return figure


def name(view: View, row: int, role: str) -> str:
    """Return what stands above a triplet."""
    record = view.split.records[row]
    return f"{role}: {record.identity}, camera {record.camera}"


def shares(added: Floats) -> str:
    """Return how much of what speaks for the match (M, gh, gw) comes from each modality."""
    positive = np.maximum(added, 0).sum(axis=(1, 2))
    total = positive.sum() or 1.0
    return "   ".join(f"{m} {p / total:.0%}" for m, p in zip(MODALITIES, positive, strict=True))


def explain(
    network: MambaPro,
    images: Picture,
    view: View,
    rows: Sequence[int],
    wanted: Floats,
    method: str,
) -> Floats:
    """Return the maps (B, M, gh, gw) of rows of a view."""
    device = next(network.parameters()).device
    camera = torch.from_numpy(view.split.labels().camera[list(rows)])
    inputs = (torch.from_numpy(images), camera, torch.from_numpy(wanted))
    images_, camera_, wanted_ = (tensor.to(device) for tensor in inputs)
    maps: Floats = relevance(network, images_, camera_, wanted_, method).cpu().numpy()
    return maps


def overlay(images: Picture, added: Floats) -> Picture:
    """Lay what patches add (M, gh, gw), as far as it is positive, over grey (M, H, W, 3)."""
    height, width = images.shape[1:3]
    shown = np.maximum(added, 0)
    shown = shown / max(float(shown.max()), 1e-12)
    large = [cv2.resize(map_, (width, height), interpolation=cv2.INTER_LINEAR) for map_ in shown]
    maps = np.stack(large)
    colours = matplotlib.colormaps["inferno"](maps)[..., :3]
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])[..., None] / 255
    opacity = STRONGEST * maps[..., None] ** 0.5
    blended: Picture = (255 * ((1 - opacity) * grey + opacity * colours)).astype(np.uint8)
    return blended
