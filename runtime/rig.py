"""One rig from its cameras to its tracks: read, synchronise, detect, track, cut out, choose."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mambapro.cli import InputError
from mambapro.contract import Modality
from runtime.config import RigConfig, StreamConfig
from runtime.crops import Sample, Sampler, registered_boxes
from runtime.detection import Boxes, Detector
from runtime.preflight import Preflight, homographies
from runtime.sources import End, Failure, FileSource, Frame, open_source
from runtime.synchroniser import Synchroniser, Triplet
from runtime.tracking import Box, Track, Tracker

READ_S: Final = 0.05
ENDED_EARLY_S: Final = 0.2

log = logging.getLogger(__name__)


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
    """(N, 4) boxes of everything that moved, reference px."""
    views: list[TrackView]
    """The tracks in view."""
    samples: list[tuple[Track, Sample]]
    """Crops that are worth embedding."""
    ended: list[Track]
    """Tracks that are over."""


class RigWatcher:
    """Watches one rig; owns its sources. ``upcoming`` is the next triplet, ``step`` works on it."""

    def __init__(self, rig: RigConfig, config: StreamConfig, before: Preflight) -> None:
        """Open the cameras of ``rig``, of which ``before`` is known."""
        self.rig = rig
        self._config, self._before = config, before
        self._homographies = homographies(rig)
        size = before.sizes[rig.reference]
        self._detector = Detector(
            config.detect, rig.reference, size, self._homographies, before.frame_rate
        )
        self._detector.prime(before.backgrounds)
        self._tracker = Tracker(config.track, config.detect, before.frame_rate, size)
        self._sampler = Sampler(config.sample, rig.name, size)
        self.synchroniser = Synchroniser(
            tuple(rig.cameras),
            rig.reference,
            {m: offset.seconds for m, offset in before.offsets.items()},
            config.sync.tolerance_s,
            config.sync.buffer_frames,
        )
        self._ended_s: dict[Modality, float] = {}
        self._last_s: dict[Modality, float] = {}
        self._stalled: set[Modality] = set()
        self._sources: dict[Modality, FileSource] = {}
        try:
            for modality, camera in rig.cameras.items():
                self._sources[modality] = open_source(camera.uri)
        except BaseException:
            self.close()
            raise
        self.upcoming: Triplet | None = None

    def advance(self) -> bool:
        """Read up to the next triplet; return whether there is one."""
        quiet_since = time.monotonic()
        while (triplet := self._pop()) is None:
            wanted = self._wanted()
            if not wanted:  # all have ended, but for those that were given up
                self.upcoming = None
                return False
            if any([self._read(m, READ_S) for m in wanted]):  # noqa: C419 ask every camera
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > self._config.sync.timeout_s:
                self._give_up_on(wanted)
        self.upcoming = triplet
        self._say_what_ended(triplet)
        return True

    def step(self) -> RigStep:
        """Detect, track and sample in the upcoming triplet."""
        triplet = self.upcoming
        assert triplet is not None
        pictures = {m: frame.picture for m, frame in triplet.frames.items()}
        detections = self._detector.detect(pictures)
        seen, ended = self._tracker.update(detections, triplet.time_s)
        sizes = {m: picture.shape[:2] for m, picture in pictures.items()}
        views = [TrackView(track, self._boxes(track.box, sizes)) for track in seen]
        samples = [
            (view.track, sample)
            for view in views
            if (sample := self._sampler.offer(view.track, seen, pictures, view.boxes)) is not None
        ]
        samples += self._last_samples(ended)
        return RigStep(self.rig.name, triplet, detections.boxes, views, samples, ended)

    def finish(self) -> tuple[list[Track], list[tuple[Track, Sample]]]:
        """Return the tracks that were still going on at the end, and their last samples."""
        ended = self._tracker.finish()
        return ended, self._last_samples(ended)

    def close(self) -> None:
        """Stop the decoders."""
        for source in self._sources.values():
            source.close()

    def _boxes(self, box: Box, sizes: Mapping[Modality, tuple[int, int]]) -> dict[Modality, Box]:
        return registered_boxes(box, self._homographies, sizes, self._config.sample.min_visible)

    def _last_samples(self, ended: list[Track]) -> list[tuple[Track, Sample]]:
        return [(t, sample) for t in ended if (sample := self._sampler.finish(t)) is not None]

    def _wanted(self) -> list[Modality]:
        return [m for m in self.synchroniser.wants() if m not in self._stalled]

    def _pop(self) -> Triplet | None:
        for modality in list(self._stalled):
            self._read(modality, 0.001)
        return self.synchroniser.pop(impatient=bool(self._stalled) and not self._wanted())

    def _read(self, modality: Modality, timeout_s: float) -> bool:
        """Ask one camera; return whether it answered."""
        reading = self._sources[modality].read(timeout_s)
        if isinstance(reading, Failure):
            raise InputError(f"rig {self.rig.name}: {reading.reason}")
        if isinstance(reading, Frame):
            self.synchroniser.push(modality, reading)
            self._last_s[modality] = reading.time_s
        elif isinstance(reading, End):
            self.synchroniser.end(modality)
            self._ended_s[modality] = (
                self._last_s.get(modality, 0.0) - self._before.offsets[modality].seconds
            )
        else:
            return False
        self._stalled.discard(modality)
        return True

    def _give_up_on(self, modalities: list[Modality]) -> None:
        log.warning(
            "%s: no picture from %s for %.1f s; going on without",
            self.rig.name,
            ", ".join(modalities),
            self._config.sync.timeout_s,
        )
        self._stalled.update(modalities)

    def _say_what_ended(self, triplet: Triplet) -> None:
        for modality, end_s in list(self._ended_s.items()):
            if triplet.time_s > end_s + ENDED_EARLY_S:
                log.warning(
                    "%s: the clip of %s ends at %.1f s, before the others; going on without it",
                    self.rig.name,
                    modality,
                    end_s,
                )
                del self._ended_s[modality]
