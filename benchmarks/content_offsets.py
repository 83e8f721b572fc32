"""What clock offsets from content cost, and how right they are: ``python benchmarks/content_offsets.py``.

Feeds stretches of the demo's scene, whose true offsets are known, to the estimator as live rigs do, and
compares. One stretch is one estimate; live runs average them. ``--record`` writes
benchmarks/results/content_offsets.json and the table in docs/reliability.md; exit code 1 when two rigs would
need more than 3 % of a core.
"""  # noqa: E501 (shown as it is by --help)

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.readme import markdown, replace_table
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE, Modality
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.preprocess import Picture
from runtime.config import RigConfig, SyncConfig, load_rigs
from runtime.feeds.preflight import homographies
from runtime.sources import Frame, open_source
from runtime.sync.content_offsets import LONGER, reduced
from runtime.sync.offsets import ClockOffset, Grey, OffsetEstimator

RESULT: Final = in_checkout("benchmarks/results/content_offsets.json")
PAGE: Final = in_checkout("docs/reliability.md")
SPANS_S: Final = (8.0, 16.0, 32.0, 64.0)
EVERY_S: Final = 8.0
RIGS: Final = 2
ALLOWED: Final = 0.03
HEADER: Final = (
    "stretch", "estimates", "confident", "error rms", "error p95", "CPU of an estimate",
)  # fmt: skip


@dataclass(frozen=True)
class Footage:
    """One camera's clip, reduced."""

    size: tuple[int, int]
    """Height and width of its pictures, px."""
    greys: list[tuple[float, Grey]]
    """Time stamp and reduced picture."""


def main(argv: Sequence[str] | None = None) -> int:
    """Estimate in every stretch; print and record the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--scene", type=Path, default=in_checkout("data/synthetic/scene"),
        help="folder of a synthetic scene (default: data/synthetic/scene)",
    )  # fmt: skip
    parser.add_argument("--record", action="store_true", help="write JSON and table")
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    result = measure(arguments.scene)
    rows = [row(stretch) for stretch in result["stretches"]]
    print(markdown(HEADER, rows))
    share = result["share_of_a_core"]
    print(
        f"{RIGS} rigs: {100 * share:.1f} % of a core on average, {result['picture_ms']} ms a frame"
    )
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(PAGE, "content-offsets", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE if share <= ALLOWED else EXIT_CHECK_FAILED


def measure(scene: Path) -> dict[str, Any]:
    """Return errors and costs of all stretches of ``scene``, and what live rigs need."""
    truth = true_offsets(scene)
    rigs = load_rigs(scene / "rigs.yaml")
    seen = {rig.name: {m: footage(c.uri) for m, c in rig.cameras.items()} for rig in rigs}
    picture_s = float(np.mean([cost for cameras in seen.values() for _, cost in cameras.values()]))
    clips = {name: {m: clip for m, (clip, _) in cameras.items()} for name, cameras in seen.items()}
    stretches = [stretch(rigs, clips, truth, span_s) for span_s in SPANS_S]
    sync = SyncConfig()
    look_s = LONGER * sync.window_s
    look = next(item for item in stretches if item["seconds"] == look_s)
    frames = sum(len(c.greys) for c in clips[rigs[0].name].values()) / _seconds(clips[rigs[0].name])
    busy_s = look_s * frames * picture_s + look["cpu_ms"] / 1e3
    return {
        "stretches": stretches,
        "picture_ms": round(1e3 * picture_s, 3),
        "share_of_a_core": round(RIGS * busy_s / (look_s + sync.every_s), 4),
    }


def true_offsets(scene: Path) -> dict[tuple[str, str], float]:
    """Return by how much each camera's time stamps are ahead of the truth, s."""
    path = scene / "truth.jsonl"
    if not path.is_file():
        raise InputError(f"{path} is not there: make demo renders the scene")
    ahead: dict[tuple[str, str], list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        key = record["rig"], record["modality"]
        ahead.setdefault(key, []).append(record["pts_s"] - record["time_s"])
    return {key: float(np.mean(values)) for key, values in ahead.items()}


def footage(uri: str) -> tuple[Footage, float]:
    """Read a clip to its end; return it and the CPU seconds of reducing a picture."""
    source = open_source(uri)
    pictures: list[tuple[float, Grey]] = []
    first: Picture | None = None
    busy_s = 0.0
    while isinstance(frame := source.read(5.0), Frame):
        first = frame.picture if first is None else first
        begin_s = time.thread_time()
        pictures.append((frame.time_s, reduced(frame.picture)))
        busy_s += time.thread_time() - begin_s
    source.close()
    if first is None:
        raise InputError(f"{uri} holds no picture")
    return Footage((first.shape[0], first.shape[1]), pictures), busy_s / len(pictures)


def stretch(
    rigs: Sequence[RigConfig],
    clips: dict[str, dict[Modality, Footage]],
    truth: dict[tuple[str, str], float],
    span_s: float,
) -> dict[str, Any]:
    """Estimate in stretches of ``span_s``, one every EVERY_S, of every rig."""
    errors_ms: list[float] = []
    busy_s: list[float] = []
    count = 0
    for rig in rigs:
        for begin_s in np.arange(0.0, _seconds(clips[rig.name]) - span_s, EVERY_S):
            offsets, cost_s = estimate(rig, clips[rig.name], float(begin_s), span_s)
            busy_s.append(cost_s)
            for modality, offset in offsets.items():
                if modality == rig.reference:
                    continue
                count += 1
                true_s = truth[rig.name, modality] - truth[rig.name, rig.reference]
                if offset.error_s is not None:
                    errors_ms.append(1e3 * abs(offset.seconds - true_s))
    return {
        "seconds": span_s,
        "estimates": count,
        "confident": len(errors_ms),
        "error_rms_ms": round(float(np.sqrt(np.mean(np.square(errors_ms)))), 2),
        "error_p95_ms": round(float(np.percentile(errors_ms, 95)), 2),
        "cpu_ms": round(1e3 * float(np.mean(busy_s)), 1),
    }


def estimate(
    rig: RigConfig, clips: dict[Modality, Footage], begin_s: float, span_s: float
) -> tuple[dict[Modality, ClockOffset], float]:
    """Return the offsets from one stretch, and the CPU seconds of the estimate."""
    sync = SyncConfig()
    estimator = OffsetEstimator(
        rig.reference, clips[rig.reference].size, homographies(rig), window_s=span_s,
        max_offset_s=sync.max_offset_s, max_error_s=sync.max_error_s,
    )  # fmt: skip
    for modality, clip in clips.items():
        for time_s, grey in clip.greys:
            if begin_s <= time_s < begin_s + span_s:
                estimator.add(modality, time_s, grey, clip.size)
    begun_s = time.process_time()
    offsets = estimator.estimate(dict.fromkeys(clips, 0.0))
    return offsets, time.process_time() - begun_s


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """Return one length's cells."""
    return (
        f"{result['seconds']:.0f} s",
        str(result["estimates"]),
        str(result["confident"]),
        f"{result['error_rms_ms']:.1f} ms",
        f"{result['error_p95_ms']:.1f} ms",
        f"{result['cpu_ms']:.0f} ms",
    )


def _seconds(clips: dict[Modality, Footage]) -> float:
    return min(clip.greys[-1][0] - clip.greys[0][0] for clip in clips.values())


if __name__ == "__main__":
    sys.exit(run(main))
