"""What a person looks at: the mosaic video, its best moment, and the sheet of matches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from mambapro.contract import Modality
from mambapro.files import replacing
from mambapro.preprocess import Picture
from runtime.config import RigConfig, VideoConfig
from runtime.feeds.preflight import Preflight
from runtime.figures.scoring import Scorer
from runtime.identity.identification import Sighting
from runtime.identity.recognition import Recogniser
from runtime.picture.drawing import EventLine, Mark, Mosaic, Row, State
from runtime.picture.sheet import match_sheet
from runtime.picture.video import VideoWriter
from runtime.picture.viewing import Viewing
from runtime.watching.rig import RigStep, TrackView

BRIGHT_LUMA: Final = 40.0
DARK_WORTH: Final = 0.4
EVENT_LINES: Final = 8
PAUSE_S: Final = 60.0
"""A live run without room for its video tries again after this long, s."""
MATCH_WORTH: Final = {"match": 3.0, "new": 1.0, "waiting": 0.2, "unidentified": 0.2}


log = logging.getLogger(__name__)


class Presentation:
    """Feeds the mosaic from what the rigs find and what is decided; draws nothing when off."""

    def __init__(
        self,
        config: VideoConfig,
        output: Path,
        recogniser: Recogniser,
        viewing: Viewing | None = None,
    ) -> None:
        """Write mosaic.mp4 or its segments, mosaic.png and matches.png into ``output``.

        ``viewing`` gets the same rows, whether there is a video or not.
        """
        self._config, self._output, self._recogniser = config, output, recogniser
        self._viewing = viewing
        self._known: dict[str, Preflight] = {}
        self._reel: Reel | None = None
        self._rows: dict[str, Row] = {}
        self._events: deque[EventLine] = deque(maxlen=EVENT_LINES)
        self._next_s = -np.inf
        self._cut_s = -np.inf

    def begin(self, rig: RigConfig, before: Preflight) -> None:
        """Make room for ``rig`` from the next drawing on."""
        self._known[rig.name] = before
        self._cut_s = -np.inf
        if self._viewing is not None:
            self._viewing.begin(rig.name, before.sizes)

    def end(self, rig: str) -> None:
        """Show ``rig`` no longer."""
        del self._known[rig]
        self._rows.pop(rig, None)
        self._cut_s = -np.inf
        if self._viewing is not None:
            self._viewing.end(rig)

    def show(self, step: RigStep) -> None:
        """Show what a rig found from the next drawing on."""
        if not self._config.enabled and self._viewing is None:
            return
        triplet = step.triplet
        row = Row(
            step.rig,
            triplet.time_s,
            triplet.skew_s if len(triplet.frames) > 1 else None,
            {m: frame.picture for m, frame in triplet.frames.items()},
            [self._mark(step.rig, view) for view in step.views],
        )
        self._rows[step.rig] = row
        if self._viewing is not None:
            self._viewing.show(row)

    def tell(self, sightings: Sequence[Sighting]) -> None:
        """List decisions below the pictures."""
        self._events.extend(_line(sighting) for sighting in sightings)

    def draw(self, time_s: float) -> None:
        """Hand the next picture of the mosaic to the writer when it is due."""
        if not self._config.enabled or time_s < self._next_s - 0.01:
            return
        try:
            if time_s >= self._cut_s:
                self._start_reel(time_s)
            if self._reel is not None:
                period_s = 1 / self._reel.fps
                self._next_s = max(self._next_s + period_s, time_s + period_s / 2)
                self._reel.put(dict(self._rows), list(self._events))
        except OSError as error:
            if self._config.segment_s is None:
                raise
            log.error("no video for %.0f s: %s", PAUSE_S, error)  # a live run goes on without
            self._reel, self._next_s, self._cut_s = None, time_s + PAUSE_S, time_s + PAUSE_S

    def finish(self, scorer: Scorer | None) -> None:
        """Complete the files."""
        if self._reel is not None:
            self._reel.close()
            if self._reel.best is not None and self._config.segment_s is None:
                _write_png(self._output / "mosaic.png", self._reel.best)
        sheet = match_sheet(self._recogniser.sightings, scorer)
        if sheet is not None:
            _write_png(self._output / "matches.png", sheet)

    def abandon(self) -> None:
        """Leave the files of an earlier run as they are."""
        if self._reel is not None:
            self._reel.abandon()

    def _start_reel(self, time_s: float) -> None:
        reel, self._reel = self._reel, None
        if reel is not None:
            reel.close()
        segment_s = self._config.segment_s
        if segment_s is not None:
            for old in sorted(self._output.glob("mosaic-*.mp4"))[: -self._config.keep]:
                old.unlink()
        name = "mosaic.mp4" if segment_s is None else f"mosaic-{file_time(time_s)}.mp4"
        self._cut_s = np.inf if segment_s is None else time_s + segment_s
        rate = max(known.frame_rate for known in self._known.values())
        sizes = {name: known.sizes for name, known in self._known.items()}
        self._reel = Reel(self._output / name, sizes, min(self._config.fps, rate), self._config)

    def _mark(self, rig: str, view: TrackView) -> Mark:
        decision = self._recogniser.decision(rig, view.track)
        if decision is None:
            return Mark(view.track.number, view.boxes, None, None, "waiting")
        state: State = "match" if decision.known else "new"
        score = decision.score if decision.known else None
        return Mark(view.track.number, view.boxes, decision.identity, score, state)


class Reel:
    """One file of the mosaic; its layout is that of the rigs when it begins."""

    def __init__(
        self,
        path: Path,
        sizes: Mapping[str, Mapping[Modality, tuple[int, int]]],
        fps: float,
        config: VideoConfig,
    ) -> None:
        """Write ``path`` at ``fps``; ``sizes`` are (H, W) by rig and modality."""
        self.fps: Final = fps
        self.best: Picture | None = None
        """The picture with most to see."""
        self._best_worth = -1.0
        self._mosaic = Mosaic(config.width_px, sizes)
        size = (self._mosaic.height, self._mosaic.width)
        self._writer = VideoWriter(path, size, fps, config.crf)

    def put(self, rows: Mapping[str, Row], events: Sequence[EventLine]) -> None:
        """Append a picture; waits while the encoder is behind."""
        self._writer.put(partial(self._compose, rows, events))

    def close(self) -> None:
        """Finish the file; raises the OSError that ended it, such as a full disk."""
        self._writer.close()

    def abandon(self) -> None:
        """Leave what was at the path before."""
        self._writer.abandon()

    def _compose(self, rows: Mapping[str, Row], events: Sequence[EventLine]) -> Picture:
        """Draw one picture; runs in the writer's thread."""
        for row in rows.values():
            self._mosaic.update(row)
        picture = self._mosaic.draw(events)
        worth = _worth(list(rows.values()))
        if worth > self._best_worth:
            self._best_worth, self.best = worth, picture
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


def file_time(time_s: float) -> str:
    """Return ``time_s``, Unix seconds, for a file's name: 20261125T042800Z."""
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def _write_png(path: Path, picture: Picture) -> None:
    with replacing(path) as aside:
        Image.fromarray(picture).save(aside)
