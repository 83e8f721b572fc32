"""The pictures of rigs as one endless answer: every part a JPEG, the newest there is.

Pictures are drawn when somebody asks, in step for all who do, so that each is drawn once. What a
client has no time for it never gets; nothing is queued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import quote

from runtime.picture.viewing import PERIOD_S, Shot, Viewing

BOUNDARY: Final = "picture"
MEDIA_TYPE: Final = f"multipart/x-mixed-replace; boundary={BOUNDARY}"


async def pictures(
    viewing: Viewing, rigs: Sequence[str], closing: asyncio.Event
) -> AsyncIterator[bytes]:
    """Yield the pictures of ``rigs``, or of all there are, until ``closing`` is set."""
    sent: dict[str, Shot] = {}
    while not closing.is_set():
        for rig in rigs or viewing.rows():
            shot = await asyncio.to_thread(viewing.shot, rig)
            if shot is not None and shot is not sent.get(rig):
                sent[rig] = shot
                yield _part(rig, shot)
        await _next_beat(closing)


async def _next_beat(closing: asyncio.Event) -> None:
    """Wait for the moment at which all clients get their next pictures."""
    wait_s = PERIOD_S - time.monotonic() % PERIOD_S
    try:
        await asyncio.wait_for(closing.wait(), wait_s)
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        return


def _part(rig: str, shot: Shot) -> bytes:
    head = (
        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(shot.jpeg)}\r\n"
        f"X-Rig: {quote(rig)}\r\nX-Time: {shot.time_s:.3f}\r\n\r\n"
    )
    return head.encode() + shot.jpeg + b"\r\n"
