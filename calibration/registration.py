"""Lay a rig's cameras on each other: ``python calibration/registration.py --rigs rigs.yaml``.

Estimates the homography from the reference camera to each other one and writes it into the rigs
file: from what moves before the cameras (no target needed), from a checkerboard (--board), or from
matched points (--points). Look at the picture it writes before you trust it. When a camera is
refused nothing is written for its rig, and the exit code is 1. docs/registration.md says how to
film and measure.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from calibration.registering.checkerboard import parse_board
from calibration.registering.estimate import Estimate
from calibration.registering.geometry import local_scale, overlap
from calibration.registering.judging import Limits
from calibration.registering.methods import ByCheckerboard, ByMotion, ByPoints, Method
from calibration.registering.overlay import write_sheet
from calibration.registering.parallax import Mounting, focal_px
from calibration.registering.points import read_pairs
from calibration.registering.rig import Findings, register_rig
from calibration.registering.rigs_file import Rig, read_rigs, write_homographies
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE, MODALITIES, Modality
from mambapro.files import in_checkout, write_json

log = logging.getLogger("registration")


def main(argv: Sequence[str] | None = None) -> int:
    """Register the rigs, tell, draw and write."""
    arguments = parser().parse_args(argv)
    start_logging(arguments.verbose)
    rigs, method = chosen_rigs(arguments), chosen_method(arguments)
    limits = Limits(arguments.max_residual, arguments.max_error, arguments.min_overlap)
    results: dict[str, Any] = {}
    for rig in rigs:
        findings = register_rig(rig, method, limits)
        results[rig.name] = tell(rig, findings, arguments)
        picture = arguments.output / f"{rig.name}.png"
        write_sheet(picture, findings.panels)
        print(f"{rig.name}: look at {picture}")
        if not (findings.refused or arguments.dry_run):
            found = {camera: item.homography for camera, item in findings.estimates.items()}
            write_homographies(arguments.rigs, rig.name, found)
            results[rig.name]["written"] = True
            print(f"{rig.name}: homographies written to {arguments.rigs}")
    passed = not any(result["refused"] for result in results.values())
    write_json(arguments.output / "report.json", {"passed": passed, "rigs": results})
    if arguments.json:
        print_json_line({"passed": passed, "rigs": results})
    return EXIT_DONE if passed else EXIT_CHECK_FAILED


def chosen_rigs(arguments: argparse.Namespace) -> list[Rig]:
    """Return the rigs to register, with the clips that stand in for their cameras."""
    rigs = read_rigs(arguments.rigs)
    if arguments.rig is not None:
        rigs = [rig for rig in rigs if rig.name == arguments.rig]
        if not rigs:
            names = ", ".join(rig.name for rig in read_rigs(arguments.rigs))
            raise InputError(f"{arguments.rigs} has no rig {arguments.rig}; it has {names}")
    clips = by_camera(arguments.clip, "--clip")
    if (clips or arguments.points) and len(rigs) > 1:
        raise InputError("--clip and --points are of one rig: say which by --rig")
    for rig in rigs:
        unknown = [camera for camera in clips if camera not in rig.cameras]
        if unknown or not rig.others:
            raise InputError(
                f"rig {rig.name} has the cameras {', '.join(rig.cameras)}; registration needs one "
                f"beside {rig.reference}, and clips of these, got {', '.join(unknown) or 'none'}"
            )
    return [with_clips(rig, clips) for rig in rigs]


def with_clips(rig: Rig, clips: dict[Modality, str]) -> Rig:
    """Return ``rig`` with other pictures for some cameras."""
    cameras = {
        m: replace(camera, uri=clips.get(m, camera.uri)) for m, camera in rig.cameras.items()
    }
    return replace(rig, cameras=cameras)


def chosen_method(arguments: argparse.Namespace) -> Method[Any]:
    """Return the method that the flags ask for."""
    if arguments.seconds <= 0 or arguments.max_offset < 0:
        raise InputError("--seconds must be over 0 and --max-offset at least 0")
    if arguments.points is not None:
        return ByPoints(read_pairs(arguments.points))
    log.info("each rig is looked at for %g s, the cameras side by side", arguments.seconds)
    if arguments.board is not None:
        return ByCheckerboard(parse_board(arguments.board), arguments.seconds)
    return ByMotion(arguments.seconds, arguments.max_offset)


def tell(rig: Rig, findings: Findings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Print what came out for a rig and return it as JSON takes it."""
    for camera, estimate in findings.estimates.items():
        near, far = estimate.error_px, estimate.outside_px
        print(
            f"{rig.name} {camera}: residual {estimate.residual_px:.2f} px by {estimate.used}; "
            f"error {near:.2f} px among them, up to {far:.2f} px elsewhere"
            + ("" if estimate.lag_s is None else f"; clock {1e3 * estimate.lag_s:+.0f} ms")
        )
        print("\n".join(f"  {line}" for line in parallax(camera, estimate, arguments)))
    for reason in findings.refused.values():
        print(f"{rig.name} refused: {reason}", file=sys.stderr)
    return {
        "cameras": {camera: as_json(item) for camera, item in findings.estimates.items()},
        "refused": dict(findings.refused),
        "written": False,
    }


def as_json(estimate: Estimate) -> dict[str, Any]:
    """Return the figures of an estimate."""
    reference, other = estimate.sizes
    return {
        "method": estimate.method,
        "homography": estimate.homography.tolist(),
        "residual_px": round(estimate.residual_px, 3),
        "error_px": round(estimate.error_px, 3),
        "outside_px": round(estimate.outside_px, 3),
        "overlap": round(overlap(estimate.homography, reference, other), 3),
        "lag_s": estimate.lag_s,
        "used": estimate.used,
    }


def parallax(camera: Modality, estimate: Estimate, arguments: argparse.Namespace) -> list[str]:
    """Return lines on how the error grows with the distance from what was registered."""
    baseline_m = by_camera(arguments.baseline, "--baseline", float).get(camera)
    if baseline_m is None or arguments.distance is None or arguments.fov is None:
        return [
            "away from the registered distance subjects shift; for a table measure the rig, give "
            f"--baseline {camera}=METRES --distance METRES --fov DEGREES"
        ]
    reference = estimate.sizes[0]
    middle = np.array([reference[1] / 2, reference[0] / 2])
    focal = focal_px(reference[1], arguments.fov) * local_scale(estimate.homography, middle)
    mounting = Mounting(baseline_m, arguments.distance, focal)
    near, far = mounting.reach_m(arguments.max_error)
    cells = [f"{z:g} m {px:.1f} px" for z, px in mounting.table()]
    return [
        f"parallax ({baseline_m:g} m apart, registered at {arguments.distance:g} m): "
        + ", ".join(cells),
        f"within {arguments.max_error:g} px from {near:.1f} m to {far:.1f} m",
    ]


def by_camera(given: Sequence[str], flag: str, kind: type = str) -> dict[Modality, Any]:
    """Return the values of a flag that is given as CAMERA=VALUE."""
    found: dict[Modality, Any] = {}
    for text in given:
        camera, equals, value = text.partition("=")
        try:
            if camera not in MODALITIES or not equals:
                raise ValueError
            found[camera] = kind(value)
        except ValueError:
            raise InputError(
                f"{flag} takes CAMERA=VALUE with a camera of {', '.join(MODALITIES)}, got {text!r}"
            ) from None
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--rigs", type=Path, required=True, help="rigs file to read and write")
    found.add_argument("--rig", metavar="NAME", help="one rig of it (default: all)")
    found.add_argument(
        "--clip", action="append", default=[], metavar="CAMERA=URI",
        help="pictures instead of a camera's own uri, such as nir=board/nir.mp4 (default: none)",
    )  # fmt: skip
    how = found.add_mutually_exclusive_group()
    how.add_argument(
        "--board", metavar="COLSxROWS",
        help="register by a checkerboard with so many inner corners (default: by what moves)",
    )  # fmt: skip
    how.add_argument(
        "--points", type=Path, metavar="FILE",
        help="register by the matched points of a CSV or YAML file (default: by what moves)",
    )  # fmt: skip
    _add_looking(found.add_argument_group("how to look"))
    _add_limits(found.add_argument_group("what is refused; px are for pictures 640 px wide"))
    _add_mounting(found.add_argument_group("how the rig is built, for the table of parallax"))
    found.add_argument(
        "--output", type=Path, default=in_checkout("runs/registration"), metavar="DIR",
        help="folder for pictures and report.json (default: runs/registration)",
    )  # fmt: skip
    found.add_argument(
        "--dry-run", action="store_true", help="leave the rigs file as it is (default: off)"
    )
    add_common_arguments(found)
    return found


def _add_looking(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seconds", type=float, default=120.0, metavar="S",
        help="how much of a clip, or how long at live cameras, s (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max-offset", type=float, default=1.0, metavar="S",
        help="largest error of the clocks (offset_s of the rigs file) looked for, s "
        "(default: %(default)s)",
    )  # fmt: skip


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-residual", type=float, metavar="PX",
        help="largest residual, px (default: points and board 2, motion 6)",
    )  # fmt: skip
    group.add_argument(
        "--max-error", type=float, default=3.0, metavar="PX",
        help="largest estimated error among the evidence, px (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--min-overlap", type=float, default=0.3, metavar="SHARE",
        help="least share of the reference picture that a camera must see (default: %(default)s)",
    )  # fmt: skip


def _add_mounting(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--baseline", action="append", default=[], metavar="CAMERA=M",
        help="distance of a camera's lens from the reference's, m (default: unknown)",
    )  # fmt: skip
    group.add_argument(
        "--distance", type=float, metavar="M",
        help="from the rig to what was registered: people, board or points, m (default: unknown)",
    )  # fmt: skip
    group.add_argument(
        "--fov", type=float, metavar="DEG",
        help="horizontal field of view of the reference camera, degrees (default: unknown)",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
