"""Build a TensorRT engine of the last export: ``python export/to_trt.py --int8``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from export.engine_file import Request, build_engine, missing_parts
from export.evaluation_data import read_test_split
from export.model_file import DEFAULT_SOURCE
from export.ranking import RankingCheck, as_json, check_ranking
from export.trt_check import PortableBuild, check
from mambapro.cli import (
    InputError,
    MissingError,
    add_common_arguments,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import ExperimentConfig, from_record
from mambapro.contract import EXIT_DONE
from mambapro.spec import ModelSpec, Precision, read_spec
from runtime.engines import Engine, OnnxEngine
from runtime.engines.manifest import EngineManifest
from runtime.engines.opening import ENGINE_SUFFIX

DEFAULT_BATCH: Final = (1, 8, 16)
DEFAULT_MAX_MAP_DROP: Final = 0.5

_log = logging.getLogger("to_trt")


@dataclass(frozen=True)
class Outcome:
    """What was made and found, for the table and the last line."""

    onnx: Path
    spec: ModelSpec
    ranking: RankingCheck | None
    portable: PortableBuild | None
    engine: tuple[Path, EngineManifest] | None
    missing: dict[str, str]
    """What an engine needs and this machine has not, and what to do; empty if none is wanted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the arguments say; everything up to the engine is done where there is no GPU."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    precision = cast(Precision, arguments.precision)
    onnx = arguments.onnx or precision_file(arguments.source, precision, arguments.data)
    spec = read_spec(onnx)
    check_buildable(onnx, spec, precision)
    output = arguments.output or engine_path(onnx, precision)
    check_writable(output)
    ranking = None if skips_ranking(arguments) else rank(onnx, spec, arguments)
    portable = check(onnx, arguments.batch, spec.image_size) if arguments.check else None
    missing = {} if arguments.onnx_only else missing_parts()
    engine = None
    if not missing and not arguments.onnx_only:
        request = Request(onnx, spec, arguments.batch, arguments.workspace_mb, output)
        engine = output, build_engine(request)
    outcome = Outcome(onnx, spec, ranking, portable, engine, missing)
    print(table(outcome))
    if arguments.json:
        print_json_line(summary(outcome))
    if missing:
        raise MissingError(
            f"no engine was built: this machine lacks {', '.join(missing)} (see the table). {onnx} "
            f"is ready; copy it to the device and run there: {device_command(arguments, onnx)}"
        )
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Make the model file of a precision, check that it still ranks, and build a "
        "TensorRT engine of it with a manifest beside it. Without TensorRT or a GPU all but the "
        "engine is done, and the exit code is 3."
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    for precision, note in (
        ("fp32", "float32 throughout"),
        ("fp16", "float16 but for its sensitive parts"),
        ("int8", "matrix products in int8, the rest in float32"),
    ):
        choice.add_argument(
            f"--{precision}",
            dest="precision",
            action="store_const",
            const=precision,
            help=f"{note} (one of the three is needed)",
        )
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        default=DEFAULT_SOURCE,
        metavar="SOURCE",
        help=f"float32 model file of export/to_onnx.py (default: {DEFAULT_SOURCE})",
    )
    parser.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="build the engine of this very file, which was made and checked elsewhere; needs "
        "neither torch nor a dataset (default: the precision's file beside SOURCE, made if absent)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="engine to write (default: model.<precision>.engine beside the model file)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        default=DEFAULT_BATCH,
        metavar="MIN,OPT,MAX",
        help="triplets of a call: least, the number to be fastest at, most "
        f"(default: {','.join(map(str, DEFAULT_BATCH))})",
    )
    parser.add_argument(
        "--workspace-mb",
        type=_positive,
        metavar="MB",
        help="most memory that a layer may use while it runs, megabytes (default: no limit)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="checkpoint to check ranking against (default: best.pt beside SOURCE, else SOURCE)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that contains the dataset to rank (default: data.root of the model)",
    )
    parser.add_argument(
        "--max-map-drop",
        type=float,
        default=DEFAULT_MAX_MAP_DROP,
        metavar="POINTS",
        help=f"largest drop of mAP that passes, points (default: {DEFAULT_MAX_MAP_DROP})",
    )
    parser.add_argument(
        "--no-ranking",
        action="store_true",
        help="do not check ranking, for a model without data (default: check it)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="also build the portable graph with TensorRT-RTX, which needs no GPU (default: off)",
    )
    parser.add_argument(
        "--onnx-only",
        action="store_true",
        help="stop before the engine and call that a success (default: build the engine)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def precision_file(source: Path, precision: Precision, data: Path | None = None) -> Path:
    """Return the file of ``precision`` beside ``source``; make it if it is absent or of another.

    INT8 is calibrated on the training split in ``data``, by default data.root of the model.
    """
    if not source.is_file():
        raise InputError(f"there is no model file {source}; write one with export/to_onnx.py")
    if precision == "fp32":
        return source
    output = source.with_suffix(f".{precision}.onnx")
    if not output.is_file():
        _log.info("making %s", output)
    elif read_spec(output).embedding_space != read_spec(source).embedding_space:
        _log.info("making %s again: it is of another network than %s", output, source)
    else:
        _log.info("taking %s as it is; delete it to have it made again", output)
        return output
    make(source, output, precision, data)
    return output


def make(source: Path, output: Path, precision: Precision, data: Path | None) -> None:
    """Write ``source`` in another precision."""
    if precision == "fp16":
        from export.to_fp16 import convert

        convert(source, output)
    else:
        from export.calibrate import Settings
        from export.to_int8 import quantize

        quantize(source, output, "tensorrt", Settings(data=data))


def check_buildable(onnx: Path, spec: ModelSpec, precision: Precision) -> None:
    """Raise InputError unless ``onnx`` is of ``precision`` and made for TensorRT."""
    if spec.precision != precision:
        raise InputError(f"{onnx} is {spec.precision}, not {precision}")
    target = (spec.calibration or {}).get("target", "tensorrt")
    if target != "tensorrt":
        raise InputError(
            f"{onnx} was quantised for {target}, which TensorRT does not take; make a file for it "
            "with: python export/to_int8.py --target tensorrt"
        )


def engine_path(onnx: Path, precision: Precision) -> Path:
    """Return model.<precision>.engine beside ``onnx``, whose name may hold the precision."""
    stem = onnx.stem.removesuffix(f".{precision}")
    return onnx.with_name(f"{stem}.{precision}{ENGINE_SUFFIX}")


def check_writable(output: Path) -> None:
    """Raise OSError now rather than after minutes of work."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent):
        pass
    if output.is_dir():
        raise InputError(f"--output is a folder, {output}; give a file")


def skips_ranking(arguments: argparse.Namespace) -> bool:
    """Whether ranking is not checked; says so."""
    if arguments.onnx is not None or arguments.no_ranking:
        _log.info("ranking is not checked here; export/compare.py does it")
        return True
    return False


def rank(onnx: Path, spec: ModelSpec, arguments: argparse.Namespace) -> RankingCheck:
    """Hold ``onnx`` against PyTorch if there is a checkpoint, else against float32."""
    config = from_record(ExperimentConfig, spec.training)
    try:
        dataset = read_test_split(config, arguments.data)
    except InputError as error:
        raise InputError(
            f"{error}. The ranking check needs the dataset: give --data, or --no-ranking"
        ) from error
    reference = reference_engine(arguments.source, spec, arguments.checkpoint)
    _log.info("checking ranking against %s, %d queries", reference[0], len(dataset.query))
    return check_ranking(onnx.name, OnnxEngine(onnx), reference, dataset, arguments.max_map_drop)


def reference_engine(source: Path, spec: ModelSpec, checkpoint: Path | None) -> tuple[str, Engine]:
    """Return what files are held against, and its name."""
    path = checkpoint or source.with_name("best.pt")
    if checkpoint is None and not path.is_file():
        _log.info("no checkpoint %s: float32 is the reference", path)
        return source.name, OnnxEngine(source)
    from export.candidates import check_same_weights
    from export.opening import read_checkpoint
    from export.torch_engine import TorchEngine

    loaded = read_checkpoint(path)
    engine = TorchEngine(loaded.config, loaded.network)
    check_same_weights(spec, engine.spec, source, path)
    return "PyTorch", engine


def device_command(arguments: argparse.Namespace, onnx: Path) -> str:
    """Return the one command to run where TensorRT and a GPU are, with the file copied there."""
    words = ["python export/to_trt.py", f"--{arguments.precision}", f"--onnx {onnx.name}"]
    if arguments.batch != DEFAULT_BATCH:
        words.append(f"--batch {','.join(map(str, arguments.batch))}")
    if arguments.workspace_mb is not None:
        words.append(f"--workspace-mb {arguments.workspace_mb}")
    return " ".join(words)


def table(outcome: Outcome) -> str:
    """Return what was made and found as lines of text."""
    rows = [
        ("model file", f"{outcome.onnx} ({outcome.onnx.stat().st_size / 1e6:.1f} MB)"),
        ("ranking", str(outcome.ranking or "not checked")),
    ]
    if outcome.portable is not None:
        built = outcome.portable
        rows += [
            ("TensorRT-RTX", f"{built.tensorrt_rtx}: read in {built.parse_s:.1f} s, built in "
             f"{built.build_s:.1f} s, {built.plan_bytes / 1e6:.1f} MB"),
            ("  products", _counts(built.products)),
            ("  layers", _counts(built.layers)),
        ]  # fmt: skip
    if outcome.engine is not None:
        path, manifest = outcome.engine
        device = manifest.device
        rows += [
            ("engine", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
            ("  built", f"in {manifest.build_s:.1f} s, {device.gpu}, TensorRT {device.tensorrt}"),
            ("  layers", _counts(manifest.layers_by_precision)),
        ]
    else:
        rows.append(("engine", "not built"))
    rows += [(f"no {name}", text) for name, text in outcome.missing.items()]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    engine = outcome.engine
    return {
        "onnx": str(outcome.onnx),
        "precision": outcome.spec.precision,
        "ranking": None if outcome.ranking is None else as_json(outcome.ranking),
        "portable": None if outcome.portable is None else asdict(outcome.portable),
        "engine": None if engine is None else str(engine[0]),
        "manifest": None if engine is None else engine[1].to_dict(),
        "missing": outcome.missing,
    }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _batch(text: str) -> tuple[int, int, int]:
    try:
        least, usual, most = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be three numbers like 1,8,16, got {text}") from None
    if not 1 <= least <= usual <= most:
        raise argparse.ArgumentTypeError(f"must rise and start at 1 or more, got {text}")
    return least, usual, most


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(run(main))
