"""How soon live cameras are back after all of them were gone: ``python benchmarks/reconnects.py``.

Serves the demo's scene over RTSP on loopback, kills all cameras at once, starts them again after a
while chosen by a seed, and measures from when they accept connections to the first picture of each.
``--record`` writes benchmarks/results/reconnects.json and the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.readme import markdown, replace_table
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from runtime.config import SourceConfig
from runtime.sources import Frame, Source, open_source
from tests.rtsp import RtspServer

SCENE: Final = in_checkout("data/synthetic/scene")
RESULT: Final = in_checkout("benchmarks/results/reconnects.json")
PAGE: Final = in_checkout("docs/reliability.md")
HEADER: Final = ("cameras", "kills", "back after, p50", "p95", "the last one, worst kill", "needed")
STEADY_S: Final = 2.0
"""The cameras are left alone for this long before they are killed."""
AWAY_S: Final = (0.5, 6.0)
PATIENCE_S: Final = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Kill and measure; print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--seed", type=int, default=3, help="seed of the times (default: 3)")
    parser.add_argument("--record", action="store_true", help="keep the figures")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    clips = {f"{p.parent.name}-{p.stem}": p for p in sorted(SCENE.glob("*/*.mp4"))}
    if not clips:
        raise InputError(f"{SCENE} holds no clips; make them with: make {SCENE}/rigs.yaml")
    result = measure(clips, arguments.kills, random.Random(arguments.seed))
    rows = [cells(result)]
    print(markdown(HEADER, rows))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(PAGE, "reconnects", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def measure(clips: Mapping[str, Path], kills: int, chance: random.Random) -> dict[str, Any]:
    """Return after how long each camera was back, kill by kill, s."""
    config = SourceConfig()
    with contextlib.ExitStack() as owner:
        folder = Path(owner.enter_context(tempfile.TemporaryDirectory()))
        server = owner.enter_context(RtspServer(clips, folder))
        views = [View(open_source(server.url(mount), config)) for mount in clips]
        for view in views:
            owner.callback(view.close)
        back_s = []
        for _ in range(kills):
            since(views, time.monotonic())
            time.sleep(STEADY_S)
            server.stop()
            time.sleep(chance.uniform(*AWAY_S))
            server.start()
            back_s.append(since(views, time.monotonic()))
    return {"cameras": len(clips), "kills": kills, "back_s": back_s}


class View:
    """One camera, and when it gave its latest picture."""

    def __init__(self, source: Source) -> None:
        """Begin to read ``source``."""
        self.picture_s = 0.0
        self._source, self._stop = source, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and let go of the camera."""
        self._stop.set()
        self._thread.join()
        self._source.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if isinstance(self._source.read(0.1), Frame):
                self.picture_s = time.monotonic()


def since(views: Sequence[View], moment_s: float) -> list[float]:
    """Wait until every camera gave a picture after ``moment_s``; return how long each took, s."""
    took_s: dict[int, float] = {}
    while len(took_s) < len(views):
        for index, view in enumerate(views):
            if view.picture_s > moment_s:
                took_s.setdefault(index, round(view.picture_s - moment_s, 3))
        if time.monotonic() - moment_s > PATIENCE_S:
            raise RuntimeError(f"a camera gave no picture within {PATIENCE_S:g} s")
        time.sleep(0.01)
    return [took_s[index] for index in range(len(views))]


def cells(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of the table."""
    every = np.array(result["back_s"])  # (kills, cameras)
    return (
        str(result["cameras"]),
        str(result["kills"]),
        f"{np.percentile(every, 50):.2f} s",
        f"{np.percentile(every, 95):.2f} s",
        f"{every.max():.2f} s",
        "within 3 s",
    )


if __name__ == "__main__":
    sys.exit(run(main))
