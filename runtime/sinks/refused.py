"""Events that a receiver will never take, set aside for somebody to look at."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from runtime.sinks.deletions import Deletion
from runtime.sinks.interface import Event
from runtime.sinks.jsonlines import JsonLinesSink, Rotation

ROTATION: Final = Rotation(max_bytes=16 << 20, max_age_s=float("inf"), keep=1)


class RefusedEvents:
    """refused.jsonl, which several sinks share. It appears with the first event in it."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self._path = path
        self._lock = threading.Lock()

    def add(self, sink: str, reason: str, event: Event) -> None:
        """Keep ``event`` and who refused it; OSError means that nothing of it was kept."""
        with self._lock:
            file = JsonLinesSink(self._path, append=True, rotation=ROTATION)
            try:
                file.write({"sink": sink, "reason": reason, "event": event})
            finally:
                file.close()

    def forget(self, deletion: Deletion) -> None:
        """Take the events that ``deletion`` covers out."""
        with self._lock:
            if self._path.is_file():
                file = JsonLinesSink(self._path, append=True)
                try:
                    file.forget(deletion, event_of=lambda line: line["event"])
                finally:
                    file.close()
