"""A sheet of matches: what was recognised beside what it was recognised as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from mambapro.contract import MODALITIES
from mambapro.preprocess import Picture
from runtime.figures.scoring import Scorer
from runtime.identity.identification import Sighting
from runtime.picture.drawing import (
    FAINT,
    INK,
    MATCH,
    NEW,
    PAGE,
    PANEL,
    Colour,
    clock,
    identity_colour,
    put_label,
    put_text,
)
from runtime.watching.crops import Sample

CELL: Final = (104, 92)
"""Height and width of a crop on the sheet, px."""
ROW: Final = 150
COLUMNS: Final = 2
MOST: Final = 16
WRONG: Final[Colour] = (255, 99, 99)


def match_sheet(sightings: Sequence[Sighting], scorer: Scorer | None) -> Picture | None:
    """Return (H, W, 3) with the last matches, or None when nothing was recognised.

    With a scorer, each match is marked right or wrong by the ground truth.
    """
    by_point = {s.point: s for s in sightings if s.point is not None}
    pairs = [
        (query, by_point[query.decision.match.template.point])
        for query in sightings
        if query.decision is not None
        and query.decision.match is not None
        and query.decision.match.template.point in by_point
    ][-MOST:]
    if not pairs:
        return None
    half = 2 * (3 * CELL[1] + 8) + 60
    rows = -(-len(pairs) // COLUMNS)
    sheet = np.empty((rows * ROW + 52, COLUMNS * half + 16, 3), np.uint8)
    sheet[:] = PAGE
    put_text(sheet, "Matches: seen now, and recognised from", (16, 14), 20, INK, bold=True)
    for number, (query, known) in enumerate(pairs):
        left, top = 16 + number % COLUMNS * half, 52 + number // COLUMNS * ROW
        _draw_pair(sheet, left, top, query, known, _right(query, known, scorer))
    return sheet


def _right(query: Sighting, known: Sighting, scorer: Scorer | None) -> bool | None:
    if scorer is None:
        return None
    truth = scorer.true_identity(query)
    return None if truth is None else truth == scorer.true_identity(known)


def _draw_pair(
    sheet: Picture, left: int, top: int, query: Sighting, known: Sighting, right: bool | None
) -> None:
    decision = query.decision
    assert decision is not None
    put_label(sheet, decision.identity, (left, top), 14, PAGE, identity_colour(decision.identity))
    colour = {True: MATCH, False: WRONG, None: INK}[right]
    verdict = {True: "  right", False: "  wrong", None: ""}[right]
    put_text(sheet, f"{decision.score:.2f}{verdict}", (left + 52, top + 2), 14, colour)
    second = left + 3 * CELL[1] + 32
    for x, sighting in ((left, query), (second, known)):
        place = f"{sighting.rig}  {clock(sighting.start_s)}"
        put_text(sheet, place, (x + (140 if x == left else 0), top + 2), 14, FAINT)
        _draw_sample(sheet, x, top + 26, max(sighting.samples, key=lambda s: s.quality))
    middle = (left + 3 * CELL[1] + 16, top + 26 + CELL[0] // 2)
    cv2.arrowedLine(
        sheet,
        (middle[0] + 11, middle[1]),
        (middle[0] - 11, middle[1]),
        NEW,
        2,
        cv2.LINE_AA,
        tipLength=0.4,
    )


def _draw_sample(sheet: Picture, left: int, top: int, sample: Sample) -> None:
    height, width = CELL
    for slot, modality in enumerate(MODALITIES):
        x = left + slot * width
        sheet[top : top + height, x : x + width - 4] = PANEL
        picture = sample.crops.get(modality)
        if picture is None:
            put_text(sheet, f"no {modality.upper()}", (x + 16, top + height // 2 - 8), 13, FAINT)
            continue
        scale = min(height / picture.shape[0], (width - 4) / picture.shape[1])
        size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        y, at = top + (height - size[1]) // 2, x + (width - 4 - size[0]) // 2
        sheet[y : y + size[1], at : at + size[0]] = small
