"""Who is recognised in scenes that nothing was tuned on: ``python benchmarks/scenes.py``.

Renders scenes of other seeds than the demo's, runs the stream on each with the demo's models, and
adds up their sightings. ``--record`` writes benchmarks/results/scenes.json and README's table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import replace_table
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.synthetic.scenes import write_scene
from runtime import stream

RESULT: Final = in_checkout("benchmarks/results/scenes.json")
SEEDS: Final = (201, 202, 203, 204)
KINDS: Final = {
    "later": "later sightings", "within": "same rig", "across": "other rig",
    "new": "strangers called new",
}  # fmt: skip
SHARES: Final = ("detection_recall", "detection_precision", "tracking_recall")
HEADER: Final = (
    "scene", *KINDS.values(), "detection recall", "precision", "tracking recall",
    "sync error p95", "speed",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run every scene; print one table, its last line all scenes together."""
    arguments = parse(
        argv,
        "Run the stream on scenes nothing was tuned on.",
        "benchmarks/results/scenes.json and README's table",
    )
    start_logging(arguments.verbose)
    reports = {seed: watch(seed, arguments.folder) for seed in arguments.seeds}
    pooled = pool(list(reports.values()))
    rows = [scene_row(str(seed), report) for seed, report in reports.items()]
    rows.append(("all", *(shown(pooled[kind]) for kind in KINDS), *[""] * 5))
    for row in (HEADER, *rows):
        print(
            "  ".join(cell.rjust(max(8, len(name))) for name, cell in zip(HEADER, row, strict=True))
        )
    result = {"pooled": pooled, "scenes": {str(k): v for k, v in reports.items()}}
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(in_checkout("README.md"), "scenes", HEADER, rows)
    if arguments.json:
        print_json_line(pooled)
    return EXIT_DONE


def parse(argv: Sequence[str] | None, description: str, written: str) -> argparse.Namespace:
    """Return the command line of a benchmark on scenes, which records in the files ``written``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS,
        help=f"seeds of the scenes (default: {' '.join(map(str, SEEDS))})",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/scenes"),
        help="folder for clips and reports; what is there is used again (default: runs/scenes)",
    )  # fmt: skip
    parser.add_argument("--record", action="store_true", help=f"write {written} (default: off)")
    add_common_arguments(parser)
    return parser.parse_args(argv)


def watch(seed: int, folder: Path, name: str = "stream", *settings: str) -> dict[str, Any]:
    """Run the stream on the scene ``seed``, into the folder ``name``; return its report."""
    scene = write_scene(folder / f"scene{seed}", seed=seed)
    output = folder / f"{name}{seed}"
    changed = [argument for setting in settings for argument in ("--set", setting)]
    rigs = str(scene / "rigs.yaml")
    stream.main(["--rigs", rigs, "--output", str(output), "--no-video", *changed])
    report: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return report


def counted(report: dict[str, Any], kind: str) -> tuple[int, int]:
    """Return how many sightings of a kind got the right identity, and how many there were."""
    if kind == "later":
        here, there = counted(report, "within"), counted(report, "across")
        return here[0] + there[0], here[1] + there[1]
    count = report["identity_counts"][kind]
    return round(count * (report[f"identity_accuracy_{kind}"] or 0)), count


def pool(reports: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return right and all sightings of each kind over all scenes."""
    counts = {kind: [counted(report, kind) for report in reports] for kind in KINDS}
    return {k: (sum(r for r, _ in pairs), sum(n for _, n in pairs)) for k, pairs in counts.items()}


def scene_row(name: str, report: dict[str, Any]) -> tuple[str, ...]:
    """Return one scene's cells."""
    return (
        name,
        *(shown(counted(report, kind)) for kind in KINDS),
        *(f"{100 * report[key]:.1f} %" for key in SHARES),
        f"{report['sync_error_p95_ms']:.1f} ms",
        f"{report['real_time_factor']:.2f} x",
    )


def shown(pair: tuple[int, int]) -> str:
    """Return "right of all", with the share."""
    right, count = pair
    return f"{right} of {count} ({100 * right / max(1, count):.0f} %)"


if __name__ == "__main__":
    sys.exit(run(main))
