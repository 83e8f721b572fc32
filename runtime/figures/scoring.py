"""Score a run against ground truth: were frames, boxes, crops and identities right?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality
from runtime.identity.identification import Sighting
from runtime.watching.quality import area
from runtime.watching.rig import RigStep
from runtime.watching.tracking import Box

MIN_IOU: Final = 0.5
"""Overlap from which a box has found a subject."""
MIN_VISIBLE: Final = 0.5
"""A subject that shows less of itself need not be found, and finding it is no mistake."""

FrameKey = tuple[str, str, int]


@dataclass(frozen=True)
class TrueSubject:
    """One subject in one frame."""

    identity: str
    """Who."""
    box: Box
    """px of that camera."""
    visible: float
    """Share that is not hidden, 0 to 1."""


@dataclass(frozen=True)
class TrueFrame:
    """One recorded frame."""

    time_s: float
    """When it was taken."""
    subjects: tuple[TrueSubject, ...]
    """Who is in it."""


@dataclass(frozen=True)
class IdentityScores:
    """Shares of sightings that got the right identity; None when there was no such sighting.

    The right identity of a subject is one that was opened for it. An identity that several subjects
    share is right for the first of them only, or merging all would score best.
    """

    within: float | None
    """Later sightings at a rig that were recognised, and rightly."""
    across: float | None
    """First sightings at a further rig that were recognised, and rightly."""
    new: float | None
    """First sightings anywhere that opened a new identity."""
    later: float | None
    """Within and across together: all but the first sightings anywhere."""
    counts: dict[str, int]
    """How many sightings of each kind there were."""


def read_truth(path: Path) -> dict[FrameKey, TrueFrame]:
    """Read ground truth as JSON lines, by rig, modality and number of the recorded frame."""
    truth = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            record = json.loads(line)
            subjects = tuple(
                TrueSubject(str(s["identity"]), tuple(s["box"]), float(s["visible"]))
                for s in record["subjects"]
            )
            key = (str(record["rig"]), str(record["modality"]), int(record["frame"]))
            truth[key] = TrueFrame(float(record["time_s"]), subjects)
    except OSError as error:
        raise InputError(f"cannot read ground truth {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not ground truth: line {len(truth) + 1}: {error!r}") from error
    return truth


class Scorer:
    """Collects what the rigs find and compares it with the truth."""

    def __init__(
        self, truth: Mapping[FrameKey, TrueFrame], references: Mapping[str, Modality]
    ) -> None:
        """Score against ``truth``; ``references`` is each rig's reference modality."""
        self._truth, self._references = truth, references
        self._sync_errors_s: list[float] = []
        self._boxes: Counter[str] = Counter()
        self._overlaps: dict[str, list[float]] = defaultdict(list)
        self._votes: dict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)

    def add(self, step: RigStep) -> None:
        """Take what one rig found in one triplet."""
        frames = self._frames(step)
        times = [frame.time_s for frame in frames.values()]
        if len(times) > 1:
            self._sync_errors_s.append(max(times) - min(times))
        reference = frames.get(self._references[step.rig])
        if reference is not None:
            detected = [tuple(box) for box in step.detections.tolist()]
            self._count("detection", detected, reference.subjects)
            self._count("tracking", [view.track.box for view in step.views], reference.subjects)
            self._follow(step, frames, reference)

    def result(self, sightings: Sequence[Sighting]) -> dict[str, Any]:
        """Return the scores by name; None where there was nothing to score."""
        identities = score_identities(self._labelled(sightings))
        overlaps = {m: _mean(self._overlaps[m]) for m in MODALITIES if m in self._overlaps}
        return {
            "sync_error_p95_ms": (
                round(float(np.percentile(self._sync_errors_s, 95)) * 1e3, 2)
                if self._sync_errors_s
                else None
            ),
            "detection_recall": self._ratio("detection", "found", "subjects"),
            "detection_precision": self._ratio("detection", "right", "boxes"),
            "tracking_recall": self._ratio("tracking", "found", "subjects"),
            "tracking_precision": self._ratio("tracking", "right", "boxes"),
            "crop_overlap": overlaps,
            "identity_accuracy": identities.later,
            "identity_accuracy_within": identities.within,
            "identity_accuracy_across": identities.across,
            "identity_accuracy_new": identities.new,
            "identity_counts": identities.counts,
        }

    def true_identity(self, sighting: Sighting) -> str | None:
        """Return whom a track followed for most of its boxes during the sighting."""
        votes = Counter(
            identity
            for time_s, identity in self._votes.get((sighting.rig, sighting.track.number), ())
            if sighting.start_s <= time_s <= sighting.end_s
        )
        return votes.most_common(1)[0][0] if votes else None

    def _frames(self, step: RigStep) -> dict[str, TrueFrame]:
        found = {
            m: self._truth.get((step.rig, m, frame.index))
            for m, frame in step.triplet.frames.items()
        }
        return {m: frame for m, frame in found.items() if frame is not None}

    def _count(self, kind: str, boxes: Sequence[Box], subjects: Sequence[TrueSubject]) -> None:
        pairs = matched(boxes, [s.box for s in subjects])
        clear = [s.visible >= MIN_VISIBLE for s in subjects]
        right = sum(clear[j] for j in pairs.values())
        self._boxes[f"{kind} found"] += right
        self._boxes[f"{kind} right"] += right
        self._boxes[f"{kind} subjects"] += sum(clear)
        self._boxes[f"{kind} boxes"] += len(boxes) - (len(pairs) - right)

    def _ratio(self, kind: str, part: str, whole: str) -> float | None:
        total = self._boxes[f"{kind} {whole}"]
        return round(self._boxes[f"{kind} {part}"] / total, 4) if total else None

    def _follow(self, step: RigStep, frames: Mapping[str, TrueFrame], reference: TrueFrame) -> None:
        pairs = matched([v.track.box for v in step.views], [s.box for s in reference.subjects])
        for i, j in pairs.items():
            view, identity = step.views[i], reference.subjects[j].identity
            self._votes[step.rig, view.track.number].append((step.triplet.time_s, identity))
            for modality, box in view.boxes.items():
                for subject in frames[modality].subjects if modality in frames else ():
                    if subject.identity == identity:
                        self._overlaps[modality].append(iou(box, subject.box))

    def _labelled(self, sightings: Sequence[Sighting]) -> list[Labelled]:
        return [
            Labelled(true, s.rig, s.decision.identity, s.decision.known, s.start_s)
            for s in sightings
            if s.decision is not None and (true := self.true_identity(s)) is not None
        ]


@dataclass(frozen=True)
class Labelled:
    """A sighting with the identity it got and the one it should have."""

    true: str
    """Who it was."""
    rig: str
    """Where."""
    given: str
    """Who we said it was."""
    known: bool
    """Whether we said that we knew them."""
    time_s: float
    """When it began."""


def score_identities(sightings: Sequence[Labelled]) -> IdentityScores:
    """Ask of each later sighting whether it got an identity that was opened for its subject.

    Within: again at a rig. Across: for the first time at a further rig. New: the first sighting
    anywhere has to open an identity. In a kept gallery an identity is its first user's.
    """
    results: dict[str, list[bool]] = {"within": [], "across": [], "new": []}
    owners: dict[str, str] = {}
    seen: set[str] = set()
    seen_here: set[tuple[str, str]] = set()
    for sighting in sorted(sightings, key=lambda s: s.time_s):
        right = sighting.known and owners.get(sighting.given, sighting.true) == sighting.true
        owners.setdefault(sighting.given, sighting.true)
        if sighting.true not in seen:
            results["new"].append(not sighting.known)
        elif (sighting.true, sighting.rig) in seen_here:
            results["within"].append(right)
        else:
            results["across"].append(right)
        seen.add(sighting.true)
        seen_here.add((sighting.true, sighting.rig))
    return IdentityScores(
        _mean(results["within"]),
        _mean(results["across"]),
        _mean(results["new"]),
        _mean(results["within"] + results["across"]),
        {kind: len(items) for kind, items in results.items()},
    )


def matched(boxes: Sequence[Box], true_boxes: Sequence[Box]) -> dict[int, int]:
    """Return pairs box -> true box that overlap by MIN_IOU, the best first."""
    overlaps = sorted(
        ((iou(a, b), i, j) for i, a in enumerate(boxes) for j, b in enumerate(true_boxes)),
        reverse=True,
    )
    pairs: dict[int, int] = {}
    for overlap, i, j in overlaps:
        if overlap >= MIN_IOU and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def iou(a: Box, b: Box) -> float:
    """Return the intersection over the union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / (area(a) + area(b) - common)


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
