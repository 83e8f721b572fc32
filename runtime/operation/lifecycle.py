"""Signals to a live run: SIGTERM and SIGINT end it in a stated time, SIGHUP reads the rigs anew."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from mambapro.cli import InputError
from mambapro.contract import EXIT_CHECK_FAILED
from runtime.config import RigConfig
from runtime.feeds.live import LiveFeed

log = logging.getLogger(__name__)


def reload_rigs(feed: LiveFeed, read_rigs: Callable[[], Sequence[RigConfig]]) -> list[str]:
    """Read the rigs anew and watch them; return their names. InputError leaves all as it is."""
    rigs = read_rigs()
    feed.reconfigure(rigs)
    return [rig.name for rig in rigs]


@contextlib.contextmanager
def heeding_signals(feed: LiveFeed, reload: Callable[[], object], drain_s: float) -> Iterator[None]:
    """Let signals stop ``feed`` and ``reload`` its rigs while the block runs; in the main thread.

    After SIGTERM or SIGINT what was seen is decided and handed on. The process ends ``drain_s``
    after the signal at the latest, with exit code 1 if it had to be cut off.
    """

    def stop(number: int, _: FrameType | None) -> None:
        log.info("%s: ending", signal.Signals(number).name)
        cut_off = threading.Timer(drain_s, _cut_off, [drain_s])
        cut_off.daemon = True
        cut_off.start()
        feed.stop()

    def read_anew(_: int, __: FrameType | None) -> None:
        try:
            reload()
        except InputError as error:
            log.error("SIGHUP: the rigs stay as they are: %s", error)

    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGTERM, stop),
            (signal.SIGINT, stop),
            (signal.SIGHUP, read_anew),
        )
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cut_off(drain_s: float) -> None:
    log.error("not ended %.0f s after the signal; cut off", drain_s)
    os._exit(EXIT_CHECK_FAILED)
