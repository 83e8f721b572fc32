"""Ctrl-C, and a polite request to end, that wait for the end of a training step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C; and what ``kill``, job schedulers and torchrun send."""


class Interrupt:
    """While entered, the first signal only sets ``requested``; a second one interrupts at once.

    ``patient``, it stays at the request: under torchrun a Ctrl-C arrives twice, from the terminal
    and from torchrun, which kills what has not ended in 30 s.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested, self.patient = False, patient

    def __enter__(self) -> Interrupt:
        self._previous = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self.patient:
            for each in SIGNALS:
                signal.signal(each, signal.default_int_handler)
