"""Tells systemd how a live run is: sd_notify(3), which is a line or two to a socket."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from runtime.operation.health import LiveView, summary

PERIOD_S: Final = 1.0
SEND_S: Final = 0.5

log = logging.getLogger(__name__)


class Notifier:
    """Sends to the service manager; what it does not take soon is left."""

    def __init__(self, address: str) -> None:
        """Send to ``address``, a path, or with a leading @ an abstract name."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_S)

    def send(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``."""
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", lines[0], error)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Announcer:
    """One thread that says ready, alive and how it is.

    Ready is when the deciding thread works, with or without cameras: one that is away at boot must
    not keep the others from being watched. It is alive when that thread has advanced since the last
    time.
    """

    def __init__(self, notifier: Notifier, view: LiveView, watchdog_s: float | None) -> None:
        """Start; say that all is alive four times per ``watchdog_s`` or more often."""
        self._notifier, self._view, self._watchdog_s = notifier, view, watchdog_s
        self._period_s = PERIOD_S if watchdog_s is None else min(PERIOD_S, watchdog_s / 4)
        self._instants = 0
        self._ready = False
        self._status = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say that the run ends."""
        self._stop.set()
        self._thread.join()
        self._notifier.send("STOPPING=1", "STATUS=ending")

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            if lines := self._news():
                self._notifier.send(*lines)

    def _news(self) -> list[str]:
        lines = []
        instants = self._view.tally.instants
        if instants != self._instants:
            if not self._ready:
                lines.append("READY=1")
            if self._watchdog_s is not None:
                lines.append("WATCHDOG=1")
            self._instants, self._ready = instants, True
        status = summary(self._view)
        if status != self._status:
            lines.append(f"STATUS={status}")
            self._status = status
        return lines


@contextlib.contextmanager
def announcing(view: LiveView, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Tell systemd about ``view`` while the block runs; without systemd this does nothing."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        yield
        return
    with contextlib.closing(Notifier(address)) as notifier:
        announcer = Announcer(notifier, view, watchdog_s(environment))
        with contextlib.closing(announcer):
            yield


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return how long the watchdog waits, s; None when this process has none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None
