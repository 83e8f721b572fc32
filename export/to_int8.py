"""Write a float32 model file in INT8: ``python export/to_int8.py``."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.ranges import METHODS
from export.calibrate import Calibrated, Settings, cache_path, calibrate
from export.holdout import Harm
from export.int8_graph import int8_model, int8_spec
from export.model_file import DEFAULT_SOURCE, add_source_arguments, save
from export.qdq import TARGETS, Target
from export.sensitivity import (
    GroupHarm,
    Point,
    as_json,
    sensitivity,
    sensitivity_table,
    trade_off,
    trade_off_table,
    worst,
)
from export.sensitivity_figure import draw_sensitivity
from mambapro.cli import (
    CheckError,
    InputError,
    add_common_arguments,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import to_dict
from mambapro.files import replacing, write_json
from mambapro.spec import ModelSpec

NAMES: Final[dict[Target, str]] = {"tensorrt": "model.int8.onnx", "cpu": "model.int8-cpu.onnx"}
"""File of each target, beside the float32 file."""

_WORST_ACTIVATIONS: Final = 8
"""Lines of the table of ranges."""

_log = logging.getLogger("to_int8")


@dataclass(frozen=True)
class Quantized:
    """What was written."""

    path: Path
    spec: ModelSpec
    calibrated: Calibrated
    """Model, ranges and where they come from."""
    source_bytes: int
    bytes: int
    keep_float: tuple[str, ...]
    """Layer groups that stayed float32."""
    harm: Harm | None
    """What it did to the held-out triplets; None when none were held out."""

    @property
    def int8_share(self) -> float:
        """Share of the work of all layers that may be INT8 that is."""
        return self.calibrated.int8_share(self.keep_float)


def main(argv: Sequence[str] | None = None) -> int:
    """Quantise as the arguments say, print what was written, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    settings = read_settings(arguments)
    output = arguments.output or arguments.source.with_name(NAMES[arguments.target])
    calibrated = calibrate(arguments.source, settings)
    print(range_table(calibrated))
    if arguments.search or arguments.sensitivity:
        kept = study(calibrated, output, arguments.target, settings, arguments.search)
        settings = dataclasses.replace(settings, keep_float=kept)
    quantized = write(calibrated, output, arguments.target, settings)
    print(table(quantized))
    if arguments.json:
        print_json_line(summary(quantized))
    return 0


def quantize(
    source: Path = DEFAULT_SOURCE,
    output: Path | None = None,
    target: Target = "tensorrt",
    settings: Settings | None = None,
) -> Quantized:
    """Write ``source`` in INT8 for ``target`` to ``output``, by default NAMES beside it.

    The ranges go to ``<source>.calibration.json`` beside the source, their picture to
    ``<source>.ranges.png``. Raises InputError when ``source`` is no float32 model file of ours,
    when pictures are missing or too few, or when ``settings.cache`` was made for something else;
    CheckError, and writes no file, when the pictures are of another domain or mAP drops too far.
    """
    settings = settings or Settings()
    calibrated = calibrate(source, settings)
    return write(calibrated, output or source.with_name(NAMES[target]), target, settings)


def write(calibrated: Calibrated, output: Path, target: Target, settings: Settings) -> Quantized:
    """Write the INT8 file; CheckError, and no file, when ranking suffers too much."""
    kept = settings.keep_float
    check_groups(calibrated, kept)
    model, spec = int8_model(calibrated, target, kept), int8_spec(calibrated, target, kept)
    harm = None
    with replacing(output) as aside:
        save(model, spec, aside)
        if calibrated.judge is not None:
            harm = calibrated.judge.file(aside)
            check_harm(calibrated, target, harm, settings.max_map_drop)
    sizes = calibrated.source.stat().st_size, output.stat().st_size
    return Quantized(output, spec, calibrated, *sizes, kept, harm)


def study(
    calibrated: Calibrated, output: Path, target: Target, settings: Settings, search: bool
) -> tuple[str, ...]:
    """Print, write and draw what each group does; return the groups that should stay float32."""
    if calibrated.judge is None:
        raise InputError("sensitivity needs held-out triplets; leave out --held-out 0")
    harms = sensitivity(calibrated, target)
    print(sensitivity_table(harms))
    kept, points = settings.keep_float, list[Point]()
    if search:
        chosen, points = trade_off(calibrated, target, harms, settings.max_map_drop)
        print(trade_off_table(points, chosen))
        kept = chosen.keep_float
    write_study(output, target, settings, harms, points)
    return kept


def write_study(
    output: Path,
    target: Target,
    settings: Settings,
    harms: Sequence[GroupHarm],
    points: Sequence[Point],
) -> None:
    """Write ``<output>.sensitivity.json`` and ``.png``, each whole or not at all."""
    write_json(output.with_name(f"{output.stem}.sensitivity.json"), as_json(harms, points))
    with replacing(output.with_name(f"{output.stem}.sensitivity.png")) as aside:
        title = f"What INT8 harms, layer group by layer group: target {target}"
        draw_sensitivity(harms, points, settings.max_map_drop, title, aside)
    _log.info("sensitivity: %s.sensitivity.png", output.with_suffix(""))


def check_groups(calibrated: Calibrated, names: Sequence[str]) -> None:
    """Raise InputError for a layer group that there is not."""
    unknown = [name for name in names if name not in calibrated.groups]
    if unknown:
        raise InputError(
            f"no layer group is called {unknown[0]}; groups are {', '.join(calibrated.groups)}"
        )


def check_harm(calibrated: Calibrated, target: Target, harm: Harm, allowed: float) -> None:
    """Raise CheckError, which names the worst groups, when mAP drops by more than ``allowed``."""
    # NaN fails every comparison, so what is sound is the case to look for.
    if harm.map_drop_points <= allowed:
        return
    _log.info("mAP drops too far; looking for the layers that hurt")
    raise CheckError(
        f"INT8 lowers mAP on held-out triplets by {harm.map_drop_points:.2f} points, allowed are "
        f"{allowed:g}; most harmful alone: {worst(sensitivity(calibrated, target))}. Keep such "
        "groups in float32 by --search or --keep-float"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description="Write a float32 model file in INT8, calibrated on the training split. The "
        "file appears only if identities that did not calibrate still rank as they did."
    )
    add_source_arguments(parser, " or ".join(NAMES.values()))
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="tensorrt: symmetric int8 activations, for GPU and Jetson; cpu: asymmetric uint8, "
        f"which x86 processors multiply twice as fast (default: {TARGETS[0]})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that contains the dataset (default: data.root of the training config)",
    )
    parser.add_argument(
        "--recorded",
        type=Path,
        metavar="FOLDER",
        help="calibrate on triplets that runtime/stream.py --record-crops wrote (default: the "
        "training split)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=default.images,
        metavar="N",
        help=f"triplets to calibrate on, number (default: {default.images})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        metavar="N",
        help="seed of which triplets calibrate and which identities are held out, number "
        f"(default: {default.seed})",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=default.method,
        help="range of an activation: all its values, a share of them, or least divergence "
        f"(default: {default.method})",
    )
    parser.add_argument(
        "--percent",
        type=float,
        default=default.percent,
        metavar="P",
        help="share of each modality's values inside the range with --method percentile, percent "
        f"(default: {default.percent})",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="calibration cache that must fit, else exit 2 (default: SOURCE's, made anew when it "
        "does not fit)",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=default.held_out,
        metavar="N",
        help="triplets of the training split that judge ranking and do not calibrate, number; 0 "
        f"judges nothing (default: {default.held_out})",
    )
    parser.add_argument(
        "--max-map-drop",
        type=float,
        default=default.max_map_drop,
        metavar="POINTS",
        help="largest drop of mAP on the held-out triplets that passes, percentage points "
        f"(default: {default.max_map_drop})",
    )
    parser.add_argument(
        "--keep-float",
        nargs="+",
        default=[],
        metavar="GROUP",
        help="layer groups that stay float32, such as tower.blocks.0.mlp (default: none)",
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="quantise each layer group alone; table and bar chart beside the output (default: "
        "off)",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="keep the most harmful groups in float32 until --max-map-drop holds, and print the "
        "trade-off; includes --sensitivity (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name."""
    names = [item.name for item in dataclasses.fields(Settings)]
    values = {name: getattr(arguments, name) for name in names}
    return Settings(**{**values, "keep_float": tuple(arguments.keep_float)})


def range_table(calibrated: Calibrated) -> str:
    """Return the activations that reach furthest beyond their bulk, a line for each modality."""
    labels = calibrated.labels
    activations = sorted(
        calibrated.cache.activations.items(), key=lambda item: -item[1].outlier_ratio
    )
    lines = [
        f"{'activation':<38} {'':<4} {'lowest':>9} {'highest':>9} {'99.9 %':>9} {'range':>19} "
        f"{'clipped':>9}"
    ]
    for name, activation in activations[:_WORST_ACTIVATIONS]:
        low, high = activation.range
        lines += [
            f"{labels[name]:<38} {modality:<4} {spread.lowest:>9.3g} {spread.highest:>9.3g} "
            f"{spread.bulk:>9.3g} {f'{low:.3g} to {high:.3g}':>19} {spread.clipped:>9.4%}"
            for modality, spread in activation.spreads.items()
        ]
    rest = len(activations) - _WORST_ACTIVATIONS
    if rest > 0:
        lines.append(f"and {rest} more in {cache_path(calibrated.source)}")
    return "\n".join(lines)


def table(quantized: Quantized) -> str:
    """Return what was written as lines of text."""
    manifest = quantized.calibrated.cache.manifest
    balance = manifest["balance"]
    rows = [
        ("file", str(quantized.path)),
        ("size", f"{quantized.bytes / 1e6:.1f} MB, "
                 f"{quantized.bytes / quantized.source_bytes:.1%} of float32"),
        ("INT8", f"{quantized.int8_share:.1%} of the work of products with constant weights"),
        ("in float32", ", ".join(quantized.keep_float) or "none of these"),
        ("calibrated on", f"{len(manifest['images'])} triplets: {manifest['source']}"),
        *((f"  {name}", _balance(balance[name])) for name in ("camera", "light", "modalities")),
        ("list hash", quantized.calibrated.cache.made_for.list_hash[:12]),
        *_harm_rows(quantized),
    ]  # fmt: skip
    return "\n".join(f"{name:<20} {text}" for name, text in rows)


def summary(quantized: Quantized) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    calibrated = quantized.calibrated
    facts = quantized.spec.calibration or {}
    return {
        "output": str(quantized.path),
        "precision": quantized.spec.precision,
        "target": facts["target"],
        "bytes": quantized.bytes,
        "bytes_over_float32": quantized.bytes / quantized.source_bytes,
        "int8_share": quantized.int8_share,
        "keep_float": list(quantized.keep_float),
        "method": calibrated.cache.made_for.method,
        "images": len(calibrated.cache.manifest["images"]),
        "list_hash": calibrated.cache.made_for.list_hash,
        "outside": calibrated.outside,
        "held_out": None if quantized.harm is None else to_dict(quantized.harm),
    }


def _balance(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _harm_rows(quantized: Quantized) -> list[tuple[str, str]]:
    harm = quantized.harm
    if harm is None:
        return [("held-out triplets", "none: ranking was not looked at")]
    return [
        ("held-out triplets", f"mAP {harm.map:.2%}, {-harm.map_drop_points:+.2f} points"),
        ("  cosine", f"mean {harm.cosine_mean:.6f}, min {harm.cosine_min:.6f}"),
        ("  overlap@10", f"{harm.overlap_at_10:.3f}"),
        ("  newly clipped", f"{quantized.calibrated.outside:.3%} of an activation on average"),
    ]


if __name__ == "__main__":
    sys.exit(run(main))
