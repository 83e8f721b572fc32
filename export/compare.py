"""Hold model files against PyTorch on a test split: ``python export/compare.py``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, get_args

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from export import divergence_report
from export.candidates import PATTERNS, ScanChoice, open_candidates
from export.divergence_report import THRESHOLDS
from export.evaluation_data import read_test_split
from export.figure import draw
from export.measure import measure
from export.opening import Opening
from export.report import Report
from mambapro import native
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig, from_record
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.datasets import Dataset
from mambapro.environment import environment
from mambapro.files import in_checkout, replacing, write_json, write_text
from runtime.engines import DEFAULT_PROVIDERS

DEFAULT_CHECKPOINT: Final = in_checkout("runs/person/best.pt")
DEFAULT_MAX_MAP_DROP: Final = 0.5
DEFAULT_ROUNDS: Final = 100
PICTURE: Final = "report.png"

_log = logging.getLogger("compare")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the arguments say, write the report, return 1 if a model fails."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    return bisect(arguments) if arguments.bisect else compare(arguments)


def compare(arguments: argparse.Namespace) -> int:
    """Hold the models against PyTorch."""
    output = arguments.output or arguments.checkpoint.parent / "compare"
    reference = Opening(arguments.checkpoint, True, arguments.threads, tuple(arguments.providers))
    with ExitStack() as stack:
        candidates = open_candidates(reference, arguments.models, arguments.scan, stack)
        config = from_record(ExperimentConfig, candidates.compared[0].engine.spec.training)
        dataset = read_test_split(config, arguments.data)
        check_writable(output)
        _log.info("comparing %d models on %s", len(candidates.compared), describe(dataset))
        measured = measure(candidates.compared, dataset, arguments.rounds, quick=arguments.quick)
    report = Report(
        measured,
        describe(dataset),
        arguments.max_map_drop,
        {
            **environment(),
            "torch_threads": torch.get_num_threads(),
            "onnxruntime_threads": arguments.threads or "every core",
            "providers": ", ".join(arguments.providers),
        },
        candidates.left_out,
    )
    write_report(report, output)
    print(report.as_text())
    if arguments.json:
        print_json_line(report.as_json())
    for problem in report.problems():
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_CHECK_FAILED if report.problems() else EXIT_DONE


def bisect(arguments: argparse.Namespace) -> int:
    """Find the first layer in which two files differ."""
    if arguments.models or arguments.scan == "both":
        what = arguments.models[0] if arguments.models else "--scan both"
        raise InputError(f"--bisect takes its own two files, and one scan: leave out {what}")
    if arguments.scan == "operator":
        native.require_library("onnxruntime")
    found = divergence_report.bisect_files(
        arguments.bisect,
        data=arguments.data,
        pictures=arguments.pictures,
        threshold=arguments.threshold,
        threads=arguments.threads,
        native_scan=arguments.scan != "function",
    )
    print(divergence_report.as_text(found, arguments.bisect))
    if arguments.json:
        print_json_line(divergence_report.as_json(found, arguments.bisect))
    return EXIT_DONE if found.first_layer is None else EXIT_CHECK_FAILED


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Compare model files of all precisions with the PyTorch network they were "
        "exported from: features, ranking, missing modalities, latency, memory, size. Exit code 1 "
        "when ranking suffers or embeddings are degenerate. With --bisect: find the first layer in "
        "which two files differ, exit code 1 if there is one."
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        metavar="MODEL",
        help=f"model files and engines (default: every {' and '.join(PATTERNS)} beside the "
        "checkpoint; engines that do not run here are then left out)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help=f"checkpoint of train/main.py (default: {DEFAULT_CHECKPOINT})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that contains the dataset (default: data.root of the checkpoint)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"where report.json, report.md and {PICTURE} go (default: compare/ beside the "
        "checkpoint)",
    )
    parser.add_argument(
        "--max-map-drop",
        type=float,
        default=DEFAULT_MAX_MAP_DROP,
        metavar="POINTS",
        help="largest drop of mAP that passes, percentage points "
        f"(default: {DEFAULT_MAX_MAP_DROP})",
    )
    parser.add_argument(
        "--scan",
        choices=get_args(ScanChoice),
        help="what computes the selective scan of ONNX files: our compiled operator, the function "
        "in the file, or one after the other (default: the operator if it is built; files that "
        "were found beside the checkpoint, if float32, both)",
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=DEFAULT_ROUNDS,
        metavar="N",
        help=f"timed calls of each model, number (default: {DEFAULT_ROUNDS})",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out missing modalities and memory, which take most of the time (default: off)",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads of each engine, number (default: every core)",
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        default=DEFAULT_PROVIDERS,
        metavar="NAME",
        help="execution providers of ONNX Runtime, the preferred one first; --bisect runs on the "
        f"CPU (default: {' '.join(DEFAULT_PROVIDERS)})",
    )
    _add_bisect_arguments(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def _add_bisect_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("bisection")
    group.add_argument(
        "--bisect",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="two ONNX files of one network, of any precision: compare them layer by layer "
        "instead (default: off)",
    )
    limits = ", ".join(f"{name} {value:g}" for name, value in THRESHOLDS.items())
    group.add_argument(
        "--threshold",
        type=_threshold,
        metavar="ERROR",
        help="relative error above which a layer of B differs from A's, share (default: that of "
        f"the coarser precision: {limits})",
    )
    group.add_argument(
        "--pictures",
        type=_positive,
        default=divergence_report.DEFAULT_PICTURES,
        metavar="N",
        help=f"test triplets to run, number (default: {divergence_report.DEFAULT_PICTURES})",
    )


def describe(dataset: Dataset) -> str:
    """Return the data in a few words."""
    return (
        f"{dataset.layout} test split, {len(dataset.query)} queries, {len(dataset.gallery)} gallery"
    )


def check_writable(folder: Path) -> None:
    """Raise OSError now rather than after minutes of work."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_report(report: Report, folder: Path) -> None:
    """Write report.json, report.md and the picture into ``folder``, each whole or not at all."""
    write_json(folder / "report.json", report.as_json())
    write_text(folder / "report.md", report.as_markdown(PICTURE))
    with replacing(folder / PICTURE) as aside:
        draw(report, aside)
    _log.info("report: %s", folder / "report.md")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _threshold(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {value:g}")
    return value


if __name__ == "__main__":
    sys.exit(run(main))
