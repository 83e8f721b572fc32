"""Six live cameras with the demo's models: ``python benchmarks/live.py``.

GStreamer's RTSP server plays the demo's scene live on loopback; the stream watches it as its users
would, in a process of its own. Measured: processor time, frames that came into no triplet, load,
and how long after a subject is wholly in the reference picture the first event about it is on disk.
When the scene began by the wall clock is what makes events' boxes fit the truth best.

``--record`` writes benchmarks/results/live.json and the table in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
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
from runtime.figures.scoring import TrueFrame, iou, read_truth
from tests.live_run import LiveRun, live_rigs, mounts
from tests.rtsp import RtspServer

SCENE: Final = in_checkout("data/synthetic/scene")
RESULT: Final = in_checkout("benchmarks/results/live.json")
PAGE: Final = in_checkout("docs/reliability.md")
HEADER: Final = ("six live cameras, 640x360 at 25 frames/s", "measured", "needed")
WHOLE: Final = 0.99
"""A subject is wholly in the picture from this share of it on."""
SAME: Final = 0.3
"""An event's box is of the subject that it overlaps so much."""
POLL_S: Final = 0.01
SETTLED_S: Final = 8.0
"""Visits that begin earlier after the start are left out: rigs are still warming up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Watch, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=100.0, help="how long to watch, s (default: 100)"
    )
    parser.add_argument(
        "--record", action="store_true", help="write live.json and the table of the page"
    )
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    if not (SCENE / "rigs.yaml").exists():
        raise InputError(f"{SCENE} is not there; make it with: make demo")
    with tempfile.TemporaryDirectory() as folder:
        result = watch(Path(folder), arguments.seconds)
    rows = table(result)
    print(markdown(HEADER, rows))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(PAGE, "live", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def watch(folder: Path, seconds: float) -> dict[str, Any]:
    """Run the stream for ``seconds`` and return the figures."""
    units = in_checkout("build/units")  # converted clips, for the next time too
    units.mkdir(parents=True, exist_ok=True)
    with RtspServer(mounts(SCENE), units) as server:
        began_s = time.time()
        rigs = live_rigs(SCENE, server, folder / "rigs.yaml")
        with LiveRun(rigs, folder / "out", []) as stream:
            told_s, cpu_s = follow(stream, seconds)
            code, drain_s = stream.stop()
        log = stream.log()
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    events = stream.events()
    latency = latencies(events, told_s, began_s)
    frames = sum(3 * rig["triplets"] for rig in report["rigs"].values())
    return {
        "exit_code": code,
        "seconds": seconds,
        "cores_used": round(cpu_s / seconds, 3),
        "drain_s": round(drain_s, 2),
        "triplets_per_s": {
            name: round(rig["triplets"] / report["footage_s"], 2)
            for name, rig in report["rigs"].items()
        },
        "skipped_frames": sum(sum(rig["skipped"].values()) for rig in report["rigs"].values()),
        "unpaired_share": round(report["frames_dropped"] / max(1, frames), 4),
        "raised_load": log.count(" load 1 "),
        "events": len(events),
        **latency,
    }


def follow(stream: LiveRun, seconds: float) -> tuple[dict[str, float], float]:
    """Note when each event is there to be read, by id, Unix s; and the processor time, s."""
    told_s: dict[str, float] = {}
    until_s = time.monotonic() + seconds
    cpu_s = 0.0
    while time.monotonic() < until_s:
        for event in stream.events()[len(told_s) :]:
            told_s[event["id"]] = time.time()
        cpu_s = _cpu_s(stream.pid)
        time.sleep(POLL_S)
    return told_s, cpu_s


def latencies(
    events: Sequence[dict[str, Any]], told_s: Mapping[str, float], began_s: float
) -> dict[str, Any]:
    """Return percentiles of what lies between a subject's arrival and what is said about it."""
    truth = reference_frames()
    boxed = [e for e in events if e["event"] in ("glimpse", "sighting") and e["id"] in told_s]
    start_s = aligned(boxed, truth, began_s)
    first: dict[str, dict[tuple[str, str, float], float]] = {"glimpse": {}, "sighting": {}}
    for event in boxed:
        visit = arrival(event, truth[event["rig"]], start_s)
        if visit is not None:
            who, whole_s = visit
            if whole_s < began_s + SETTLED_S:
                continue
            key = event["rig"], who, whole_s
            since_s = told_s[event["id"]] - whole_s
            first[event["event"]][key] = min(since_s, first[event["event"]].get(key, np.inf))
    return {
        f"{kind}_latency_s": {
            "visits": len(found),
            **{
                f"p{share}": round(float(np.percentile(list(found.values()), share)), 3)
                for share in (50, 90, 95)
                if found
            },
        }
        for kind, found in first.items()
    }


def reference_frames() -> dict[str, list[TrueFrame]]:
    """Return the truth of each rig's reference camera, times from the begin of its clip."""
    frames: dict[str, list[tuple[int, TrueFrame]]] = defaultdict(list)
    for (rig, modality, index), frame in read_truth(SCENE / "truth.jsonl").items():
        if modality == "rgb":
            frames[rig].append((index, frame))
    return {rig: [frame for _, frame in sorted(found, key=_index)] for rig, found in frames.items()}


def aligned(
    events: Sequence[dict[str, Any]], truth: Mapping[str, list[TrueFrame]], guess_s: float
) -> float:
    """Return the Unix time at which the scene began, near ``guess_s``: where most boxes fit."""
    candidates = guess_s + np.arange(-3.0, 3.0, 0.02)
    fits = [
        sum(_overlap(event, truth[event["rig"]], start_s) for event in events)
        for start_s in candidates
    ]
    return float(candidates[int(np.argmax(fits))])


def arrival(
    event: Mapping[str, Any], frames: list[TrueFrame], start_s: float
) -> tuple[str, float] | None:
    """Return who an event is about and when they were first wholly in the picture, Unix s.

    None for nobody, and for who is there when a round of the clip begins: nobody arrives out of
    nothing.
    """
    index = _frame(event, frames, start_s)
    best = max(
        frames[index].subjects, key=lambda subject: iou(subject.box, event["box"]), default=None
    )
    if best is None or iou(best.box, event["box"]) < SAME:
        return None
    whole_s = None
    for frame in reversed(frames[: index + 1]):
        seen = [s for s in frame.subjects if s.identity == best.identity]
        if not seen:
            break
        if frame is frames[0]:
            return None
        if seen[0].visible >= WHOLE:
            whole_s = frame.time_s - frames[0].time_s
    if whole_s is None:
        return None
    period_s = _period_s(frames)
    round_ = (event["time_s"] - start_s) // period_s
    return best.identity, start_s + round_ * period_s + whole_s


def table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the page's table."""
    rate = min(result["triplets_per_s"].values())
    glimpse, sighting = result["glimpse_latency_s"], result["sighting_latency_s"]
    return [
        ("cores used, of 2", f"{result['cores_used']:.2f}", ""),
        ("triplets a second and rig", f"{rate:.1f}", "25"),
        ("frames too old to be worked on", f"{result['skipped_frames']}", "0"),
        ("subject wholly in view to first event (glimpse), p50", f"{glimpse['p50']:.2f} s", ""),
        ("the same, p95", f"{glimpse['p95']:.2f} s", "under 1 s"),
        ("subject wholly in view to sighting, p50", f"{sighting['p50']:.2f} s", ""),
        ("the same, p95", f"{sighting['p95']:.2f} s", ""),
        ("SIGTERM to the end", f"{result['drain_s']:.2f} s", "at most 10 s"),
    ]


def _frame(event: Mapping[str, Any], frames: list[TrueFrame], start_s: float) -> int:
    times = np.array([frame.time_s for frame in frames]) - frames[0].time_s
    return int(np.abs(times - (event["time_s"] - start_s) % _period_s(frames)).argmin())


def _period_s(frames: list[TrueFrame]) -> float:
    """Return how long a round of the clip takes, as tests/rtsp_server.py plays it."""
    length_s = frames[-1].time_s - frames[0].time_s
    return length_s + length_s / (len(frames) - 1)


def _overlap(event: Mapping[str, Any], frames: list[TrueFrame], start_s: float) -> float:
    subjects = frames[_frame(event, frames, start_s)].subjects
    return max((iou(subject.box, event["box"]) for subject in subjects), default=0.0)


def _index(item: tuple[int, TrueFrame]) -> int:
    return item[0]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(run(main))
