"""Follow the detections of one rig from frame to frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import supervision
from trackers import ByteTrackTracker, OCSORTTracker, SORTTracker

from mambapro.contract import Subject
from runtime.config import DetectConfig, TrackConfig
from runtime.crossings import Crossings
from runtime.detection import Boxes, Detections

Box = tuple[float, float, float, float]


@dataclass
class Track:
    """One subject while it is in view of one rig."""

    number: int
    """Unique within the rig."""
    start_s: float
    """Time of the first box, s."""
    end_s: float
    """Time of the last box, s."""
    box: Box
    """Last box, reference px."""
    first_box: Box
    """Box at start_s, reference px."""
    confirmed: bool = False
    """It moved far enough to be a subject."""
    votes: Counter[Subject] = field(default_factory=Counter)
    """How often its box looked like which subject."""
    areas: list[float] = field(default_factory=list)
    """Area of each box, px."""
    guessed: bool = False
    """The last box is where it should be while it crosses another, not where it was seen."""

    @property
    def subject(self) -> Subject:
        """What most of its boxes looked like."""
        return self.votes.most_common(1)[0][0]


class Tracker:
    """Wraps a tracker of the `trackers` library: starts, ends and confirms tracks."""

    def __init__(
        self, config: TrackConfig, detect: DetectConfig, frame_rate: float, picture_px: int
    ) -> None:
        """Track on pictures of ``picture_px`` pixels that come ``frame_rate`` a second."""
        self._config, self._detect = config, detect
        self._picture_px = picture_px
        self._tracker = _make(config, frame_rate)
        self._active: dict[int, Track] = {}
        self._crossings = Crossings(config.crossing_s)

    def update(self, detections: Detections, time_s: float) -> tuple[list[Track], list[Track]]:
        """Return the tracks seen at ``time_s`` and the tracks that have ended."""
        apart, guesses = self._crossings.split(detections, time_s)
        count = len(apart.boxes)
        found = self._tracker.update(
            # Motion has no false-alarm score of its own; every box may start a track.
            supervision.Detections(
                xyxy=apart.boxes,
                confidence=np.ones(count, np.float32),
                data={"guessed": np.array([i in guesses for i in range(count)], bool)},
            ),
            timestamp=time_s,
        )
        guessed = found.data.get("guessed", ())
        seen = [
            self._continue(int(number), box, time_s, bool(guess))
            for box, number, guess in zip(found.xyxy, found.tracker_id, guessed, strict=True)
            if number >= 0
        ]
        ended = self._ended(time_s)
        self._crossings.forget(set(self._active))
        return [track for track in seen if track.confirmed], ended

    def finish(self) -> list[Track]:
        """Return the tracks that were still going on."""
        left = [track for track in self._active.values() if track.confirmed]
        self._active.clear()
        return left

    def _continue(self, number: int, found: Boxes, time_s: float, guessed: bool) -> Track:
        x0, y0, x1, y1 = found.tolist()
        box = (x0, y0, x1, y1)
        track = self._active.get(number)
        if track is None:
            track = Track(number, time_s, time_s, box, box)
            self._active[number] = track
        track.box, track.end_s, track.guessed = box, time_s, guessed
        if guessed:
            return track
        self._crossings.saw(number, found, time_s)
        width, height = box[2] - box[0], box[3] - box[1]
        track.areas.append(width * height)
        track.votes[self._looks_like(width, height)] += 1
        track.confirmed = track.confirmed or self._travelled(track)
        return track

    def _travelled(self, track: Track) -> bool:
        (ax, ay), (bx, by) = _middle(track.first_box), _middle(track.box)
        height = track.box[3] - track.box[1]
        return float(np.hypot(bx - ax, by - ay)) >= self._config.min_travel * height

    def _looks_like(self, width: float, height: float) -> Subject:
        wide = width >= self._detect.vehicle_aspect * height
        big = width * height >= self._detect.vehicle_area * self._picture_px
        return "vehicle" if wide and big else "person"

    def _ended(self, time_s: float) -> list[Track]:
        over = [n for n, t in self._active.items() if time_s - t.end_s > self._config.lost_s]
        return [track for n in over if (track := self._active.pop(n)).confirmed]


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _make(config: TrackConfig, frame_rate: float) -> Any:
    common: dict[str, Any] = {
        "frame_rate": frame_rate,
        "lost_track_buffer": round(config.lost_s * 30),  # the library counts at 30 a second
        "minimum_consecutive_frames": config.min_frames,
        "minimum_iou_threshold": config.min_iou,
    }
    if config.algorithm == "ocsort":
        return OCSORTTracker(**common)
    return (ByteTrackTracker if config.algorithm == "bytetrack" else SORTTracker)(**common)
