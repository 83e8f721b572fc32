"""Follow the detections of one rig from frame to frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import supervision
from trackers import ByteTrackTracker, OCSORTTracker, SORTTracker

from mambapro.contract import Subject
from runtime.config import DetectConfig, TrackConfig
from runtime.watching.crossings import Crossings
from runtime.watching.detection import Boxes, Detections

EDGE_PX: Final = 3
GONE_S: Final = 0.25
"""A track that was last seen at the edge of the picture and not for this long has left."""
LEAVING_FRAMES: Final = 15
LEAVING: Final = 0.3
BACK: Final = 1.6
"""So has one that shrank to LEAVING of its largest area at the edge and then grew BACK-fold."""
CLEAR_VOTES: Final = 10

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
    travel: float = 0.0
    """Farthest that it was from where it began, as a share of its height then."""
    confirmed: bool = False
    """It moved far enough to be a subject."""
    glimpsed: bool = False
    """Its first good crop was taken."""
    peeked: bool = False
    """So was that or another, which was not clear."""
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
        self, config: TrackConfig, detect: DetectConfig, frame_rate: float, size: tuple[int, int]
    ) -> None:
        """Track on pictures of ``size`` = (H, W) px that come ``frame_rate`` a second."""
        self._config, self._detect = config, detect
        self._size = size
        self._count = 0
        self._gone: list[Track] = []
        self._tracker = _make(config, frame_rate)
        self._active: dict[int, Track] = {}
        self._crossings = Crossings(config.crossing_s)

    def update(self, detections: Detections, time_s: float) -> tuple[list[Track], list[Track]]:
        """Return the tracks seen at ``time_s``, confirmed or not, and the tracks that have ended.

        Of those that ended, only confirmed ones are told.
        """
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
        return seen, ended

    def finish(self) -> list[Track]:
        """Return the tracks that were still going on."""
        left = [track for track in self._active.values() if track.confirmed]
        self._active.clear()
        return left

    def _continue(self, number: int, found: Boxes, time_s: float, guessed: bool) -> Track:
        x0, y0, x1, y1 = found.tolist()
        box = (x0, y0, x1, y1)
        clear = self._whole(box) and not guessed
        track = self._active.get(number)
        if track is not None and (
            self._left(track, box, time_s)
            or (clear and self._crossings.strayed(number, found, time_s))
        ):
            self._gone.append(self._active.pop(number))
            self._crossings.drop(number)
            track = None
        if track is None:
            track = Track(self._count, time_s, time_s, box, box)
            self._active[number] = track
            self._count += 1
        track.box, track.end_s, track.guessed = box, time_s, guessed
        if clear:
            self._crossings.saw(number, found, time_s)
        width, height = box[2] - box[0], box[3] - box[1]
        track.areas.append(width * height)
        # A box that is cut off or guessed says little about what it is.
        track.votes[self._looks_like(width, height)] += CLEAR_VOTES if clear else 1
        track.travel = max(track.travel, _travelled(track))
        track.confirmed = track.travel >= self._config.min_travel
        return track

    def _left(self, track: Track, box: Box, time_s: float) -> bool:
        """Return whether a track went out of the picture: who comes in there is somebody else."""
        if self._whole(track.box):
            return False
        least = min(track.areas[-LEAVING_FRAMES:])
        leaving = least < LEAVING * max(track.areas)
        back = _area(box) > max(BACK * least, 0.2 * max(track.areas))
        return time_s - track.end_s > GONE_S or (leaving and back)

    def _whole(self, box: Box) -> bool:
        """Return whether ``box`` is clear of the edge of the picture."""
        (x0, y0, x1, y1), (height, width) = box, self._size
        return x0 > EDGE_PX and y0 > EDGE_PX and x1 < width - EDGE_PX and y1 < height - EDGE_PX

    def _looks_like(self, width: float, height: float) -> Subject:
        wide = width >= self._detect.vehicle_aspect * height
        big = width * height >= self._detect.vehicle_area * self._size[0] * self._size[1]
        return "vehicle" if wide and big else "person"

    def _ended(self, time_s: float) -> list[Track]:
        over = [n for n, t in self._active.items() if time_s - t.end_s > self._config.lost_s]
        gone = [*self._gone, *(self._active.pop(n) for n in over)]
        self._gone = []
        return [track for track in gone if track.confirmed]


def _travelled(track: Track) -> float:
    (ax, ay), (bx, by) = _middle(track.first_box), _middle(track.box)
    return float(np.hypot(bx - ax, by - ay)) / (track.box[3] - track.box[1])


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


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
