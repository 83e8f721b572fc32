"""Who searched and who changed or deleted what: a file that is only appended to.

``audit.jsonl`` in the output folder, a JSON object a line. It says nothing of a person but the
permanent names that a deletion was asked for.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from runtime.sinks.eventlog import utc_text
from runtime.sinks.jsonlines import JsonLinesSink, Rotation

FILE: Final = "audit.jsonl"
ROTATION: Final = Rotation(max_bytes=64 << 20, max_age_s=float("inf"), keep=30)

Who = dict[str, str | None]
"""By what right, from which address, and for whom a proxy says it asks."""


class Audit:
    """Any thread may write; a line is in the file when `note` returns."""

    def __init__(self, folder: Path) -> None:
        """Go on with the file in ``folder``."""
        self._file = JsonLinesSink(folder / FILE, append=True, rotation=ROTATION)
        self._lock = threading.Lock()

    def note(self, who: Who, what: str, result: str, about: dict[str, Any]) -> None:
        """Append a line; OSError when it cannot be written."""
        now = datetime.datetime.now(datetime.timezone.utc).timestamp()
        with self._lock:
            self._file.write(
                {"time": utc_text(now), **who, "what": what, **about, "result": result}
            )

    @contextmanager
    def noted(self, who: Who, what: str, **about: Any) -> Iterator[dict[str, Any]]:
        """Note what the block does, also when it fails; the block may add to what it is given.

        A line that it begins comes before: nothing is done that cannot be noted.
        """
        self.note(who, what, "begins", about)
        try:
            yield about
        except Exception as error:  # whatever it was, it is noted
            self.note(who, what, f"failed: {error}", about)
            raise
        self.note(who, what, "done", about)

    def close(self) -> None:
        """Flush to disk and close."""
        self._file.close()
