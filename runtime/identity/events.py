"""What the stream tells: one function an event. docs/events.md describes every field."""

from __future__ import annotations

from typing import Any

from mambapro.contract import MODALITIES, Modality, Subject
from runtime.identity.identification import Denied, Likely, Sighting
from runtime.watching.crops import Sample
from runtime.watching.tracking import Track

Event = dict[str, Any]


def sighting_event(seen: Sighting) -> Event:
    """Return the event of a sighting that was just decided."""
    decision, track = seen.decision, seen.track
    assert decision is not None
    match = None if decision.match is None else decision.match.template.payload
    return {
        "event": "sighting",
        "rig": seen.rig,
        "track": track.number,
        "subject": seen.subject,
        "identity": decision.identity,
        "known": decision.known,
        "score": None if decision.score is None else round(decision.score, 4),
        "threshold": round(decision.threshold, 4),
        "time_s": round(seen.end_s, 3),
        "start_s": round(seen.start_s, 3),
        "end_s": None,
        "box": [round(v, 1) for v in track.box],
        "modalities": seen.modalities(),
        "crops": len(seen.embeddings),
        "seen_at": None if match is None else match["rig"],
        "seen_s": None if match is None else round(match["time_s"], 3),
        "seen_snapshots": None if match is None else match.get("snapshots"),
        "veto": None if decision.veto is None else _veto(decision.veto),
    }


def _veto(denied: Denied) -> dict[str, Any]:
    """Say why somebody more similar was not taken; without a name, which a deletion would miss."""
    return {
        "rig": denied.why.rig,
        "gap_s": round(denied.why.gap_s, 3),
        "min_s": denied.why.min_s,
        "score": round(denied.score, 4),
    }


def glimpse_event(track: Track, sample: Sample, likely: Likely) -> Event:
    """Return the event of a first crop, looked up before it is sure that it shows a subject."""
    return {
        "event": "glimpse",
        "rig": sample.rig,
        "track": track.number,
        "subject": track.subject,
        "identity": likely.identity,
        "score": None if likely.score is None else round(likely.score, 4),
        "threshold": round(likely.threshold, 4),
        "time_s": round(sample.time_s, 3),
        "start_s": round(track.start_s, 3),
        "end_s": None,
        "box": [round(v, 1) for v in track.box],
        "modalities": [m for m in MODALITIES if m in sample.crops],
        "crops": 1,
    }


def track_end_event(rig: str, track: Track, seen: Sighting | None) -> Event:
    """Return the event of a track that is over, or of the part of one that showed ``seen``."""
    decision = None if seen is None else seen.decision
    span: Sighting | Track = track if seen is None else seen
    return {
        "event": "track_end",
        "rig": rig,
        "track": track.number,
        "subject": track.subject if seen is None else seen.subject,
        "identity": None if decision is None else decision.identity,
        "start_s": round(span.start_s, 3),
        "end_s": round(span.end_s, 3),
        "time_s": round(span.end_s, 3),
        "box": [round(v, 1) for v in track.box],
        "crops": 0 if seen is None else len(seen.embeddings),
    }


def drift_event(
    rig: str,
    subject: Subject,
    modality: Modality,
    alert: bool,
    statistic: str,
    distance: float,
    sightings: int,
    time_s: float,
) -> Event:
    """Return the event of a modality whose embeddings do not look, or look again, as expected."""
    return {
        "event": "drift",
        "rig": rig,
        "subject": subject,
        "modality": modality,
        "alert": alert,
        "statistic": statistic,
        "distance": round(distance, 4),
        "sightings": sightings,
        "time_s": round(time_s, 3),
    }


def camera_lost_event(rig: str, modality: Modality, reason: str, time_s: float) -> Event:
    """Return the event of a camera that has been silent since ``time_s``; no uri in ``reason``."""
    return {
        "event": "camera_lost",
        "rig": rig,
        "modality": modality,
        "reason": reason,
        "time_s": round(time_s, 3),
    }


def camera_back_event(rig: str, modality: Modality, away_s: float, time_s: float) -> Event:
    """Return the event of a camera that gives pictures again, after ``away_s``."""
    return {
        "event": "camera_back",
        "rig": rig,
        "modality": modality,
        "away_s": round(away_s, 3),
        "time_s": round(time_s, 3),
    }
