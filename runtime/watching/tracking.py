"""Follow the detections of one rig from frame to frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import supervision
from trackers import (
    BoTSORTTracker,
    ByteTrackTracker,
    CBIoUTracker,
    OCSORTTracker,
    SORTTracker,
)

from mambapro.contract import SUBJECTS, Subject
from runtime.config import DetectConfig, TrackConfig
from runtime.watching.crossings import Crossings
from runtime.watching.detectors.interface import Boxes, Detections, Scores

EDGE_PX: Final = 3
GONE_S: Final = 0.25
"""A track that was last seen at the edge of the picture and not for this long has left."""
LEAVING_FRAMES: Final = 15
LEAVING: Final = 0.3
BACK: Final = 1.6
"""So has one that shrank to LEAVING of its largest area at the edge and then grew BACK-fold."""
CLEAR_VOTES: Final = 10
MOVED: Final = 0.5
"""What motion finds counts once it moved by this share of its height, unless the config says."""

Key = tuple[Subject | None, int]
"""What a detector says that a track is, and the library's number among those."""
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
    """How often it was which subject, by what the detector said or its box looked like."""
    areas: list[float] = field(default_factory=list)
    """Area of each box, px."""
    guessed: bool = False
    """The last box is where it should be while it crosses another, not where it was seen."""

    @property
    def subject(self) -> Subject:
        """What it was most often."""
        return self.votes.most_common(1)[0][0]


class Tracker:
    """Wraps a tracker of the `trackers` library: starts, ends and confirms tracks.

    Persons and vehicles are followed apart, each by a tracker of its own, where the detector tells
    them; what motion finds is followed together.
    """

    def __init__(
        self, config: TrackConfig, detect: DetectConfig, frame_rate: float, size: tuple[int, int]
    ) -> None:
        """Track on pictures of ``size`` = (H, W) px that come ``frame_rate`` a second."""
        self._config, self._detect = config, detect
        self._size, self._frame_rate = size, frame_rate
        self._count = 0
        self._gone: list[Track] = []
        self._trackers: dict[Subject | None, Any] = {}
        self._active: dict[Key, Track] = {}
        self._crossings = Crossings(config.crossing_s)

    def update(self, detections: Detections, time_s: float) -> tuple[list[Track], list[Track]]:
        """Return the tracks seen at ``time_s``, confirmed or not, and the tracks that have ended.

        Of those that ended, only confirmed ones are told.
        """
        groups = self._groups(detections, time_s)
        for subject in groups:
            if subject not in self._trackers:
                self._trackers[subject] = _make(self._config, self._frame_rate)
        seen = []
        for subject, tracker in self._trackers.items():
            found = tracker.update(groups.get(subject, _nobody()), timestamp=time_s)
            guessed = found.data.get("guessed", ())
            seen += [
                self._continue((subject, int(number)), box, time_s, bool(guess))
                for box, number, guess in zip(found.xyxy, found.tracker_id, guessed, strict=True)
                if number >= 0
            ]
        ended = self._ended(time_s)
        self._crossings.forget({number for subject, number in self._active if subject is None})
        return seen, ended

    def finish(self) -> list[Track]:
        """Return the tracks that were still going on."""
        left = [track for track in self._active.values() if track.confirmed]
        self._active.clear()
        return left

    def _groups(
        self, detections: Detections, time_s: float
    ) -> dict[Subject | None, supervision.Detections]:
        """Return detections by subject; those of motion in one group, its blobs split."""
        if detections.subjects is None:
            apart, guesses = self._crossings.split(detections, time_s)
            guessed = np.array([i in guesses for i in range(len(apart.boxes))], bool)
            return {None: _for_library(apart.boxes, apart.scores, guessed)}
        told = np.array(detections.subjects, object)
        return {
            subject: _for_library(
                detections.boxes[told == subject],
                detections.scores[told == subject],
                np.zeros(np.count_nonzero(told == subject), bool),
            )
            for subject in SUBJECTS
        }

    def _continue(self, key: Key, found: Boxes, time_s: float, guessed: bool) -> Track:
        x0, y0, x1, y1 = found.tolist()
        box = (x0, y0, x1, y1)
        subject, number = key
        clear = self._whole(box) and not guessed
        track = self._active.get(key)
        if track is not None and (
            self._left(track, box, time_s)
            or (subject is None and clear and self._crossings.strayed(number, found, time_s))
        ):
            self._gone.append(self._active.pop(key))
            self._crossings.drop(number)
            track = None
        if track is None:
            track = Track(self._count, time_s, time_s, box, box)
            self._active[key] = track
            self._count += 1
        track.box, track.end_s, track.guessed = box, time_s, guessed
        if subject is None and clear:
            self._crossings.saw(number, found, time_s)
        width, height = box[2] - box[0], box[3] - box[1]
        track.areas.append(width * height)
        # A box that is cut off or guessed says little about what it is.
        track.votes[subject or self._looks_like(width, height)] += CLEAR_VOTES if clear else 1
        track.travel = max(track.travel, _travelled(track))
        track.confirmed = track.travel >= self._min_travel(subject)
        return track

    def _min_travel(self, subject: Subject | None) -> float:
        configured = self._config.min_travel
        if configured is not None:
            return configured
        return MOVED if subject is None else 0.0

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


def _for_library(
    boxes: Boxes, scores: Scores, guessed: npt.NDArray[np.bool_]
) -> supervision.Detections:
    return supervision.Detections(xyxy=boxes, confidence=scores, data={"guessed": guessed})


def _nobody() -> supervision.Detections:
    return _for_library(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, bool))


def _make(config: TrackConfig, frame_rate: float) -> Any:
    """Return a tracker of the library, whose trackers name the same things differently."""
    common: dict[str, Any] = {
        "frame_rate": frame_rate,
        "lost_track_buffer": round(config.lost_s * 30),  # the library counts at 30 a second
        "minimum_consecutive_frames": config.min_frames,
    }
    least: dict[str, Any] = {"minimum_iou_threshold": config.min_iou}
    start: dict[str, Any] = {"track_activation_threshold": config.start_score}
    if config.algorithm == "sort":
        return SORTTracker(**common, **least, **start)
    common["high_conf_det_threshold"] = config.high_score
    if config.algorithm == "ocsort":
        return OCSORTTracker(**common, **least)
    if config.algorithm == "bytetrack":
        return ByteTrackTracker(**common, **least, **start)
    stages: dict[str, Any] = {
        "minimum_iou_threshold_first_assoc": config.min_iou,
        "minimum_iou_threshold_unconfirmed_assoc": config.min_iou,
        "instant_first_frame_activation": False,
    }
    if config.algorithm == "cbiou":
        return CBIoUTracker(**common, **start, **stages)
    return BoTSORTTracker(**common, **start, **stages, enable_cmc=False)  # cameras stand still
