"""What a comparison compares: PyTorch, then the files that were named or lie beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from export.opening import Opening, Scan, has_operator, scan_library
from mambapro import native
from mambapro.cli import CommandError, InputError, MissingError
from mambapro.spec import ModelSpec, Precision, read_spec
from runtime.engines import Engine, TensorrtEngine
from runtime.engines.opening import ENGINE_SUFFIX

ScanChoice = Literal["operator", "function", "both"]
_WAYS: Final[dict[ScanChoice, tuple[bool, ...]]] = {
    "operator": (True,),
    "function": (False,),
    "both": (True, False),
}
"""Values of Opening.native_scan."""
PATTERNS: Final = ("model*.onnx", f"model*{ENGINE_SUFFIX}")
"""Names of the files that are found beside a checkpoint."""

_log = logging.getLogger("compare")


@dataclass(frozen=True)
class Candidate:
    """An engine to measure and what to call it."""

    name: str
    target: str
    """What the model was made for."""
    size_bytes: int
    scan: Scan | None
    """What computes the selective scan; None in PyTorch."""
    engine: Engine
    opening: Opening
    """How to open it once more, in another process."""


@dataclass(frozen=True)
class Candidates:
    """All that is compared, PyTorch first, and what is not."""

    compared: list[Candidate]
    left_out: dict[str, str]
    """Names of files that were found but do not run here, and why."""


def open_candidates(
    reference: Opening, models: Sequence[Path], scan: ScanChoice | None, stack: ExitStack
) -> Candidates:
    """Open the checkpoint ``reference`` and the ``models``; ``stack`` closes them.

    Without ``models`` they are all those beside the checkpoint, float32 with and without the
    operator library; an engine file among them that does not run here is left out. Raises
    InputError when a file is missing or was exported from other weights, MissingError when what
    a named file or ``scan`` needs is not there.
    """
    network = reference.open()
    compared = [_candidate("PyTorch", "pytorch", network, reference)]
    left_out: dict[str, str] = {}
    openings = _openings(reference, models, scan)
    names = _names(openings)
    for opening, name in zip(openings, names, strict=True):
        try:
            engine = _open(opening, stack)
        except CommandError as error:
            if models or opening.is_onnx:
                raise
            _log.warning("%s is left out: %s", name, error)
            left_out[name] = str(error)
            continue
        check_same_weights(engine.spec, network.spec, opening.path, reference.path)
        compared.append(_candidate(name, _target(engine.spec), engine, opening))
    return Candidates(compared, left_out)


def find_models(checkpoint: Path) -> list[Path]:
    """Return the model files beside ``checkpoint`` by precision, then the engine files.

    InputError when there are none, or when one is not ours.
    """
    models, engines = (sorted(checkpoint.parent.glob(pattern)) for pattern in PATTERNS)
    if not models and not engines:
        raise InputError(
            f"there is no model file {' or '.join(PATTERNS)} in {checkpoint.parent}; write one "
            "with export/to_onnx.py"
        )
    order: tuple[Precision, ...] = get_args(Precision)
    return [*sorted(models, key=lambda path: order.index(read_spec(path).precision)), *engines]


def check_same_weights(spec: ModelSpec, reference: ModelSpec, path: Path, source: Path) -> None:
    """Raise InputError unless ``path`` was exported from the checkpoint ``source``."""
    if spec.embedding_space != reference.embedding_space:
        raise InputError(
            f"{path} was not exported from {source} (embedding space {spec.embedding_space[:12]}, "
            f"expected {reference.embedding_space[:12]}); export it again or give --checkpoint"
        )


def _openings(reference: Opening, models: Sequence[Path], scan: ScanChoice | None) -> list[Opening]:
    operator = has_operator(reference.providers)
    if scan in ("operator", "both") and not operator:
        missing = native.missing(scan_library(reference.providers))
        raise MissingError(f"--scan {scan} needs the compiled operator: {missing}")
    openings = []
    for path in models or find_models(reference.path):
        opening = replace(reference, path=path, checkpoint=False)
        found = scan is None and not models and operator
        ways = _WAYS["both" if found and _is_float32(opening) else scan or "operator"]
        # An engine file has its scan built in.
        for native_scan in ways if opening.is_onnx else (True,):
            openings.append(replace(opening, native_scan=native_scan))
    return openings


def _is_float32(opening: Opening) -> bool:
    return opening.is_onnx and read_spec(opening.path).precision == "fp32"


def _open(opening: Opening, stack: ExitStack) -> Engine:
    engine = opening.open()
    if isinstance(engine, TensorrtEngine):
        stack.enter_context(engine)
    return engine


def _names(openings: Sequence[Opening]) -> list[str]:
    """File names, or paths where two files have one name; says what runs by the function."""
    paths = {opening.path for opening in openings}
    unique = len({path.name for path in paths}) == len(paths)
    return [
        (opening.path.name if unique else str(opening.path))
        + ("" if opening.native_scan else ", function")
        for opening in openings
    ]


def _target(spec: ModelSpec) -> str:
    """What a file was made for: its calibration says so, a float file runs anywhere."""
    return str((spec.calibration or {}).get("target", "any"))


def _candidate(name: str, target: str, engine: Engine, opening: Opening) -> Candidate:
    size_bytes = opening.path.stat().st_size
    return Candidate(name, target, size_bytes, opening.scan(), engine, opening)
