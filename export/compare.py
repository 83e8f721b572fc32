"""Hold model files against PyTorch on a test split: ``python export/compare.py``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from export.evaluation_data import read_test_split
from export.figure import draw
from export.measure import Candidate, measure
from export.report import Report
from export.torch_engine import TorchEngine
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.datasets import Dataset
from mambapro.environment import environment
from mambapro.files import in_checkout, replacing, write_json, write_text
from mambapro.model.weights import Checkpoint, load_checkpoint
from mambapro.spec import ModelSpec
from runtime.engines import DEFAULT_PROVIDERS, OnnxEngine

DEFAULT_CHECKPOINT: Final = in_checkout("runs/person/best.pt")
DEFAULT_MAX_MAP_DROP: Final = 0.5
DEFAULT_ROUNDS: Final = 30
PICTURE: Final = "report.png"

_log = logging.getLogger("compare")


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the arguments say, write the report, return 1 if a model fails."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    checkpoint = read_checkpoint(arguments.checkpoint)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    candidates = read_candidates(checkpoint, arguments)
    dataset = read_test_split(checkpoint.config, arguments.data)
    _log.info("comparing %d models on %s", len(candidates), describe(dataset))
    report = Report(
        measure(candidates, dataset, arguments.rounds),
        describe(dataset),
        arguments.max_map_drop,
        {
            **environment(),
            "torch_threads": torch.get_num_threads(),
            "onnxruntime_threads": arguments.threads or "every core",
            "providers": ", ".join(arguments.providers),
        },
    )
    write_report(report, arguments.output or arguments.checkpoint.parent / "compare")
    print(report.as_text())
    if arguments.json:
        print_json_line(report.as_json())
    for problem in report.problems():
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_CHECK_FAILED if report.problems() else EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Compare model files with the PyTorch network they were exported from: "
        "features, ranking, latency, size. Exit code 1 when ranking suffers or embeddings are "
        "degenerate."
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        metavar="MODEL",
        help="model files (default: model.onnx beside the checkpoint)",
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
        "--rounds",
        type=_positive,
        default=DEFAULT_ROUNDS,
        metavar="N",
        help=f"timed calls of each model, number (default: {DEFAULT_ROUNDS})",
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
        help="execution providers of ONNX Runtime, the preferred one first "
        f"(default: {' '.join(DEFAULT_PROVIDERS)})",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint; InputError says how to make one."""
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}; train one with train/main.py or give --checkpoint"
        )
    return load_checkpoint(path)


def read_candidates(checkpoint: Checkpoint, arguments: argparse.Namespace) -> list[Candidate]:
    """Return PyTorch, then every model file; InputError when one comes from other weights."""
    source: Path = arguments.checkpoint
    paths: list[Path] = arguments.models or [source.with_name("model.onnx")]
    reference = TorchEngine(checkpoint.config, checkpoint.network)
    candidates = [Candidate("PyTorch", "pytorch", source.stat().st_size, reference)]
    unique = len({path.name for path in paths}) == len(paths)
    for path in paths:
        engine = OnnxEngine(path, threads=arguments.threads, providers=arguments.providers)
        check_same_weights(engine.spec, reference.spec, path, source)
        name = path.name if unique else str(path)
        candidates.append(Candidate(name, target(engine.spec), path.stat().st_size, engine))
    return candidates


def check_same_weights(spec: ModelSpec, reference: ModelSpec, path: Path, source: Path) -> None:
    """Raise InputError unless ``path`` was exported from the checkpoint ``source``."""
    if spec.embedding_space != reference.embedding_space:
        raise InputError(
            f"{path} was not exported from {source} (embedding space {spec.embedding_space[:12]}, "
            f"expected {reference.embedding_space[:12]}); export it again or give --checkpoint"
        )


def target(spec: ModelSpec) -> str:
    """Return what a file was made for: its calibration says so, a float file runs anywhere."""
    return str((spec.calibration or {}).get("target", "any"))


def describe(dataset: Dataset) -> str:
    """Return the data in a few words."""
    return (
        f"{dataset.layout} test split, {len(dataset.query)} queries, {len(dataset.gallery)} gallery"
    )


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


if __name__ == "__main__":
    sys.exit(run(main))
