"""Hours of a live stream in minutes: cameras fail at random, and nothing may grow or get lost.

``python tests/soak.py --minutes 30`` (``make soak``) watches two small rigs over RTSP, provokes
seeded faults one after the other, samples the process's memory, threads and files every second, and
judges them at the end. docs/reliability.md shows the recorded run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from tests.live_run import LiveRun, live_rigs, mounts
from tests.rtsp import RtspServer
from tests.runtime_scenes import Walk, write_colour_model, write_scene

RESULT: Final = in_checkout("benchmarks/results/soak.json")
SETTINGS: Final = (
    "models.vehicle=null", "match.decide_after=2", "live.warm_up_s=1.5", "live.remember_s=30",
    "sync.tolerance_s=0.05", "sync.every_s=20", "source.read_timeout_s=1.5",
    "source.connect_timeout_s=1.5", "source.stalled_after_s=0.4", "gallery.templates=5",
)  # fmt: skip
MAX_GROWTH: Final = 0.02
"""Of memory over the second half: the medians of its first and last fifth are compared."""
MORE_THREADS: Final = 3
MORE_FILES: Final = 8
"""How many more there may be in the last fifth than at their most in the second."""


@dataclass(frozen=True)
class Usage:
    """What the process holds at one moment."""

    at_s: float
    rss_mb: float
    threads: int
    files: int


def usage(pid: int, at_s: float) -> Usage:
    """Read it from /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(at_s, int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files)


def write_soak_scene(folder: Path) -> Path:
    """Two rigs, two subjects, 6 s a round; with a model of their colours."""
    walks = {
        "gate": [Walk("a", 0.6, speed=150)],
        "yard": [Walk("a", 3.4, speed=150), Walk("b", 0.6, speed=150, leftwards=True)],
    }
    write_scene(folder, walks, 6.0)
    write_colour_model(folder / "person.onnx")
    return folder


class Faults:
    """One fault after the other, chosen and timed by a seed; each is taken back."""

    def __init__(self, server: RtspServer, cameras: Sequence[str], seed: int) -> None:
        self._server, self._cameras = server, list(cameras)
        self._random = random.Random(seed)
        self._undo: Callable[[], None] | None = None
        self._next_s = 10.0
        self.counts: dict[str, int] = {}

    def advance(self, at_s: float) -> None:
        """Provoke or take back a fault when its time has come."""
        if at_s < self._next_s:
            return
        if self._undo is not None:
            self._undo()
            self._undo = None
            self._next_s = at_s + self._random.uniform(3.0, 9.0)
            return
        kind = self._random.choice(("freeze", "freeze two", "kill", "jump"))
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._undo = self._provoke(kind)
        self._next_s = at_s + self._random.uniform(1.0, 6.0)

    def _provoke(self, kind: str) -> Callable[[], None]:
        if kind == "kill":
            self._server.stop()
            return self._server.start
        if kind == "jump":
            camera, seconds = self._random.choice(self._cameras), self._random.choice((-5.0, 5.0))
            self._server.jump(camera, seconds)
            return lambda: self._server.jump(camera, -seconds)
        frozen = self._random.sample(self._cameras, 2 if kind == "freeze two" else 1)
        for camera in frozen:
            self._server.freeze(camera)

        def thaw() -> None:
            for camera in frozen:
                self._server.thaw(camera)

        return thaw


def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run for ``minutes``; return figures, and under ``problems`` what must not be."""
    scene = write_soak_scene(folder / "scene")
    clips = mounts(scene)
    samples: list[Usage] = []
    with RtspServer(clips, folder) as server:
        rigs = live_rigs(scene, server, folder / "rigs.yaml")
        model = f"models.person={scene / 'person.onnx'}"
        faults = Faults(server, list(clips), seed)
        with LiveRun(rigs, folder / "out", [*SETTINGS, model]) as stream:
            began_s = time.monotonic()
            while (at_s := time.monotonic() - began_s) < 60 * minutes:
                faults.advance(at_s)
                stream.check()
                samples.append(usage(stream.pid, at_s))
                time.sleep(1.0)
            code, drain_s = stream.stop()
    result = judged(samples, stream.events(), code)
    return {
        "minutes": minutes, "seed": seed, "faults": faults.counts, "drain_s": round(drain_s, 2),
        **result,
    }  # fmt: skip


def judged(samples: Sequence[Usage], events: Sequence[dict[str, Any]], code: int) -> dict[str, Any]:
    """Return the figures of a run and its problems."""
    growth = memory_growth([sample.rss_mb for sample in samples])
    second, last = fifth(samples, 1), fifth(samples, 4)
    threads = max(s.threads for s in last) - max(s.threads for s in second)
    files = max(s.files for s in last) - max(s.files for s in second)
    gaps, doubled = sequence_faults([event["id"] for event in events])
    sightings = [event for event in events if event["event"] == "sighting"]
    ended = {(e["rig"], e["track"], e["identity"]) for e in events if e["event"] == "track_end"}
    open_ends = [e for e in sightings if (e["rig"], e["track"], e["identity"]) not in ended]
    checks = {
        f"exit code {code}": code != EXIT_DONE,
        f"memory grew by {growth:.1%}": growth >= MAX_GROWTH,
        f"{threads} more threads": threads > MORE_THREADS,
        f"{files} more open files": files > MORE_FILES,
        f"{gaps} events lost": gaps > 0,
        f"{doubled} events doubled": doubled > 0,
        f"{len(open_ends)} sightings without an end": bool(open_ends),
        "nobody was recognised": not any(event["known"] for event in sightings),
    }
    return {
        "memory_mb": [round(fifth_median(samples, i), 1) for i in range(5)],
        "memory_growth_second_half": round(growth, 4),
        "threads": [max(s.threads for s in fifth(samples, i)) for i in range(5)],
        "open_files": [max(s.files for s in fifth(samples, i)) for i in range(5)],
        "events": len(events),
        "sightings": len(sightings),
        "recognised": sum(event["known"] for event in sightings),
        "events_lost": gaps,
        "events_doubled": doubled,
        "problems": [words for words, wrong in checks.items() if wrong],
    }


def fifth(samples: Sequence[Usage], index: int) -> list[Usage]:
    """Return one fifth of the run."""
    parts = np.array_split(np.arange(len(samples)), 5)
    return [samples[i] for i in parts[index]]


def fifth_median(samples: Sequence[Usage], index: int) -> float:
    """Return the median memory of one fifth, MB."""
    return float(np.median([sample.rss_mb for sample in fifth(samples, index)]))


def memory_growth(rss_mb: Sequence[float]) -> float:
    """Return by how much memory grew over the second half, as a share.

    The line through all its samples says it, so that one busy moment does not.
    """
    half = np.asarray(rss_mb[len(rss_mb) // 2 :])
    slope, start = np.polyfit(np.arange(len(half)), half, 1)
    return float(slope * len(half) / start)


def sequence_faults(ids: Sequence[str]) -> tuple[int, int]:
    """Return how many events a run without restart lost and doubled, by the count in their ids."""
    numbers = [int(identifier.rpartition("-")[2]) for identifier in ids]
    return len(set(range(max(numbers, default=-1) + 1)) - set(numbers)), len(numbers) - len(
        set(numbers)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Soak as the arguments say; exit code 1 when something grew or got lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="how long, minutes (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults (default: 1)")
    parser.add_argument(
        "--record", action="store_true", help=f"write {RESULT.name} into benchmarks/results"
    )
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    with tempfile.TemporaryDirectory() as folder:
        result = soak(arguments.minutes, arguments.seed, Path(folder))
    for name, value in result.items():
        print(f"{name:28} {value}")
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
    if arguments.json:
        print_json_line(result)
    return EXIT_CHECK_FAILED if result["problems"] else EXIT_DONE


if __name__ == "__main__":
    sys.exit(run(main))
