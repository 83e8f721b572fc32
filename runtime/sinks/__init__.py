"""Where events go: a durable journal first, then its readers.

`open_events` gives the `EventLog` that everything writes to; the other modules are its parts.
"""

from runtime.sinks.eventlog import EventLog, EventsStatus
from runtime.sinks.ids import CLIPS, RunName
from runtime.sinks.interface import SinkStatus
from runtime.sinks.jsonlines import JsonLinesSink
from runtime.sinks.opening import forget_in_folder, open_events, open_events_again
from runtime.sinks.snapshots import SnapshotStore

__all__ = [
    "CLIPS",
    "EventLog",
    "EventsStatus",
    "JsonLinesSink",
    "RunName",
    "SinkStatus",
    "SnapshotStore",
    "forget_in_folder",
    "open_events",
    "open_events_again",
]
