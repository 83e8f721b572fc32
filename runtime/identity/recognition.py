"""From samples to identities: batch over all rigs, embed, decide, keep, tell."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from mambapro.contract import Subject
from runtime.config import MatchConfig, RigConfig
from runtime.engines import Engine
from runtime.figures.tally import Tally
from runtime.gallery import Embedding
from runtime.identity.camera_graph import Stay
from runtime.identity.embedding import embed
from runtime.identity.events import glimpse_event, sighting_event, track_end_event
from runtime.identity.identification import Decision, Identifier, Sighting
from runtime.identity.recording import CropRecorder
from runtime.sinks import EventLog
from runtime.watching.crops import Sample
from runtime.watching.tracking import Track

FORGET_FROM: Final = 64
"""Sightings are looked through for old ones when there are so many."""
TIDY_S: Final = 600.0
"""Galleries of live runs are looked through for what has expired this often, s."""

log = logging.getLogger(__name__)

Key = tuple[str, int]


class Recogniser:
    """Gives tracks their identities. It keeps every sighting of the run."""

    def __init__(
        self,
        config: MatchConfig,
        engines: Mapping[Subject, Engine],
        identifiers: Mapping[Subject, Identifier],
        events: EventLog,
        max_batch: int,
        max_wait_s: float,
        recorder: CropRecorder | None = None,
        remember_s: float | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Embed with ``engines``; ``recorder`` keeps every sample, ``tally`` how long it takes.

        Sightings are forgotten ``remember_s`` after their end; with none they are kept for ever.
        """
        self._remember_s = remember_s
        self._tidy_s = float("-inf")
        self._tally = tally or Tally()
        self._recorder = recorder
        self._config = config
        self._engines, self._identifiers = engines, identifiers
        self._events = events
        self._cameras: dict[str, int] = {}
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._waiting: list[tuple[Track, Sample]] = []
        self._glimpses: list[tuple[Track, Sample]] = []
        self._current: dict[Key, Sighting] = {}
        self.sightings: list[Sighting] = []
        """Every subject that gave a sample and is not forgotten, in order of first sample."""

    def meet(self, rig: RigConfig) -> None:
        """Take note of the rig's row of the camera embedding, before its first sample."""
        self._cameras[rig.name] = rig.camera

    def leave(self, rig: str) -> None:
        """Forget the tracks of a rig that has ended: another one of its name counts anew."""
        self._current = {key: s for key, s in self._current.items() if key[0] != rig}

    def correct(self, subject: Subject) -> None:
        """Take over what was merged, split and deleted in the gallery of ``subject``.

        A track whose identity is gone counts anew, as if it began now.
        """
        whose = self._identifiers[subject].whose
        gone = set()
        for number, seen in enumerate(self.sightings):
            if seen.subject == subject and (decision := seen.decision) is not None:
                if (identity := whose(seen)) is None:
                    gone.add(number)
                else:
                    seen.decision = dataclasses.replace(decision, identity=identity)
        self._drop([self.sightings[number] for number in gone])

    def identities(self) -> dict[Subject, int]:
        """Return how many are known; safe to call from any thread."""
        return {subject: i.identities for subject, i in self._identifiers.items()}

    def decision(self, rig: str, track: Track) -> Decision | None:
        """Return who a track is, if that is decided."""
        sighting = self._current.get((rig, track.number))
        return None if sighting is None else sighting.decision

    def add(self, track: Track, sample: Sample) -> None:
        """Let ``sample`` of ``track`` wait for the next batch."""
        if (sample.rig, track.number) not in self._current:
            self._begin(Sighting(sample.rig, track, track.subject, track.start_s))
        self._waiting.append((track, sample))
        if self._recorder is not None:
            self._recorder.write(sample, track.subject, self._cameras[sample.rig])

    def glimpse(self, track: Track, sample: Sample) -> None:
        """Look the first crop of ``track`` up at the next :meth:`advance`; it decides nothing."""
        self._glimpses.append((track, sample))

    def advance(self, time_s: float) -> list[Sighting]:
        """Embed when the batch is full or waited long enough; return what was decided by it."""
        self._look_up_glimpses()
        self._forget(time_s)
        due = len(self._waiting) >= self._max_batch or any(
            time_s - sample.time_s >= self._max_wait_s for _, sample in self._waiting
        )
        return self._embed_waiting() if due else []

    def end(self, rig: str, track: Track) -> list[Sighting]:
        """Decide over a track that is over with what there is, and keep all of it."""
        decided = self._embed_waiting() if self._waits(rig, track) else []
        sighting = self._current.get((rig, track.number))
        if sighting is None:
            self._events.write(track_end_event(rig, track, None))
            return decided
        return decided + self._finish(sighting)

    def _look_up_glimpses(self) -> None:
        glimpses, self._glimpses = self._glimpses, []
        for subject, engine in self._engines.items():
            batch = [(track, sample) for track, sample in glimpses if track.subject == subject]
            embeddings = self._embed(engine, [sample for _, sample in batch])
            for (track, sample), embedding in zip(batch, embeddings, strict=True):
                likely = self._identifiers[subject].likely(embedding, sample.crops.keys())
                self._events.write(glimpse_event(track, sample, likely))

    def _forget(self, time_s: float) -> None:
        if self._remember_s is None:
            return
        if time_s >= self._tidy_s:
            self._tidy_s = time_s + TIDY_S
            for identifier in self._identifiers.values():
                identifier.expire(time_s)
        if len(self.sightings) < FORGET_FROM:
            return
        gone_s = time_s - self._remember_s
        self.sightings = [s for s in self.sightings if s.end_s >= gone_s]
        self._current = {k: s for k, s in self._current.items() if s.end_s >= gone_s}

    def _drop(self, gone: Sequence[Sighting]) -> None:
        lost = {id(sighting) for sighting in gone}
        tracks = {(s.rig, s.track.number) for s in gone}
        self.sightings = [s for s in self.sightings if id(s) not in lost]
        self._current = {key: s for key, s in self._current.items() if id(s) not in lost}
        tracks -= self._current.keys()
        self._waiting = [
            (track, s) for track, s in self._waiting if (s.rig, track.number) not in tracks
        ]

    def _begin(self, sighting: Sighting) -> None:
        self._current[sighting.rig, sighting.track.number] = sighting
        self.sightings.append(sighting)

    def _finish(self, sighting: Sighting) -> list[Sighting]:
        """Decide over a sighting that is over, if it is not yet, and keep all of it."""
        decided = []
        if sighting.decision is None and len(sighting.embeddings) >= self._config.min_crops:
            self._decide(sighting)
            decided.append(sighting)
        if sighting.decision is not None:
            self._keep(sighting)
        self._events.write(track_end_event(sighting.rig, sighting.track, sighting))
        return decided

    def _waits(self, rig: str, track: Track) -> bool:
        return any(sample.rig == rig and t is track for t, sample in self._waiting)

    def _embed_waiting(self) -> list[Sighting]:
        waiting, self._waiting = self._waiting, []
        decided: list[Sighting] = []
        subjects = [self._current[s.rig, t.number].subject for t, s in waiting]
        for subject, engine in self._engines.items():
            batch = [pair for pair, s in zip(waiting, subjects, strict=True) if s == subject]
            embeddings = self._embed(engine, [sample for _, sample in batch])
            for (track, sample), embedding in zip(batch, embeddings, strict=True):
                decided += self._take(track, sample, embedding)
        now = dict.fromkeys((sample.rig, track.number) for track, sample in waiting)
        for sighting in [self._current[key] for key in now]:
            ready = len(sighting.embeddings) >= self._config.decide_after
            if ready and sighting.decision is None:
                self._decide(sighting)
                decided.append(sighting)
        return decided

    def _take(self, track: Track, sample: Sample, embedding: Embedding) -> list[Sighting]:
        """Add a crop to its track's sighting; return that if this decided it by ending it."""
        sighting = self._current[sample.rig, track.number]
        begun = sighting.take(sample, embedding, self._identifiers[sighting.subject].alike)
        if begun is None:
            return []
        log.info(
            "%s: track %d shows somebody else from %.1f s",
            sample.rig, track.number, begun.start_s,
        )  # fmt: skip
        self._begin(begun)
        return self._finish(sighting)

    def _embed(self, engine: Engine, samples: Sequence[Sample]) -> list[Embedding]:
        if not samples:
            return []
        with self._tally.time("embed"):
            rows = [self._cameras[sample.rig] for sample in samples]
            return embed(engine, [sample.crops for sample in samples], rows)

    def _decide(self, sighting: Sighting) -> None:
        subject = sighting.track.subject
        if subject != sighting.subject and subject in self._engines:
            sighting.embeddings = self._embed(self._engines[subject], sighting.samples)
            sighting.subject = subject
            sighting.strays = []  # embedded by the other model
        identifier = self._identifiers[sighting.subject]
        with self._tally.time("decide"):
            sighting.decision = identifier.decide(sighting, self._others(sighting))
        self._keep(sighting)
        told = self._events.tell(sighting_event(sighting), _best(sighting).crops)
        sighting.snapshots = told["snapshots"]  # kept with the template when the track ends

    def _keep(self, sighting: Sighting) -> None:
        """Keep a sighting in its gallery; a live run goes on when that fails."""
        try:
            self._identifiers[sighting.subject].keep(sighting)
        except OSError as error:  # a full disk, a server that is away
            if self._remember_s is None:
                raise
            log.error("a sighting at %s is not kept: %s", sighting.rig, error)

    def _others(self, sighting: Sighting) -> list[tuple[str, Stay]]:
        """Return who else was where, as far as that is decided and not forgotten."""
        return [
            (other.decision.identity, other.stay)
            for other in self.sightings
            if other is not sighting and other.decision is not None
        ]


def _best(sighting: Sighting) -> Sample:
    return max(sighting.samples, key=lambda sample: sample.quality)
