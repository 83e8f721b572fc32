"""Write a float32 model file in float16: ``python export/to_fp16.py``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from export.half_precision import to_half
from export.model_file import DEFAULT_SOURCE, add_source_arguments, open_source, save
from export.verify import verify
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.files import replacing
from mambapro.spec import ModelSpec
from runtime.engines import OnnxEngine

TOLERANCE: Final = 1e-3
"""Largest difference to float32 in any element of an embedding of unit length."""

_log = logging.getLogger("to_fp16")


@dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    spec: ModelSpec
    source_bytes: int
    bytes: int
    nodes: dict[str, int]
    """How many nodes compute in float16 and in float32, and how many casts lie between."""
    differences: dict[str, float]
    """Largest difference to the float32 file in each case that was tried."""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the arguments say, print what was written, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    output = arguments.output or arguments.source.with_name("model.fp16.onnx")
    converted = convert(arguments.source, output, tolerance=arguments.tolerance)
    print(table(converted))
    if arguments.json:
        print_json_line(summary(converted))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Write a float32 model file in float16, with the parts that need it kept in "
        "float32. The file appears only if it computes what the float32 file does."
    )
    add_source_arguments(parser, "model.fp16.onnx")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="VALUE",
        help="largest difference to float32 in an element of an embedding of unit length "
        f"(default: {TOLERANCE})",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def convert(
    source: Path = DEFAULT_SOURCE, output: Path | None = None, *, tolerance: float = TOLERANCE
) -> Converted:
    """Write ``source`` in float16 to ``output``, model.fp16.onnx beside it by default.

    Raises InputError when ``source`` is no float32 model file of ours; CheckError, and writes no
    file, when an embedding differs from float32 by more than ``tolerance``.
    """
    output = output or source.with_name("model.fp16.onnx")
    model, spec = open_source(source)
    spec = spec.replace(precision="fp16")
    to_half(model)
    with replacing(output) as aside:
        save(model, spec, aside)
        _log.info("comparing the file with float32")
        differences = verify(OnnxEngine(aside), OnnxEngine(source), tolerance, "float32")
    sizes = source.stat().st_size, output.stat().st_size
    return Converted(output, spec, *sizes, _node_counts(model), differences)


def table(converted: Converted) -> str:
    """Return size, nodes by type and differences as lines of text."""
    saved = converted.bytes / converted.source_bytes
    rows = [
        ("file", str(converted.path)),
        ("size", f"{converted.bytes / 1e6:.1f} MB, {saved:.1%} of float32"),
        *((f"  {name}", str(count)) for name, count in converted.nodes.items()),
        ("against float32", "largest absolute difference"),
        *((f"  {value:.1e}", name) for name, value in converted.differences.items()),
    ]
    return "\n".join(f"{name:<20} {text}" for name, text in rows)


def summary(converted: Converted) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "output": str(converted.path),
        "precision": converted.spec.precision,
        "bytes": converted.bytes,
        "bytes_over_float32": converted.bytes / converted.source_bytes,
        "max_abs_difference": max(converted.differences.values()),
        "nodes": converted.nodes,
    }


def _node_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Count nodes by the type of their first output."""
    graph = model.graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    names = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.FLOAT: "float32"}
    counts = Counter(
        "casts" if node.op_type == "Cast" else names.get(kinds.get(node.output[0], 0), "integer")
        for node in graph.node
    )
    return dict(sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(run(main))
