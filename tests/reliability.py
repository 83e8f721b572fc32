"""Where fault tests note what a fault cost; benchmarks/reliability.py makes the table of it."""

from __future__ import annotations

import json
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "build" / "reliability.jsonl"


def record(
    fault: str,
    *,
    detection_s: float | None = None,
    recovery_s: float | None = None,
    frames_lost: int | None = None,
    events_lost: int | None = None,
) -> None:
    """Note one run of a fault test, for docs/reliability.md.

    ``fault`` is its row's name. ``detection_s``: from the fault until our state said so;
    ``recovery_s``: from its end until all was well again; ``frames_lost``: frames that were or
    would have been sent meanwhile and did not reach the reader. None: nothing to say.
    """
    line = {
        "fault": fault,
        "detection_s": detection_s,
        "recovery_s": recovery_s,
        "frames_lost": frames_lost,
        "events_lost": events_lost,
    }
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a") as file:
        print(json.dumps(line), file=file)
