"""How the ways to choose INT8 ranges rank on the test split: ``python benchmarks/calibration.py``.

Every method is calibrated on the same triplets of the training split; the test split only judges.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.calibrate import Settings
from export.evaluation_data import embed_test_split, read_test_split
from export.measure import quality
from export.model_file import DEFAULT_SOURCE, open_source
from export.qdq import TARGETS
from export.to_fp16 import convert
from export.to_int8 import quantize
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig, from_record
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from runtime.engines import OnnxEngine

WAYS: Final = (
    Settings(method="max", held_out=0),
    Settings(method="percentile", percent=99.999, held_out=0),
    Settings(method="percentile", percent=99.99, held_out=0),
    Settings(method="percentile", percent=99.9, held_out=0),
    Settings(method="entropy", held_out=0),
)
DEFAULT_OUTPUT: Final = in_checkout("benchmarks/results/calibration.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each way for each target; print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare ways to choose INT8 ranges.")
    parser.add_argument(
        "source", nargs="?", type=Path, default=DEFAULT_SOURCE, metavar="SOURCE",
        help=f"float32 model file (default: {DEFAULT_SOURCE})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE",
        help="JSON file to write (default: benchmarks/results/calibration.json)",
    )  # fmt: skip
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    logging.getLogger().setLevel(logging.WARNING)
    rows = measure(arguments.source)
    result = {"environment": environment(), "rows": rows}
    write_json(arguments.output, result)
    print(table(rows))
    if arguments.json:
        print_json_line(result)
    return 0


def measure(source: Path) -> list[dict[str, Any]]:
    """Return a row for float16, then one for each way and target."""
    with tempfile.TemporaryDirectory() as name:
        own = Path(shutil.copy(source, Path(name) / "model.onnx"))
        files: dict[tuple[str, str], Path] = {("float16", "any"): convert(own).path}
        for way in WAYS:
            label = way.method if way.method != "percentile" else f"{way.percent} %"
            for target in TARGETS:
                output = own.with_name(f"{label}.{target}.onnx".replace(" %", ""))
                files[label, target] = quantize(own, output, target, way).path
        return _ranked(own, files)


def _ranked(source: Path, files: dict[tuple[str, str], Path]) -> list[dict[str, Any]]:
    _, spec = open_source(source)
    dataset = read_test_split(from_record(ExperimentConfig, spec.training))
    engines = [OnnxEngine(path) for path in (source, *files.values())]
    reference, *others = embed_test_split(engines, dataset)
    best = quality(reference, reference, dataset)
    assert best is not None
    rows = []
    for (method, target), embedded in zip(files, others, strict=True):
        figures = quality(embedded, reference, dataset)
        assert figures is not None
        rows.append(
            {
                "method": method,
                "target": target,
                "map": figures.ranking.map,
                "map_drop_points": 100 * (best.ranking.map - figures.ranking.map),
                "cosine_mean": figures.parity.cosine_mean,
                "cosine_min": figures.parity.cosine_min,
                "overlap_at_10": figures.parity.overlap_at_10,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line a row."""
    header = f"{'ranges':<12} {'target':<9} {'mAP %':>7} {'change':>7} {'cosine':>9} {'min':>9} @10"
    lines = [
        f"{row['method']:<12} {row['target']:<9} {100 * row['map']:>7.2f} "
        f"{-row['map_drop_points']:>+7.2f} {row['cosine_mean']:>9.6f} {row['cosine_min']:>9.6f} "
        f"{row['overlap_at_10']:.3f}"
        for row in rows
    ]
    return "\n".join([header, *lines])


if __name__ == "__main__":
    sys.exit(run(main))
