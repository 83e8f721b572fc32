"""``compare.py --bisect``: reads two files and pictures, prints where the files part."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import onnx

from export import tables
from export.divergence import Bisection, Difference, Pair, Triplet
from export.evaluation_data import batches, read_test_split
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, from_record
from mambapro.datasets import Split
from mambapro.spec import ModelSpec, Precision, spec_from_metadata
from runtime.engines.opening import ENGINE_SUFFIX

THRESHOLDS: Final[dict[Precision, float]] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 2e-1}
"""Relative error that a sound file of a precision stays below in every layer."""
DEFAULT_PICTURES: Final = 8

_log = logging.getLogger("compare")


def bisect_files(
    paths: Sequence[Path],
    *,
    data: Path | None = None,
    pictures: int = DEFAULT_PICTURES,
    threshold: float | None = None,
    threads: int | None = None,
    native_scan: bool = True,
) -> Bisection:
    """Run both files on ``pictures`` triplets of the test split and return where they part.

    ``threshold`` is by default that of the coarser precision. Raises InputError unless both are
    model files of one network, and when the dataset is not there.
    """
    (first, spec), (second, other) = (_read(path) for path in paths)
    if spec.embedding_space != other.embedding_space:
        raise InputError(
            f"{paths[0]} and {paths[1]} are files of different networks (embedding spaces "
            f"{spec.embedding_space[:12]} and {other.embedding_space[:12]}); layers can be "
            "compared in files of one export"
        )
    limit = default_threshold(spec, other) if threshold is None else threshold
    triplets = _triplets(spec, data, pictures)
    _log.info("comparing layers on %d triplets of the test split", len(triplets))
    return Pair(first, second, threads=threads, native_scan=native_scan).bisect(triplets, limit)


def default_threshold(*specs: ModelSpec) -> float:
    """Return the threshold of the coarsest of the files' precisions."""
    return max(THRESHOLDS[spec.precision] for spec in specs)


def as_text(found: Bisection, paths: Sequence[Path]) -> str:
    """Return the tables and the verdict for a terminal."""
    blocks = [tables.as_text(_rows("layer", found.layers, found.threshold))]
    if found.nodes:
        header = f"node of {found.first_layer}"
        blocks.append(tables.as_text(_rows(header, found.nodes, found.threshold)))
    if found.unmatched:
        blocks.append(f"{paths[1]} has no counterpart of {', '.join(found.unmatched)}")
    return "\n\n".join([*blocks, verdict(found, paths)])


def verdict(found: Bisection, paths: Sequence[Path]) -> str:
    """Return the outcome in one sentence."""
    stated = f"a relative error of {found.threshold:g}"
    files = " and ".join(map(str, paths))
    if found.first_layer is None:
        worst = max(found.layers, key=lambda each: each.relative_error)
        return f"{files} stay within {stated}; worst: {worst.layer}, {_number(worst)}"
    node = found.first_node or "no single node, only nodes that are fused"
    return f"{files} diverge first in {found.first_layer} (above {stated}): {node}"


def as_json(found: Bisection, paths: Sequence[Path]) -> dict[str, Any]:
    """Return every figure; a relative error that is not finite is null."""
    return {
        "passed": found.first_layer is None,
        "files": [str(path) for path in paths],
        "threshold": found.threshold,
        "first_layer": found.first_layer,
        "first_node": found.first_node,
        "unmatched": found.unmatched,
        "layers": [_figures(each) for each in found.layers],
        "nodes": [_figures(each) for each in found.nodes],
    }


def _read(path: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    if path.suffix == ENGINE_SUFFIX:
        raise InputError(
            f"{path}: layers inside an engine cannot be seen; give the ONNX file that it was built "
            "from"
        )
    if not path.is_file():
        raise InputError(f"there is no model file {path}; write one with export/to_onnx.py")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx raises protobuf's own errors, which differ between versions
        raise InputError(f"cannot read {path} as ONNX: {error}") from error
    return model, spec_from_metadata({p.key: p.value for p in model.metadata_props}, str(path))


def _triplets(spec: ModelSpec, data: Path | None, count: int) -> list[Triplet]:
    """Test triplets at equal distances in the split, so of different people and cameras."""
    dataset = read_test_split(from_record(ExperimentConfig, spec.training), data)
    records = dataset.query.records
    chosen = records[:: max(1, len(records) // count)][:count]
    return list(batches(Split(chosen), spec.image_size, count=1))


def _rows(header: str, differences: Sequence[Difference], threshold: float) -> tables.Rows:
    rows: tables.Rows = [(header, "cosine", "relative error", "")]
    for each in differences:
        mark = "<" if each.relative_error > threshold else ""
        rows.append((each.layer, f"{each.cosine:.6f}", _number(each), mark))
    return rows


def _number(difference: Difference) -> str:
    error = difference.relative_error
    return f"{error:.1e}" if math.isfinite(error) else "not finite"


def _figures(difference: Difference) -> dict[str, Any]:
    figures = asdict(difference)
    if not math.isfinite(difference.relative_error):
        figures["relative_error"] = None
    return figures
