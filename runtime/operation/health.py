"""What other threads see of a live run, and whether that is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mambapro.contract import Modality, Subject
from runtime.config import StreamConfig
from runtime.feeds.live import LiveFeed
from runtime.feeds.live_rig import LiveRig
from runtime.figures.tally import Tally
from runtime.identity.curation import Curator
from runtime.operation.drift import Drift, Key
from runtime.picture.viewing import Viewing
from runtime.sinks import EventLog
from runtime.sources import SourceStatus, redact


@dataclass(frozen=True)
class LiveView:
    """A live run as it is now. All of it may be read by any thread."""

    feed: LiveFeed
    """Cameras and rigs; may be reconfigured and stopped."""
    events: EventLog
    """Where events go."""
    identities: Callable[[], Mapping[Subject, int]]
    """How many each gallery knows."""
    tally: Tally
    """What the pipeline counted."""
    curator: Curator
    """Looks after the identities."""
    config: StreamConfig
    """Settings of the run; they say where it writes."""
    viewing: Viewing
    """What the rigs see."""
    drift: Callable[[], Mapping[Key, Drift]] = dict
    """How far embeddings are from calibration."""


@dataclass(frozen=True)
class RigState:
    """How one rig is."""

    name: str
    """Its name in the rigs file."""
    begun: bool
    """Whether it gives triplets."""
    waits_for: str
    """Why it has not begun; empty when it has."""
    cameras: dict[Modality, SourceStatus]
    """How each camera is."""


@dataclass(frozen=True)
class Health:
    """An answer to whether all is well."""

    ok: bool
    """The answer."""
    problems: list[str]
    """What is not well, a line each; there may be some although the answer is yes."""


def rig_states(view: LiveView) -> list[RigState]:
    """Return how each rig is, the refused ones of the latest reload last."""
    refused = [RigState(name, False, why, {}) for name, why in view.feed.refused.items()]
    return [_state(rig) for rig in view.feed.rigs()] + refused


def alive(view: LiveView, stuck_after_s: float) -> Health:
    """Return whether the deciding thread goes on: the one thing that a restart would heal.

    What sinks suffer is named, but a full disk or a broker that is away is no reason to restart:
    events that wait in memory would be lost.
    """
    stuck = _stuck(view, stuck_after_s)
    return Health(not stuck, [*stuck, *_sink_problems(view)])


def ready(view: LiveView, stuck_after_s: float) -> Health:
    """Return whether every rig has begun, all its cameras show pictures, and events are kept.

    Drift is told too, but nobody is more ready without this run than with it.
    """
    problems = _stuck(view, stuck_after_s)
    for rig in rig_states(view):
        if not rig.begun:
            problems.append(f"rig {rig.name} has not begun: {rig.waits_for}")
        else:
            problems += [f"rig {rig.name}: {words}" for words in _away(rig.cameras)]
    problems += _sink_problems(view)
    return Health(not problems, [*problems, *_drifted(view)])


def summary(view: LiveView) -> str:
    """Return how the run is, in one line."""
    rigs = rig_states(view)
    begun = sum(rig.begun for rig in rigs)
    away = [f"{rig.name}: {words}" for rig in rigs for words in _away(rig.cameras)]
    parts = [f"{begun} of {len(rigs)} rigs watched", *away, *_sink_problems(view)]
    if view.feed.load:
        parts.append(f"load {view.feed.load}")
    return "; ".join(parts)


def _state(rig: LiveRig) -> RigState:
    cameras = rig.status()
    away = "; ".join(_away(cameras)) or "it looks at the empty scene first"
    return RigState(rig.rig.name, rig.begun, "" if rig.begun else away, cameras)


def _away(cameras: Mapping[Modality, SourceStatus]) -> list[str]:
    return [
        f"{modality} is {status.state}" + (f" ({status.reason})" if status.reason else "")
        for modality, status in cameras.items()
        if status.state != "live"
    ]


def _stuck(view: LiveView, stuck_after_s: float) -> list[str]:
    idle_s = time.monotonic() - view.tally.advanced_s
    if idle_s <= stuck_after_s:
        return []
    return [f"the deciding thread has not advanced for {idle_s:.0f} s"]


def _drifted(view: LiveView) -> list[str]:
    return [
        f"rig {rig}: {subject}s in {modality} look unlike calibration (drift {drift.distance:.2f})"
        for (rig, subject, modality), drift in view.drift().items()
        if drift.alert
    ]


def _sink_problems(view: LiveView) -> list[str]:
    status = view.events.status()
    problems = []
    if status.last_error is not None:
        waiting = f"{status.waiting} events wait in memory"
        problems.append(f"the journal refuses events, {waiting}: {redact(status.last_error)}")
    problems += [
        f"sink {sink.name} is {sink.behind} events behind: {redact(sink.last_error)}"
        for sink in status.sinks
        if sink.last_error is not None
    ]
    return problems
