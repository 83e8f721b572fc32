"""Brings events from the journal to one receiver, in a thread of its own, however long it takes."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final

from runtime.sinks.interface import Sender, SendError, SinkStatus
from runtime.sinks.journal import Reader

BATCH: Final = 64
"""Events that are read from the journal at once."""
IDLE_S: Final = 0.5
"""How often a connection without events is looked after."""
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0
"""Pause after a failure: the first doubles up to the longest, each less up to half by chance."""
STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends in order, waits longer after each failure, and goes on where it was after a restart.

    The cursor moves after the receiver acknowledged. So an event is sent at least once; who gets it
    twice knows it by its id.
    """

    def __init__(self, name: str, reader: Reader, sender: Sender) -> None:
        """Start sending."""
        self._name, self._reader, self._sender = name, reader, sender
        self._failures = self._sent = 0
        self._last_error: str | None = None
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the journal has more."""
        self._news.set()

    def status(self) -> SinkStatus:
        """Return how it is doing."""
        return SinkStatus(
            name=self._name,
            connected=self._sender.connected and self._last_error is None,
            behind=self._reader.behind,
            sent=self._sent,
            refused=self._sender.refused,
            skipped=self._reader.skipped,
            last_error=self._last_error,
        )

    def drain(self, until_s: float) -> bool:
        """Wait until all is sent, at most until ``time.monotonic()`` is ``until_s``."""
        while self._reader.behind and time.monotonic() < until_s:
            self._stop.wait(0.01)
        return self._reader.behind == 0

    def close(self) -> None:
        """Stop within a second; what was not acknowledged is sent after the next start."""
        self.ask_to_stop()
        self._thread.join(STOP_S)
        if self._thread.is_alive():  # inside a connect; a daemon thread, it ends by itself
            log.warning("%s: still waiting for its receiver; left behind", self._name)

    def ask_to_stop(self) -> None:
        """Let the thread end; `close` waits for it."""
        self._stop.set()
        self._news.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                self._sender.connect()
                sent = self._send_some()
            except (SendError, OSError) as error:
                self._failed(str(error))
                continue
            except Exception as error:  # a defect in one sender must not stop the others
                self._failed(f"{type(error).__name__}: {error}", defect=self._last_error is None)
                continue
            self._worked()
            if not sent:
                self._news.wait(IDLE_S)
        try:
            self._sender.close()
        except Exception:
            log.exception("%s: did not close", self._name)

    def _send_some(self) -> int:
        events = self._reader.read(BATCH)
        sent = 0
        while sent < len(events) and not self._stop.is_set():
            count = self._sender.send(events[sent:])
            self._reader.acknowledge(count)
            sent += count
            self._sent += count
        return sent

    def _worked(self) -> None:
        if self._last_error is not None:
            log.info("%s: works again, %d events behind", self._name, self._reader.behind)
        self._failures, self._last_error = 0, None

    def _failed(self, error: str, defect: bool = False) -> None:
        if error != self._last_error:
            log.warning("%s: %s; trying again", self._name, error, exc_info=defect)
        self._last_error = error
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._stop.wait(longest * random.uniform(0.5, 1.0))
