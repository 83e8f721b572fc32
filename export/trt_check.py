"""Build a model file with TensorRT-RTX, which needs no GPU: a check of the portable graph.

TensorRT-RTX ends the process on some graphs, so it runs in one of its own, in an environment that
holds nothing else (``make tensorrt-rtx``). It has no plugins: the scan is built from the function.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mambapro.cli import CheckError, MissingError, run
from mambapro.contract import EXIT_DONE, EXIT_INTERRUPTED
from mambapro.files import in_checkout

PYTHON: Final = "MAMBAPRO_TENSORRT_PYTHON"
"""Environment variable that names the Python with TensorRT-RTX."""
DEFAULT_PYTHON: Final = in_checkout("build/tensorrt-rtx/bin/python")

_FAILED: Final = "error: "
_TIMEOUT_S: Final = 3600


@dataclass(frozen=True)
class PortableBuild:
    """What TensorRT-RTX made of a file."""

    tensorrt_rtx: str
    """Its version."""
    layers: dict[str, int]
    """Layers by the element type they compute in."""
    products: dict[str, int]
    """Matrix products and convolutions by the same."""
    parse_s: float
    build_s: float
    plan_bytes: int


def check(model: Path, batch: tuple[int, int, int], image_size: tuple[int, int]) -> PortableBuild:
    """Build ``model`` for batches of least, usual and most; nothing is written.

    Raises:
        MissingError: there is no Python with TensorRT-RTX.
        CheckError: the file cannot be built.
    """
    python = os.environ.get(PYTHON, str(DEFAULT_PYTHON))
    if not Path(python).is_file():
        raise MissingError(
            f"no Python with TensorRT-RTX at {python}; make it with `make tensorrt-rtx`, or name "
            f"one by {PYTHON}"
        )
    sizes = map(str, (*batch, *image_size))
    command = [python, str(Path(__file__).resolve()), str(model.resolve()), *sizes]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        printed, noted = process.communicate(timeout=_TIMEOUT_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode != EXIT_DONE:
        raise CheckError(f"TensorRT-RTX does not build {model}: {_reason(process, noted)}")
    return PortableBuild(**json.loads(printed.splitlines()[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Build the file that the arguments name and print a PortableBuild as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("batch", type=int, nargs=3, help="least, usual and most triplets")
    parser.add_argument("size", type=int, nargs=2, help="height and width of a crop, px")
    arguments = parser.parse_args(argv)
    print(json.dumps(asdict(_build(arguments))))
    return EXIT_DONE


def _build(arguments: argparse.Namespace) -> PortableBuild:
    tensorrt = _tensorrt_rtx()
    from export import trt_build

    height, width = arguments.size
    options = trt_build.Options(trt_build.Batch(*arguments.batch), (height, width))
    built = trt_build.build(arguments.model, options)
    return PortableBuild(
        tensorrt_rtx=str(tensorrt.__version__),
        layers=trt_build.count_precisions(built.layers),
        products=trt_build.count_products(built.layers),
        parse_s=round(built.parse_s, 2),
        build_s=round(built.build_s, 2),
        plan_bytes=len(built.plan),
    )


def _tensorrt_rtx() -> Any:
    """Import TensorRT-RTX under TensorRT's name too: what we use of the two is the same."""
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise MissingError(f"{sys.executable} has no tensorrt_rtx: {error}") from error
    sys.modules["tensorrt"] = tensorrt_rtx
    return tensorrt_rtx


def _reason(process: subprocess.Popen[str], noted: str) -> str:
    lines = [line for line in noted.splitlines() if line.strip()]
    told = [line.removeprefix(_FAILED) for line in lines if line.startswith(_FAILED)]
    if told:
        return told[-1]
    if process.returncode < 0:
        return f"it ended by signal {-process.returncode}: {lines[-1] if lines else 'silent'}"
    return lines[-1] if lines else f"exit code {process.returncode}"


if __name__ == "__main__":
    sys.exit(run(main))
