"""Read a float32 model file of ours to make another precision of it, and write the result."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import onnx

from mambapro.cli import InputError
from mambapro.files import in_checkout
from mambapro.spec import ModelSpec, spec_from_metadata, write_spec

DEFAULT_SOURCE: Final = in_checkout("runs/person/model.onnx")
"""The last export."""


def add_source_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Add SOURCE and ``--output``, whose default is the name ``output`` beside the source."""
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        default=DEFAULT_SOURCE,
        metavar="SOURCE",
        help=f"float32 model file of export/to_onnx.py (default: {DEFAULT_SOURCE})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"model file to write (default: {output} beside SOURCE)",
    )


def open_source(path: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a float32 model file and its facts; InputError when it is not one of ours."""
    if not path.is_file():
        raise InputError(f"there is no model file {path}; write one with export/to_onnx.py")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx raises protobuf's own errors, which differ between versions
        raise InputError(f"cannot read {path} as ONNX: {error}") from error
    spec = spec_from_metadata({p.key: p.value for p in model.metadata_props}, str(path))
    if spec.precision != "fp32":
        raise InputError(
            f"{path} is {spec.precision} already; give the float32 file that it was made from"
        )
    return model, spec


def save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    """Write ``model`` with the facts ``spec`` to ``path``."""
    write_spec(model, spec)
    onnx.save(model, str(path))
