"""Event ids: unique for ever, and in the order of writing over all restarts of a box.

An id is ``run-sequence``. The run is the second at which the process started and six random
hexadecimal digits, so that two boxes never share one: ``20261125T042800Z-3f9a2c-00000012``. The
sequence counts from 0 without gaps, so a receiver sees what it missed. A run on files has no such
name, because the same clips must give the same events: ``clips-00000012``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

_FORM: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class RunName:
    """What the ids of a run begin with."""

    text: str
    """The name."""
    wall_clock: bool
    """Whether the times of its events are Unix seconds."""


CLIPS: Final = RunName("clips", wall_clock=False)
"""The run of events that stay in one folder and are made anew with it."""


def new_run(now_s: float, last_id: str | None) -> RunName:
    """Return the name of a run that starts at ``now_s`` (Unix) and comes after ``last_id``.

    The clock of a box without battery starts in the past; the run then follows the last one.
    """
    started = datetime.fromtimestamp(int(now_s), timezone.utc)
    if last_id is not None and (last := _started(last_id)) is not None:
        started = max(started, last + timedelta(seconds=1))
    return RunName(f"{started.strftime(_FORM)}-{secrets.token_hex(3)}", wall_clock=True)


def event_id(run: str, sequence: int) -> str:
    """Return the id of the event with ``sequence`` others before it in ``run``."""
    return f"{run}-{sequence:08d}"


def order(identifier: str) -> tuple[str, int]:
    """Return a key that sorts ids as they were written; ValueError when it is none of ours."""
    run, _, sequence = identifier.rpartition("-")
    return run, int(sequence)


def started_s(identifier: str) -> float | None:
    """Return when the run of a live event began, Unix seconds; None when it is no live event."""
    started = _started(identifier)
    return None if started is None else started.timestamp()


def is_live(identifier: object) -> bool:
    """Return whether this is the id of a live event."""
    return isinstance(identifier, str) and _started(identifier) is not None


def _started(identifier: str) -> datetime | None:
    try:
        started = datetime.strptime(identifier.split("-", 1)[0], _FORM)
    except ValueError:
        return None
    return started.replace(tzinfo=timezone.utc)
