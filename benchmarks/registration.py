"""How right registration is, against homographies that are known: ``python benchmarks/registration.py``.

By motion on rendered scenes whose cameras are five times as misaligned as the demo's, on the same with
parallax, and on real footage (vtest.avi, warped, inverted and blurred, when it is there); by a rendered
board, heated for thermal; by points with noise and mistakes. ``--record`` writes
benchmarks/results/registration.json and the table in docs/registration.md; exit code 1 when points are
off by more than 1 px or motion by more than 3 px.
"""  # noqa: E501 (shown as it is by --help)

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import yaml

from benchmarks.readme import markdown, replace_table
from calibration.registering import checkerboard, motion, points
from calibration.registering.estimate import Estimate
from calibration.registering.footage import Shot, shots
from calibration.registering.geometry import Matrix, grid, inside, project, stretched
from calibration.registering.methods import EVERY_S
from calibration.registering.points import Pairs
from calibration.registering.silhouettes import Motion, watch
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.synthetic.rigs import build_rig
from mambapro.synthetic.scenes import write_scene
from tests import registration_scenes as cheap

RESULT: Final = in_checkout("benchmarks/results/registration.json")
PAGE: Final = in_checkout("docs/registration.md")
SECONDS: Final = 60.0
MISALIGNMENT: Final = 5.0
BASELINE_M: Final = 0.1
POINT_DRAWS: Final = 100
NOISE_PX: Final = 0.5
ALLOWED_PX: Final = {"motion": 3.0, "checkerboard": 1.0, "points": 1.0}
VTEST_H: Final = np.array([[0.93, 0.06, 22.0], [-0.05, 0.95, 31.0], [-3e-5, 4e-5, 1.0]])
VTEST_LATE_S: Final = 0.13
HEADER: Final = (
    "method", "what", "camera", "before", "residual told", "error told", "true error, rms", "p95",
    "whole picture, rms", "clock off by",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and record."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    rows = by_points() + by_board() + by_footage(arguments.vtest)
    for seed in arguments.seeds:
        rows += by_scene(arguments.folder, seed, 0.0)
    for seed in arguments.parallax_seeds:
        rows += by_scene(arguments.folder, seed, BASELINE_M)
    cells = [shown(row) for row in rows]
    print(markdown(HEADER, cells))
    passed = all(row["true_px"] <= ALLOWED_PX[row["method"]] for row in rows if row["counts"])
    result = {"passed": passed, "rows": rows}
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(PAGE, "registration", HEADER, cells)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE if passed else EXIT_CHECK_FAILED


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=(301, 302), help="scenes (default: 301 302)"
    )
    parser.add_argument(
        "--parallax-seeds", type=int, nargs="*", default=(303,),
        help=f"scenes whose cameras are {BASELINE_M} m apart (default: 303)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/registration/scenes"),
        help="folder for rendered scenes; what is there is used again\n"
        "(default: runs/registration/scenes)",
    )  # fmt: skip
    parser.add_argument(
        "--vtest", type=Path, default=in_checkout("data/vtest/vtest.avi"),
        help="real footage, see tests/fetch_vtest.sh (default: data/vtest/vtest.avi)",
    )  # fmt: skip
    parser.add_argument("--record", action="store_true", help="write JSON and table")
    add_common_arguments(parser)
    return parser.parse_args(argv)


def by_points() -> list[dict[str, Any]]:
    """Return the typical draw: 16 points with noise of 0.5 px, 2 of them mistakes."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(POINT_DRAWS):
        camera = build_rig(number, 0, MISALIGNMENT).cameras["tir"]
        truth, other = camera.homography, (camera.size[1], camera.size[0])
        ours = rng.uniform([0, 0], [639, 359], (400, 2))
        ours = ours[inside(project(truth, ours), other)][:16]
        theirs = project(truth, ours) + rng.normal(0, NOISE_PX, ours.shape)
        theirs[:2] = rng.uniform([0, 0], [639, 511], (2, 2))
        estimate = points.register("tir", Pairs(ours, theirs), (360, 640), other)
        drawn.append(row("points", "16 points", "tir", estimate, truth, None))
    drawn.sort(key=lambda item: item["true_px"])
    median, worst = drawn[POINT_DRAWS // 2], drawn[int(0.95 * POINT_DRAWS)]
    median["what"] = f"16 points, noise {NOISE_PX} px, 2 mistakes: median of {POINT_DRAWS} draws"
    worst["what"] = "95th percentile of the draws"
    return [median, worst]


def by_board() -> list[dict[str, Any]]:
    """Return a board seen by a visible and by a thermal camera."""
    rows = []
    for seed in (1, 2):
        poses = cheap.board_poses(np.random.default_rng(seed), 5)
        ours = checkerboard.look_for(
            cheap.board_shots(poses, np.eye(3), cheap.VISIBLE, seed), cheap.BOARD
        )
        for camera, look in (("nir", cheap.VISIBLE), ("tir", cheap.THERMAL)):
            shown_there = cheap.board_shots(poses, cheap.HOMOGRAPHY, look, seed + 9, 0.2)
            theirs = checkerboard.look_for(shown_there, cheap.BOARD)
            assert ours is not None
            assert theirs is not None
            estimate = checkerboard.register(camera, ours, theirs, cheap.BOARD, 0.0)
            rows.append(
                row("checkerboard", f"9x6, seed {seed}", camera, estimate, cheap.HOMOGRAPHY, None)
            )
    return rows


def by_footage(path: Path) -> list[dict[str, Any]]:
    """Return real footage against itself, carried by VTEST_H, inverted, blurred, noisy and late."""
    if not path.is_file():
        print(f"there is no {path}: no real footage (tests/fetch_vtest.sh {path.parent})")
        return []
    ours = watch(shots("rgb", str(path), SECONDS, EVERY_S))
    theirs = watch(disguised(shots("tir", str(path), SECONDS, EVERY_S)))
    assert ours is not None
    assert theirs is not None
    estimate = motion.register("tir", ours, theirs, 0.0, 1.0)
    return [row("motion", "vtest.avi", "tir", estimate, VTEST_H, VTEST_LATE_S)]


def disguised(footage: Iterator[Shot]) -> Iterator[Shot]:
    """Yield what a pseudo-thermal camera beside the first would show."""
    rng = np.random.default_rng(3)
    for time_s, picture in footage:
        grey = 230 - 0.6 * cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        size = (picture.shape[1], picture.shape[0])
        seen = cv2.warpPerspective(
            cv2.GaussianBlur(grey, (0, 0), 1.5), VTEST_H, size, borderValue=120
        )
        noisy = (seen + rng.normal(0, 2, seen.shape)).clip(0, 255).astype(np.uint8)
        yield time_s + VTEST_LATE_S, np.repeat(noisy[..., None], 3, axis=2)


def by_scene(folder: Path, seed: int, baseline_m: float) -> list[dict[str, Any]]:
    """Return all cameras of a rendered scene."""
    name = f"scene{seed}" + (f"-{baseline_m:g}m" if baseline_m else "")
    scene = write_scene(
        folder / name, seed=seed, seconds=SECONDS, misalignment=MISALIGNMENT, baseline_m=baseline_m
    )
    rows = []
    for rig in yaml.safe_load((scene / "rigs.yaml").read_text(encoding="utf-8"))["rigs"]:
        seen: dict[str, Motion] = {}
        for camera, entry in rig["cameras"].items():
            found = watch(shots(camera, str(scene / entry["uri"]), SECONDS, EVERY_S))
            assert found is not None
            seen[camera] = found
        for camera in ("nir", "tir"):
            estimate = motion.register(camera, seen["rgb"], seen[camera], 0.0, 1.0)
            truth = np.array(rig["cameras"][camera]["homography"])
            late_s = true_offset(scene, rig["name"], camera) - true_offset(
                scene, rig["name"], "rgb"
            )
            what = f"scene {seed}, {rig['name']}" + (
                f", {baseline_m:g} m apart" if baseline_m else ""
            )
            rows.append(row("motion", what, camera, estimate, truth, late_s))
            rows[-1]["counts"] = not baseline_m
    return rows


def true_offset(scene: Path, rig: str, camera: str) -> float:
    """Return by how much a camera's time stamps are ahead of the truth, s."""
    lines = (scene / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    ahead = [
        record["pts_s"] - record["time_s"]
        for record in records
        if (record["rig"], record["modality"]) == (rig, camera)
    ]
    return float(np.mean(ahead))


def row(
    method: str, what: str, camera: str, estimate: Estimate, truth: Matrix, late_s: float | None
) -> dict[str, Any]:
    """Return the figures of one estimate against the truth, px of a picture 640 wide."""
    reference, other = estimate.sizes
    everywhere = grid(reference, 33, 19)
    everywhere = everywhere[inside(project(truth, everywhere), other)]
    near = among(everywhere, estimate)
    scale = 640 / other[1]

    def off(matrix: Matrix, where: np.ndarray) -> np.ndarray:
        gaps = project(matrix, where) - project(truth, where)
        return scale * np.linalg.norm(gaps, axis=1)

    lag = None if late_s is None or estimate.lag_s is None else estimate.lag_s - late_s
    return {
        "method": method,
        "what": what,
        "camera": camera,
        "counts": True,
        "before_px": rms(off(stretched(reference, other), near)),
        "residual_px": round(scale * estimate.residual_px, 2),
        "error_px": round(scale * estimate.error_px, 2),
        "true_px": rms(off(estimate.homography, near)),
        "true_p95_px": round(float(np.percentile(off(estimate.homography, near), 95)), 2),
        "whole_px": rms(off(estimate.homography, everywhere)),
        "clock_ms": None if lag is None else round(1e3 * lag, 1),
    }


def among(where: np.ndarray, estimate: Estimate) -> np.ndarray:
    """Return which points lie among the evidence: where subjects, boards or points were."""
    hull = cv2.convexHull(estimate.evidence.astype(np.float32))
    kept = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in where]
    return where[np.array(kept)]


def rms(values: np.ndarray) -> float:
    """Return the root mean square, rounded."""
    return round(float(np.sqrt(np.mean(values**2))), 2)


def shown(item: dict[str, Any]) -> tuple[str, ...]:
    """Return one row of the table."""
    keys = ("before_px", "residual_px", "error_px", "true_px", "true_p95_px", "whole_px")
    clock = item["clock_ms"]
    return (
        item["method"], item["what"], item["camera"],
        *(f"{item[key]:.2f} px" for key in keys),
        "" if clock is None else f"{clock:+.0f} ms",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
