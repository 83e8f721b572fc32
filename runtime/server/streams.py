"""Answers without an end: whoever does not take them is let go, and nobody waits for him."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SLOW_S: Final = 5.0
"""A client that takes nothing for this long is let go, s."""

log = logging.getLogger(__name__)


class Stream(Response):
    """Sends ``chunks`` until they end, the client goes, or it is too slow."""

    def __init__(
        self, chunks: AsyncIterator[bytes], media_type: str, on_slow: Callable[[], None]
    ) -> None:
        """Call ``on_slow`` when the client is let go because it takes nothing."""
        self._chunks, self._on_slow = chunks, on_slow
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            if not isinstance(error, SlowClientError | TimeoutError | asyncio.TimeoutError):
                raise error
            log.warning("a client took nothing for %.0f s and is let go", SLOW_S)
            self._on_slow()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for chunk in self._chunks:
            body = {"type": "http.response.body", "body": chunk, "more_body": True}
            await asyncio.wait_for(send(body), SLOW_S)
        await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), SLOW_S)


class SlowClientError(Exception):
    """A client has not taken what waits for it."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
