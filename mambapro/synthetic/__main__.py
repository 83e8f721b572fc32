"""Make synthetic data: ``python -m mambapro.synthetic --person data --scene data/scene``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.synthetic.datasets import write_dataset
from mambapro.synthetic.scenes import write_scene
from mambapro.synthetic.sheet import write_sheet

log = logging.getLogger("synthetic")


def main(argv: Sequence[str] | None = None) -> int:
    """Write what the flags ask for; existing output of the same settings is kept."""
    arguments = _parser().parse_args(argv)
    start_logging(arguments.verbose)
    if not any((arguments.sheet, arguments.person, arguments.vehicle, arguments.scene)):
        raise InputError(
            "nothing to do: give at least one of --sheet, --person, --vehicle, --scene"
        )
    result: dict[str, Any] = {}
    for name, make in _jobs(arguments).items():
        started = time.monotonic()
        log.info("writing the %s", name)
        path = make()
        seconds = round(time.monotonic() - started, 2)
        print(f"{name}: {path} ({seconds} s)")
        result[name] = {"path": str(path), "seconds": seconds}
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def _jobs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what to make, by name, in order."""
    jobs: dict[str, Any] = {}
    if arguments.sheet:
        jobs["sheet"] = lambda: write_sheet(
            arguments.sheet, seed=arguments.seed, rows=arguments.rows
        )
    if arguments.person:
        jobs["person"] = lambda: _dataset(arguments, "rgbnt201", arguments.person)
    if arguments.vehicle:
        jobs["vehicle"] = lambda: _dataset(arguments, arguments.vehicle_layout, arguments.vehicle)
    if arguments.scene:
        jobs["scene"] = lambda: write_scene(
            arguments.scene,
            seed=arguments.seed,
            seconds=arguments.seconds,
            people=arguments.people,
            vehicles=arguments.vehicles,
            misalignment=arguments.misalignment,
            baseline_m=arguments.baseline,
            workers=arguments.workers,
        )
    return jobs


def _dataset(arguments: argparse.Namespace, layout: str, root: Path) -> Path:
    return write_dataset(
        layout,
        root,
        identities=(arguments.train_identities, arguments.test_identities),
        images_per_camera=arguments.images_per_camera,
        cameras=arguments.cameras,
        size=arguments.size,
        seed=arguments.seed,
        workers=arguments.workers,
    )


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(
            f"give HEIGHTxWIDTH in pixels, such as 256x128, not {text!r}"
        )
    return int(height), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mambapro.synthetic", description=__doc__)
    what = parser.add_argument_group("what to make")
    what.add_argument(
        "--sheet", type=Path, metavar="PNG", help="contact sheet to look at (default: none)"
    )
    what.add_argument(
        "--person",
        type=Path,
        metavar="DIR",
        help="data root for persons, gets RGBNT201/ (default: none)",
    )
    what.add_argument(
        "--vehicle",
        type=Path,
        metavar="DIR",
        help="data root for vehicles, gets the layout's folder (default: none)",
    )
    what.add_argument(
        "--vehicle-layout",
        choices=("rgbnt100", "msvr310"),
        default="rgbnt100",
        help="layout of the vehicles (default: %(default)s)",
    )
    what.add_argument(
        "--scene",
        type=Path,
        metavar="DIR",
        help="folder for clips and ground truth (default: none)",
    )
    _add_sizes(parser.add_argument_group("how much of it"))
    add_common_arguments(parser)
    return parser


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    def number(flag: str, default: int, text: str) -> None:
        group.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )

    number("--seed", 0, "seed of all randomness; the same seed gives the same files")
    number("--train-identities", 100, "individuals for training")
    number("--test-identities", 40, "individuals for testing, none of them in training")
    number("--cameras", 4, "viewing positions of a dataset, 1 to 8")
    number("--images-per-camera", 3, "pictures of each individual by each camera")
    group.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="height and width of a crop in pixels (default: persons 128x64, vehicles 64x128)",
    )
    number("--rows", 6, "persons and vehicles on the sheet, each")
    group.add_argument(
        "--seconds",
        type=float,
        default=72.0,
        metavar="S",
        help="length of a scene in seconds (default: %(default)s)",
    )
    number("--people", 12, "persons in a scene")
    number("--vehicles", 6, "vehicles in a scene")
    group.add_argument(
        "--misalignment",
        type=float,
        default=1.0,
        metavar="X",
        help="zoom, turn, shift and keystone between a rig's cameras, times the usual (default: 1)",
    )
    group.add_argument(
        "--baseline",
        type=float,
        default=0.0,
        metavar="M",
        help="metres from the reference camera to each other: parallax (default: 0)",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: 2, or 1 on a single core)"
    )


if __name__ == "__main__":
    sys.exit(run(main))
