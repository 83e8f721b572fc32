"""What other threads want done by the one that decides, between two instants."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")
MOST_WAITING: Final = 16
MOST_AT_ONCE: Final = 4
"""Errands between two instants; more wait for the next, so that cameras do not."""


class BusyError(Exception):
    """The deciding thread had no time, or the run is over: nothing was done."""


class Errands:
    """A bounded queue of calls. What decides owns :meth:`run` and :meth:`close`."""

    def __init__(self, patience_s: float = 5.0) -> None:
        """Let callers wait ``patience_s`` for their errand to begin."""
        self._patience_s = patience_s
        self._closed = False
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(
            MOST_WAITING
        )

    def ask(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises, in the deciding thread.

        BusyError when it was not begun in time: then it never will be.
        """
        answer: Future[T] = Future()
        try:
            self._waiting.put_nowait((answer, work))
        except queue.Full:
            raise BusyError(f"{MOST_WAITING} changes wait already; try again") from None
        if self._closed:
            self._drop()
        wait([answer], self._patience_s)
        if not answer.done() and answer.cancel():
            raise BusyError(
                f"the deciding thread had no time for {self._patience_s:g} s; nothing was changed, "
                "try again"
            )
        try:
            return answer.result()  # one that has begun is waited for
        except CancelledError:
            raise BusyError("the run is ending; nothing was changed") from None

    def run(self) -> None:
        """Do what waits, a few at most."""
        for _ in range(MOST_AT_ONCE):
            try:
                answer, work = self._waiting.get_nowait()
            except queue.Empty:
                return
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(work())
                except Exception as error:  # it is the asker's
                    answer.set_exception(error)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        while True:
            try:
                answer, _ = self._waiting.get_nowait()
            except queue.Empty:
                return
            answer.cancel()
            answer.set_running_or_notify_cancel()  # without it, who waits is not told
