"""What happens now, for everybody who looks at the page: server-sent events.

One task looks at the run twice a second and any thread may publish; each client has a bounded queue
of its own. A client that does not keep up is let go: it connects again and reads the rest of the
event log.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from runtime.operation.health import LiveView, ready, rig_states
from runtime.picture.drawing import Mark
from runtime.server.history import SAMPLE_S, History
from runtime.server.streams import SlowClientError
from runtime.sinks.interface import Event

LOOK_S: Final = 0.5
"""Time between two looks at the run, s."""
QUEUE_MESSAGES: Final = 256
"""Messages that wait for a client at most; one more and it is let go."""

Queue = asyncio.Queue[bytes | None]


class Live:
    """Tells every client what happens. All but :meth:`publish` and :meth:`close` is the loop's."""

    def __init__(self, view: LiveView, stuck_after_s: float) -> None:
        """Tell of ``view``."""
        self._view, self._stuck_after_s = view, stuck_after_s
        self._history = History(view)
        self._clients: set[Queue] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closing = asyncio.Event()
        """Set when the server is about to stop: streams end."""

    @contextlib.asynccontextmanager
    async def running(self, _: object) -> AsyncIterator[None]:
        """Listen to the event log and look at the run while the block runs."""
        self._loop = asyncio.get_running_loop()
        self._view.events.listen(self.publish)
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._view.events.listen(None)
            looking.cancel()

    def publish(self, event: Event) -> None:
        """Tell ``event`` to every client; may be called from any thread, and never waits."""
        if self._clients:
            told = {"told_s": round(time.time(), 3), "event": event}
            self._call(self._spread, message("event", told))

    def close(self) -> None:
        """End all streams; may be called from any thread."""
        self._call(self._end)

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield what a client gets: all there is to know at first, then what happens."""
        queue: Queue = asyncio.Queue(QUEUE_MESSAGES + 1)
        self._clients.add(queue)
        self._count()
        try:
            yield message("hello", {"history": self._history.samples(), "sample_s": SAMPLE_S})
            yield message("state", self._state())
            while (data := await queue.get()) is not None:
                if queue.qsize() >= QUEUE_MESSAGES:
                    raise SlowClientError
                yield data
        finally:
            self._clients.discard(queue)
            self._count()

    def let_go(self) -> None:
        """Count a client that was too slow."""
        self._view.tally.clients_dropped += 1

    def _count(self) -> None:
        self._view.tally.clients = len(self._clients)

    async def _look(self) -> None:
        next_s = time.monotonic()
        while True:
            if time.monotonic() >= next_s:
                next_s += SAMPLE_S
                self._spread(message("sample", self._history.take(time.time())))
            if self._clients:
                self._spread(message("state", self._state()))
            await asyncio.sleep(LOOK_S)

    def _state(self) -> dict[str, Any]:
        view, tally = self._view, self._view.tally
        rows = view.viewing.rows()
        rigs = []
        for state in rig_states(view):
            row = rows.get(state.name)
            rigs.append(
                {
                    **dataclasses.asdict(state),
                    "picture_s": None if row is None else round(row.time_s, 3),
                    "tracks": [] if row is None else [_track(mark) for mark in row.marks],
                }
            )
        return {
            "time_s": round(time.time(), 3),
            "rigs": rigs,
            "identities": view.identities(),
            "decisions": {
                "known": sum(n for (_, known), n in tally.decisions.items() if known),
                "new": sum(n for (_, known), n in tally.decisions.items() if not known),
            },
            "load": view.feed.load,
            "problems": ready(view, self._stuck_after_s).problems,
        }

    def _spread(self, data: bytes) -> None:
        for queue in self._clients:
            with contextlib.suppress(asyncio.QueueFull):  # it is let go at its next message
                queue.put_nowait(data)

    def _end(self) -> None:
        self.closing.set()
        for queue in self._clients:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    def _call(self, function: Any, *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)


def message(kind: str, data: Any) -> bytes:
    """Return a server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _track(mark: Mark) -> dict[str, Any]:
    return {
        "track": mark.track,
        "identity": mark.identity,
        "score": None if mark.score is None else round(mark.score, 4),
        "state": mark.state,
        "modalities": list(mark.boxes),
    }
