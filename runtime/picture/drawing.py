"""Draw what the rigs see: one row a rig, RGB, NIR and TIR side by side, boxes and names on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mambapro.contract import MODALITIES, Modality
from mambapro.preprocess import Picture
from runtime.watching.tracking import Box

Colour = tuple[int, int, int]
State = Literal["waiting", "new", "match", "unidentified"]

PAGE: Final[Colour] = (14, 17, 22)
PANEL: Final[Colour] = (27, 32, 40)
INK: Final[Colour] = (235, 238, 242)
FAINT: Final[Colour] = (139, 148, 160)
WAITING: Final[Colour] = (170, 176, 186)
NEW: Final[Colour] = (255, 184, 77)
MATCH: Final[Colour] = (92, 219, 149)
IDENTITY_COLOURS: Final[tuple[Colour, ...]] = (
    (92, 200, 255), (255, 138, 128), (174, 234, 120), (255, 213, 79), (186, 147, 255),
    (255, 145, 214), (77, 225, 205), (255, 171, 94), (144, 164, 255), (220, 220, 130),
)  # fmt: skip
TITLES: Final[dict[Modality, str]] = {"rgb": "RGB", "nir": "NIR", "tir": "TIR"}

MARGIN: Final = 16
GAP: Final = 8
HEADER: Final = 52
RIG_HEADER: Final = 34
EVENTS: Final = 4
EVENT_ROW: Final = 24
ABSENT_ASPECT: Final = 0.5
"""Width over height of the panel of a camera that the rig does not have."""


@dataclass(frozen=True)
class Mark:
    """One track as it is drawn."""

    track: int
    """Number of the track."""
    boxes: dict[Modality, Box]
    """Boxes in each camera's pixels."""
    identity: str | None
    """Name, when decided."""
    score: float | None
    """Similarity of a match."""
    state: State
    """How far the decision is."""
    name: str | None = None
    """What people call the identity."""


@dataclass(frozen=True)
class Row:
    """One rig as it is drawn."""

    rig: str
    """Name of the rig."""
    time_s: float
    """Time of the triplet."""
    skew_s: float | None
    """Skew within the triplet; None with fewer than two frames."""
    pictures: dict[Modality, Picture]
    """Pictures by modality; a missing one is absent."""
    marks: list[Mark]
    """Tracks in view."""


@dataclass(frozen=True)
class EventLine:
    """One line of the list of decisions."""

    time_s: float
    """When."""
    identity: str
    """Who."""
    known: bool
    """Whether known before."""
    text: str
    """What happened."""


class Mosaic:
    """Composes rows of panels to pictures of one size."""

    def __init__(self, width: int, sizes: Mapping[str, Mapping[Modality, tuple[int, int]]]) -> None:
        """Lay out panels ``width`` px wide in all; ``sizes`` are (H, W) by rig and modality."""
        self.width = width - width % 2
        room = self.width - 2 * MARGIN
        self._panels = {rig: _panel_widths(cameras, room) for rig, cameras in sizes.items()}
        rows = sum(height + RIG_HEADER for height, _ in self._panels.values())
        footer = EVENTS * EVENT_ROW + 2 * GAP
        height = HEADER + rows + GAP * len(sizes) + footer + MARGIN // 2
        self.height = height + height % 2
        self._rows: dict[str, Row] = {}
        self._page = np.full((self.height, self.width, 3), PAGE, np.uint8)
        self._draw_header(self._page)

    def update(self, row: Row) -> None:
        """Show ``row`` from now on."""
        self._rows[row.rig] = row

    def draw(self, events: Sequence[EventLine]) -> Picture:
        """Return the mosaic (H, W, 3) uint8."""
        canvas: Picture = self._page.copy()
        top = HEADER
        for rig, (height, widths) in self._panels.items():
            self._draw_rig(canvas, rig, top, height, widths)
            top += RIG_HEADER + height + GAP
        self._draw_events(canvas, top + GAP, events)
        return canvas

    def _draw_header(self, canvas: Picture) -> None:
        put_text(canvas, "MambaPro", (MARGIN, 14), 22, INK, bold=True)
        put_text(canvas, "re-identification across rigs", (MARGIN + 122, 20), 15, FAINT)
        right = self.width - MARGIN
        for label, colour in (("MATCH", MATCH), ("NEW", NEW), ("COLLECTING", WAITING)):
            right -= text_width(label, 13)
            put_text(canvas, label, (right, 21), 13, FAINT)
            right -= 20
            cv2.rectangle(canvas, (right, 22), (right + 13, 33), colour, -1)
            right -= 18

    def _draw_rig(
        self, canvas: Picture, rig: str, top: int, height: int, widths: dict[Modality, int]
    ) -> None:
        row = self._rows.get(rig)
        put_text(canvas, rig, (MARGIN, top + 7), 17, INK, bold=True)
        if row is not None:
            status = f"{clock(row.time_s)}"
            if row.skew_s is not None:
                status += f"   skew {row.skew_s * 1e3:4.1f} ms"
            put_text(canvas, status, (MARGIN + text_width(rig, 17) + 16, top + 9), 14, FAINT)
        above = top + RIG_HEADER
        _draw_panels(canvas[above : above + height, MARGIN:], widths, row)

    def _draw_events(self, canvas: Picture, top: int, events: Sequence[EventLine]) -> None:
        for number, event in enumerate(list(events)[-EVENTS:][::-1]):
            y = top + number * EVENT_ROW
            colour = MATCH if event.known else NEW
            put_text(canvas, clock(event.time_s), (MARGIN, y), 14, FAINT)
            put_text(canvas, "MATCH" if event.known else "NEW", (MARGIN + 78, y), 14, colour)
            put_text(canvas, event.identity, (MARGIN + 142, y), 14, identity_colour(event.identity))
            put_text(canvas, event.text, (MARGIN + 190, y), 14, INK)


class Strip:
    """Composes one rig's panels, and nothing around them."""

    def __init__(self, width: int, sizes: Mapping[Modality, tuple[int, int]]) -> None:
        """Lay out panels ``width`` px wide in all; ``sizes`` are (H, W) by modality."""
        height, self._widths = _panel_widths(sizes, width)
        self._page = np.full((height, width, 3), PAGE, np.uint8)

    def draw(self, row: Row) -> Picture:
        """Return the panels (H, W, 3) uint8."""
        canvas: Picture = self._page.copy()
        _draw_panels(canvas, self._widths, row)
        return canvas


def _draw_panels(view: Picture, widths: Mapping[Modality, int], row: Row | None) -> None:
    """Fill ``view`` (h, w, 3) from the left with the cameras of one rig."""
    left = 0
    for modality in MODALITIES:
        _draw_panel(view[:, left : left + widths[modality]], modality, row)
        left += widths[modality] + GAP


def _draw_panel(view: Picture, modality: Modality, row: Row | None) -> None:
    """Fill ``view`` (h, w, 3) with one camera's picture and the boxes on it."""
    picture = None if row is None else row.pictures.get(modality)
    height, width = view.shape[:2]
    if picture is None or row is None:
        view[:] = PANEL
        label = f"{TITLES[modality]} missing"
        put_text(view, label, ((width - text_width(label, 18)) // 2, height // 2 - 12), 18, FAINT)
        return
    # Bilinear is seven times faster and as good above half size.
    halved = picture.shape[1] > 2 * width
    rule = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    cv2.resize(picture, (width, height), dst=view, interpolation=rule)
    scale = np.array([width / picture.shape[1], height / picture.shape[0]] * 2)
    for mark in sorted(row.marks, key=lambda mark: mark.identity is not None):
        if modality in mark.boxes:
            _draw_mark(view, mark, np.multiply(mark.boxes[modality], scale).round().astype(int))
    put_label(view, TITLES[modality], (8, 8), 13, INK, PAGE)


def _draw_mark(view: Picture, mark: Mark, box: npt.NDArray[np.int64]) -> None:
    colour = WAITING if mark.identity is None else identity_colour(mark.identity)
    x0, y0, x1, y1 = box.tolist()
    cv2.rectangle(view, (x0, y0), (x1, y1), PAGE, 3, cv2.LINE_AA)
    cv2.rectangle(view, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
    if mark.identity is None:
        put_label(view, f"#{mark.track}", (x0 - 1, max(0, y0 - 17)), 11, PAGE, colour)
        return
    text = (mark.name or mark.identity) + (f"  {mark.score:.2f}" if mark.score is not None else "")
    tag, ground = ("MATCH", MATCH) if mark.state == "match" else ("NEW", NEW)
    width = text_width(text, 13) + text_width(tag, 11) + 22
    x = int(np.clip(x0 - 1, 0, max(0, view.shape[1] - width)))
    y = y0 - 21 if y0 >= 21 else min(y1 + 2, view.shape[0] - 20)
    put_label(view, text, (x, y), 13, PAGE, colour)
    put_label(view, tag, (x + text_width(text, 13) + 11, y), 11, PAGE, ground, height=19)


def clock(time_s: float) -> str:
    """Return minutes, seconds and tenths."""
    tenths = round(time_s * 10)
    return f"{tenths // 600:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def identity_colour(identity: str) -> Colour:
    """Return a colour that stays with an identity such as P12."""
    number = int(identity[1:]) + (5 if identity[0] == "V" else 0)
    return IDENTITY_COLOURS[number % len(IDENTITY_COLOURS)]


def put_label(
    view: Picture,
    text: str,
    at: tuple[int, int],
    size: int,
    ink: Colour,
    ground: Colour,
    height: int | None = None,
) -> None:
    """Write ``text`` on a filled box; ``at`` is its left upper corner."""
    x, y = at
    tall = height or size + 6
    cv2.rectangle(view, (x, y), (x + text_width(text, size) + 10, y + tall), ground, -1)
    put_text(view, text, (x + 5, y + (tall - size) // 2 - 1), size, ink)


def put_text(
    view: Picture, text: str, at: tuple[int, int], size: int, ink: Colour, bold: bool = False
) -> None:
    """Write ``text``; ``at`` is its left upper corner, ``size`` its height in px."""
    x, y = at
    cover = _rendered(text, size, bold)
    h = max(0, min(cover.shape[0], view.shape[0] - y))
    w = max(0, min(cover.shape[1], view.shape[1] - x))
    if h == 0 or w == 0 or x < 0 or y < 0:
        return
    patch = view[y : y + h, x : x + w]
    share = cover[:h, :w, None]
    patch[:] = (patch * (1 - share) + np.array(ink, np.float32) * share).astype(np.uint8)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Return how wide ``text`` is, px."""
    return round(_font(size).getlength(text))


@lru_cache(maxsize=2048)
def _rendered(text: str, size: int, bold: bool) -> npt.NDArray[np.float32]:
    """Return how much each pixel is covered by ``text``, (h, w) 0 to 1."""
    image = Image.new("L", (text_width(text, size) + 4, round(size * 1.5)))
    ImageDraw.Draw(image).text(
        (0, 0), text, fill=255, font=_font(size), stroke_width=0.4 if bold else 0
    )
    return np.asarray(np.asarray(image) / 255, np.float32)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _panel_widths(
    sizes: Mapping[Modality, tuple[int, int]], width: int
) -> tuple[int, dict[Modality, int]]:
    """Return the common height of a rig's panels and the width of each; ``width`` is of all."""
    aspects = {m: sizes[m][1] / sizes[m][0] if m in sizes else ABSENT_ASPECT for m in MODALITIES}
    room = width - GAP * (len(MODALITIES) - 1)
    height = int(room / sum(aspects.values()))
    widths = {m: int(height * aspects[m]) for m in MODALITIES}
    widths["tir"] += room - sum(widths.values())
    return height, widths
