"""One rig from a triplet to its tracks: detect, track, cut out, choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import RigConfig, StreamConfig
from runtime.feeds.preflight import Preflight, homographies
from runtime.sync.synchroniser import Triplet
from runtime.watching.crops import Sample, Sampler, registered_boxes
from runtime.watching.detectors.interface import Boxes, View
from runtime.watching.detectors.opening import MakeDetector
from runtime.watching.quality import Flaw
from runtime.watching.tracking import Box, Track, Tracker


@dataclass(frozen=True)
class TrackView:
    """One track at one instant."""

    track: Track
    """The track; it changes as time goes on."""
    boxes: dict[Modality, Box]
    """Its box in the pixels of each camera that shows it."""


@dataclass(frozen=True)
class RigStep:
    """What a rig found in one triplet."""

    rig: str
    """Name of the rig."""
    triplet: Triplet
    """The pictures."""
    detections: Boxes
    """(N, 4) boxes of everything that was detected, reference px."""
    views: list[TrackView]
    """The tracks in view."""
    samples: list[tuple[Track, Sample]]
    """Crops that are worth embedding."""
    ended: list[Track]
    """Tracks that are over."""
    glimpses: list[tuple[Track, Sample]] = field(default_factory=list)
    """First crops, of tracks that may turn out to be nothing."""
    flaws: Counter[Flaw] = field(default_factory=Counter)
    """Tracks that gave no crop in this instant, by what was wrong with it."""


class RigWatcher:
    """Finds and follows the subjects of one rig, triplet by triplet."""

    def __init__(
        self, rig: RigConfig, config: StreamConfig, before: Preflight, make_detector: MakeDetector
    ) -> None:
        """Watch ``rig``, of which ``before`` is known, with a detector of its own."""
        self.rig = rig
        self._min_visible = config.sample.min_visible
        self._homographies = homographies(rig)
        size = before.sizes[rig.reference]
        self._detector = make_detector(
            View(rig.reference, size, self._homographies, before.frame_rate)
        )
        self._detector.prime(before.backgrounds)
        self._tracker = Tracker(config.track, config.detect, before.frame_rate, size)
        self._sampler = Sampler(config.sample, rig.name, size)

    def step(self, triplet: Triplet, thrift: float = 1.0) -> RigStep:
        """Detect, track and sample in ``triplet``; samples are ``thrift`` times as far apart."""
        pictures = {m: frame.picture for m, frame in triplet.frames.items()}
        detections = self._detector.detect(pictures)
        tracked, ended = self._tracker.update(detections, triplet.time_s)
        sizes = {m: picture.shape[:2] for m, picture in pictures.items()}
        found = [TrackView(track, self._boxes(track.box, sizes)) for track in tracked]
        glimpses = self._glimpses(found, pictures)
        views = [view for view in found if view.track.confirmed]
        seen = [view.track for view in views]
        offered = [self._sampler.offer(v.track, seen, pictures, v.boxes, thrift) for v in views]
        samples = [(v.track, s) for v, s in zip(views, offered, strict=True) if s is not None]
        samples += self._last_samples(ended)
        name = self.rig.name
        flaws = self._sampler.flaws()
        return RigStep(name, triplet, detections.boxes, views, samples, ended, glimpses, flaws)

    def finish(self) -> tuple[list[Track], list[tuple[Track, Sample]]]:
        """Return the tracks that were still going on at the end, and their last samples."""
        ended = self._tracker.finish()
        return ended, self._last_samples(ended)

    def _boxes(self, box: Box, sizes: Mapping[Modality, tuple[int, int]]) -> dict[Modality, Box]:
        return registered_boxes(box, self._homographies, sizes, self._min_visible)

    def _glimpses(
        self, found: Sequence[TrackView], pictures: Mapping[Modality, Picture]
    ) -> list[tuple[Track, Sample]]:
        tracks = [view.track for view in found]
        looks = [self._sampler.glimpse(v.track, tracks, pictures, v.boxes) for v in found]
        return [(v.track, s) for v, s in zip(found, looks, strict=True) if s is not None]

    def _last_samples(self, ended: list[Track]) -> list[tuple[Track, Sample]]:
        return [(t, sample) for t in ended if (sample := self._sampler.finish(t)) is not None]
