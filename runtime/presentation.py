"""What a person looks at: the mosaic video, its best moment, and the sheet of matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from mambapro.contract import Modality
from mambapro.files import replacing
from mambapro.preprocess import Picture
from runtime.config import VideoConfig
from runtime.drawing import EventLine, Mark, Mosaic, Row, State
from runtime.identification import Sighting
from runtime.recognition import Recogniser
from runtime.rig import RigStep, TrackView
from runtime.scoring import Scorer
from runtime.sheet import match_sheet
from runtime.video import VideoWriter

BRIGHT_LUMA: Final = 40.0
DARK_WORTH: Final = 0.4
MATCH_WORTH: Final = {"match": 3.0, "new": 1.0, "waiting": 0.2, "unidentified": 0.2}


class Presentation:
    """Feeds the mosaic from what the rigs find and what is decided; draws nothing when off."""

    def __init__(
        self,
        config: VideoConfig,
        output: Path,
        sizes: Mapping[str, Mapping[Modality, tuple[int, int]]],
        frame_rate: float,
        recogniser: Recogniser,
    ) -> None:
        """Write mosaic.mp4, mosaic.png and matches.png into ``output``.

        ``sizes`` are (H, W) by rig and modality; ``frame_rate`` is the fastest rig's.
        """
        self._config, self._output, self._recogniser = config, output, recogniser
        self._writer: VideoWriter | None = None
        self._rows: dict[str, Row] = {}
        self._events: list[EventLine] = []
        self._next_s = -np.inf
        self._best: tuple[float, Picture | None] = (-1.0, None)
        self._fps = min(config.fps, frame_rate)
        if config.enabled:
            self._mosaic = Mosaic(config.width_px, sizes)
            size = (self._mosaic.height, self._mosaic.width)
            self._writer = VideoWriter(output / "mosaic.mp4", size, self._fps, config.crf)

    def show(self, step: RigStep) -> None:
        """Show what a rig found from the next drawing on."""
        if self._writer is None:
            return
        triplet = step.triplet
        self._rows[step.rig] = Row(
            step.rig,
            triplet.time_s,
            triplet.skew_s if len(triplet.frames) > 1 else None,
            {m: frame.picture for m, frame in triplet.frames.items()},
            [self._mark(step.rig, view) for view in step.views],
        )

    def tell(self, sightings: Sequence[Sighting]) -> None:
        """List decisions below the pictures."""
        self._events += [_line(sighting) for sighting in sightings]

    def draw(self, time_s: float) -> None:
        """Hand the next picture of the mosaic to the writer when it is due."""
        if self._writer is None or time_s < self._next_s - 0.01:
            return
        period_s = 1 / self._fps
        self._next_s = max(self._next_s + period_s, time_s + period_s / 2)
        self._writer.put(partial(self._compose, dict(self._rows), self._events[-8:]))

    def finish(self, scorer: Scorer | None) -> None:
        """Complete the files."""
        if self._writer is not None:
            self._writer.close()
            if self._best[1] is not None:
                _write_png(self._output / "mosaic.png", self._best[1])
        sheet = match_sheet(self._recogniser.sightings, scorer)
        if sheet is not None:
            _write_png(self._output / "matches.png", sheet)

    def abandon(self) -> None:
        """Leave the files of an earlier run as they are."""
        if self._writer is not None:
            self._writer.abandon()

    def _mark(self, rig: str, view: TrackView) -> Mark:
        decision = self._recogniser.decision(rig, view.track)
        if decision is None:
            return Mark(view.track.number, view.boxes, None, None, "waiting")
        state: State = "match" if decision.known else "new"
        score = decision.score if decision.known else None
        return Mark(view.track.number, view.boxes, decision.identity, score, state)

    def _compose(self, rows: Mapping[str, Row], events: Sequence[EventLine]) -> Picture:
        """Draw one picture; runs in the writer's thread."""
        for row in rows.values():
            self._mosaic.update(row)
        picture = self._mosaic.draw(events)
        worth = _worth(list(rows.values()))
        if worth > self._best[0]:
            self._best = (worth, picture)
        return picture


def _worth(rows: Sequence[Row]) -> float:
    """Return how much there is to see: matches first, by daylight, at several rigs at once."""
    shown = [
        min(12.0, sum(MATCH_WORTH[mark.state] * len(mark.boxes) for mark in row.marks))
        * (1.0 if _bright(row) else DARK_WORTH)
        for row in rows
    ]
    return sum(shown) + 4.0 * sum(worth > 0 for worth in shown)


def _bright(row: Row) -> bool:
    picture = row.pictures.get("rgb")
    return picture is not None and float(picture[::16, ::16].mean()) > BRIGHT_LUMA


def _line(sighting: Sighting) -> EventLine:
    decision = sighting.decision
    assert decision is not None
    seen = ", ".join(m.upper() for m in sighting.modalities())
    if decision.match is None:
        text = f"{sighting.subject} at {sighting.rig}: first seen   ({seen})"
    else:
        before = decision.match.template.payload
        text = (
            f"{sighting.subject} at {sighting.rig}: seen before at {before['rig']}, "
            f"similarity {decision.score:.2f}   ({seen})"
        )
    return EventLine(sighting.end_s, decision.identity, decision.known, text)


def _write_png(path: Path, picture: Picture) -> None:
    with replacing(path) as aside:
        Image.fromarray(picture).save(aside)
