"""The demo's figures against what they must reach: ``python benchmarks/demo.py``.

Reads what train/main.py, export/compare.py and runtime/stream.py left in runs/ and prints one table
in which missed figures are marked; with ``--check`` it then exits 1. ``--record`` writes
benchmarks/results/demo.json and the table of README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import replace_table
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE, SUBJECTS
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json

RESULT = in_checkout("benchmarks/results/demo.json")
SINGLES = ("rgb", "nir", "tir")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    """"%", "x", "ms" or "" for a plain number."""
    limit: float | None = None
    """What it must reach; None for a figure that is only reported."""
    at_most: bool = False
    """The limit is an upper one."""

    @property
    def reached(self) -> bool:
        """Whether the limit holds."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def shown(self, value: float) -> str:
        """Return a value as a person reads it."""
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        digits = 6 if 0.99 < value < 1 else 2
        return f"{value:.{digits}f} {self.unit}".strip()

    def row(self) -> tuple[str, str, str]:
        """Return name, value and limit as text."""
        needed = ""
        if self.limit is not None:
            needed = f"{'at most' if self.at_most else 'at least'} {self.shown(self.limit)}"
        return self.name, self.shown(self.value), needed


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; with --check the exit code is 1 if a figure is missed."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    reports = {name: read_report(arguments.runs / path) for name, path in REPORTS.items()}
    figures = [figure for collect in COLLECTORS for figure in collect(reports)]
    rows = [figure.row() for figure in figures]
    print_table(rows, [figure.reached for figure in figures])
    if arguments.record:
        record(figures, reports)
        replace_table(in_checkout("README.md"), "demo", ("figure", "measured", "needed"), rows)
    if arguments.json:
        print_json_line({figure.name: figure.value for figure in figures})
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return EXIT_CHECK_FAILED if missed and arguments.check else EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Hold the demo's figures against their limits.")
    parser.add_argument(
        "--runs",
        type=Path,
        default=in_checkout("runs"),
        help="folder of the demo's output (default: runs)",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/demo.json and README's table (default: off)",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 if a figure is missed (default: exit 0)"
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


REPORTS = {
    **{f"train {subject}": f"{subject}/metrics.json" for subject in SUBJECTS},
    **{f"compare {subject}": f"{subject}/compare/report.json" for subject in SUBJECTS},
    "stream": "stream/report.json",
}


def read_report(path: Path) -> dict[str, Any]:
    """Return one report; InputError says which command writes it."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; run make demo") from error
    return report


def training_figures(reports: dict[str, Any]) -> list[Figure]:
    """What training reached; the limits are for persons."""
    figures = []
    for subject in SUBJECTS:
        report, person = reports[f"train {subject}"], subject == "person"
        best_single = max(report["subsets"][name] for name in SINGLES)
        figures += [
            Figure(
                f"{subject}: mAP, unseen identities", report["map"], "%", 0.70 if person else None
            ),
            Figure(f"{subject}: mAP, camera unknown", report["unknown_camera_map"], "%"),
            Figure(f"{subject}: mAP, best single modality", best_single, "%"),
            Figure(
                f"{subject}: mAP, untrained network",
                report["untrained_map"],
                "%",
                0.25 if person else None,
                at_most=True,
            ),
            Figure(f"{subject}: R-1", report["r1"], "%"),
        ]
    return figures


def export_figures(reports: dict[str, Any]) -> list[Figure]:
    """How ONNX differs from PyTorch."""
    figures = []
    for subject in SUBJECTS:
        torch_model, onnx_model = reports[f"compare {subject}"]["models"][:2]
        points = 100 * abs(torch_model["map"] - onnx_model["map"])
        figures += [
            Figure(f"{subject}: ONNX, least cosine", onnx_model["cosine_min"], "", 0.99999),
            Figure(f"{subject}: ONNX, mAP difference in points", points, "", 0.1, at_most=True),
            Figure(
                f"{subject}: PyTorch over ONNX, time",
                torch_model["p50_ms"] / onnx_model["p50_ms"],
                "x",
            ),
        ]
    return figures


def stream_figures(reports: dict[str, Any]) -> list[Figure]:
    """What the two rigs saw."""
    report = reports["stream"]
    return [
        Figure("stream: speed over real time, 6 cameras", report["real_time_factor"], "x", 1.0),
        Figure("stream: sync error p95", report["sync_error_p95_ms"], "ms", 20.0, at_most=True),
        Figure("stream: right identity, later sightings", report["identity_accuracy"], "%", 0.85),
        Figure("stream: of these, at the same rig", report["identity_accuracy_within"], "%"),
        Figure("stream: of these, at the other rig", report["identity_accuracy_across"], "%"),
        Figure("stream: detection recall", report["detection_recall"], "%"),
        Figure("stream: detection precision", report["detection_precision"], "%"),
        Figure("stream: frames dropped", report["frames_dropped"], ""),
    ]


COLLECTORS: tuple[Callable[[dict[str, Any]], list[Figure]], ...] = (
    training_figures,
    export_figures,
    stream_figures,
)


def print_table(rows: Sequence[tuple[str, str, str]], reached: Sequence[bool]) -> None:
    """Print the rows, a mark before each that is missed."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row, good in zip(rows, reached, strict=True):
        mark = " " if good else "!"
        print(f"{mark} {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}".rstrip())


def record(figures: Sequence[Figure], reports: dict[str, Any]) -> None:
    """Write the figures with device and versions."""
    write_json(
        RESULT,
        {
            "environment": environment(),
            "seconds": {subject: reports[f"train {subject}"]["seconds"] for subject in SUBJECTS},
            "figures": [
                {"name": f.name, "value": f.value, "unit": f.unit, "limit": f.limit}
                for f in figures
            ],
        },
    )


if __name__ == "__main__":
    sys.exit(run(main))
