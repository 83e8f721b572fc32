"""How long a body may be and take, and how often somebody may search."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException

from runtime.server.answers import send_refusal
from runtime.server.asgi import App, Receive, Scope, Send

JSON_BYTES: Final = 1 << 16
"""Longest body of a request that uploads nothing."""
BODY_S: Final = 30.0
"""Longest time that a body may take to come in, s."""
CLOSE: Final = {"connection": "close"}
"""Without it the rest of the body would be read and thrown away."""


class BodyLimit:
    """Stands before all routes, so that none can be forgotten; counts, whatever headers say."""

    def __init__(self, app: App, uploads: Mapping[str, int], patience_s: float = BODY_S) -> None:
        """Guard ``app``; ``uploads`` has the paths that take more than JSON_BYTES."""
        self._app, self._uploads, self._patience_s = app, uploads, patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on; refuse what is too long or too slow."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        most = self._uploads.get(scope["path"], JSON_BYTES)
        announced = _announced(scope)
        if announced is None or announced > most:
            words = f"the body may have {most} bytes, not {announced}"
            await send_refusal(send, 413, words, CLOSE)
            return
        until_s = time.monotonic() + self._patience_s
        came, whole = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal came, whole
            if whole:  # what comes now is that the client leaves, whenever that is
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until_s - time.monotonic())
            except asyncio.TimeoutError:
                words = f"no whole body in {self._patience_s:g} s"
                raise HTTPException(408, words, CLOSE) from None
            came += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if came > most:
                raise HTTPException(413, f"the body may have {most} bytes, it has more", CLOSE)
            return message

        await self._app(scope, counted, send)


class Turnstile:
    """Lets so many in a second through, after a rest some more: a bucket of tokens."""

    def __init__(self, per_s: float, burst: int) -> None:
        """Let ``per_s`` through a second, and ``burst`` at once."""
        self._per_s, self._burst = per_s, burst
        self._left, self._seen_s = float(burst), time.monotonic()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Let one through and return 0, or say after how long one may come."""
        with self._lock:
            now_s = time.monotonic()
            self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._per_s)
            self._seen_s = now_s
            if self._left < 1.0:
                return (1.0 - self._left) / self._per_s
            self._left -= 1.0
            return 0.0


def _announced(scope: Scope) -> int | None:
    """Return the length that the headers tell, 0 when they tell none; None when it is no number."""
    given = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() and len(given) < 20 else None
