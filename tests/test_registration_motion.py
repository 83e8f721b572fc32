"""Registration by what moves and by a board; the oracle is what the pictures were drawn by."""

import numpy as np
import pytest

from calibration.registering import checkerboard, contours, motion
from calibration.registering.activity import guess
from calibration.registering.checkerboard import Boards, Place, parse_board
from calibration.registering.judging import Limits, check
from calibration.registering.silhouettes import watch
from mambapro.cli import CheckError, InputError
from tests.registration_scenes import (
    BOARD,
    HOMOGRAPHY,
    SIZE,
    THERMAL,
    VISIBLE,
    board_poses,
    board_shots,
    crowd,
    placed,
    walk_shots,
)

SECONDS = 24.0
LATE_S = 0.23
LARGE = np.array([[0.78, 0.21, -10.0], [-0.2, 0.8, 110.0], [-6e-5, 9e-5, 1.0]])
"""Turned by 15 degrees, a quarter smaller."""


def true_errors(estimate, homography):
    hull = estimate.evidence
    where = hull[:: max(1, len(hull) // 200)]
    return np.linalg.norm(placed(estimate.homography, where) - placed(homography, where), axis=1)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """A third of the usual points of outlines: a third of the time."""
    monkeypatch.setattr(contours, "POINTS", 4_000)


@pytest.fixture(scope="module")
def walkers():
    return crowd(np.random.default_rng(5), 12, SECONDS)


@pytest.fixture(scope="module")
def reference(walkers):
    return watch(walk_shots(walkers, np.eye(3), SECONDS, warm=False, seed=1))


@pytest.mark.parametrize("homography", [HOMOGRAPHY, LARGE], ids=["usual", "large"])
def test_motion_finds_homography_and_clock(walkers, reference, homography):
    shots = walk_shots(walkers, homography, SECONDS, warm=True, seed=2, late_s=LATE_S)
    estimate = motion.register("tir", reference, watch(shots), 0.0, 0.5)
    errors = true_errors(estimate, homography)
    assert np.sqrt(np.mean(errors**2)) < 3.0
    assert np.percentile(errors, 95) < 3.0
    assert estimate.lag_s == pytest.approx(LATE_S, abs=0.02)
    assert estimate.error_px < 3.0
    check("tir", estimate, Limits())


def test_subjects_off_the_plane_are_laid_on_each_other(walkers, reference):
    """Everybody 8 px off, as parallax does: what is registered is where they walk, not the wall."""
    shots = walk_shots(walkers, HOMOGRAPHY, SECONDS, warm=True, seed=2, shift_px=8.0)
    estimate = motion.register("tir", reference, watch(shots), 0.0, 0.5)
    shifted = HOMOGRAPHY @ np.array([[1, 0, 8.0], [0, 1, 0], [0, 0, 1]])
    assert np.sqrt(np.mean(true_errors(estimate, shifted) ** 2)) < 3.0


def test_cameras_at_other_places_are_refused(reference):
    others = crowd(np.random.default_rng(77), 5, SECONDS)
    elsewhere = watch(walk_shots(others, np.eye(3), SECONDS, warm=True, seed=2))
    with pytest.raises(CheckError, match="camera tir"):
        check("tir", motion.register("tir", reference, elsewhere, 0.0, 0.5), Limits())


def test_a_mirrored_camera_is_refused(walkers, reference):
    mirror = np.array([[-1.0, 0, SIZE[1] - 1], [0, 1, 0], [0, 0, 1]])
    mirrored = watch(walk_shots(walkers, mirror, SECONDS, warm=True, seed=2))
    with pytest.raises(CheckError):
        check("tir", motion.register("tir", reference, mirrored, 0.0, 0.5), Limits())


def test_a_still_scene_is_refused(reference):
    still = watch(walk_shots([], np.eye(3), SECONDS, warm=True, seed=2))
    with pytest.raises(CheckError, match="nothing moves in its picture"):
        motion.register("tir", reference, still, 0.0, 0.5)
    with pytest.raises(CheckError, match="hardly anything moves in the reference"):
        motion.register("tir", still, reference, 0.0, 0.5)


def test_clips_of_other_times_are_refused(reference, walkers):
    late = watch(walk_shots(walkers, np.eye(3), SECONDS, warm=True, seed=2, late_s=900.0))
    assert guess(reference, late, 0.0, 0.5) is None


def test_a_few_pictures_are_not_enough():
    assert watch(walk_shots([], np.eye(3), 2.0, warm=True, seed=2)) is None


# --- the board -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def poses():
    return board_poses(np.random.default_rng(1), 4)


@pytest.fixture(scope="module")
def board_reference(poses):
    return checkerboard.look_for(board_shots(poses, np.eye(3), VISIBLE, 1), BOARD)


def test_a_heated_board_is_within_a_pixel(poses, board_reference):
    """Inverted, pale, blurred and noisy, and its camera's clock 0.2 s ahead."""
    there = checkerboard.look_for(board_shots(poses, HOMOGRAPHY, THERMAL, 2, 0.2), BOARD)
    assert len(there.places) == len(poses)
    estimate = checkerboard.register("tir", board_reference, there, BOARD, 0.0)
    assert true_errors(estimate, HOMOGRAPHY).max() < 1.0
    assert estimate.residual_px < 1.0
    check("tir", estimate, Limits())


def seen(corners):
    places = [Place(2.0 * k, 2.0 * k + 1, c) for k, c in enumerate(corners)]
    picture = np.zeros((*SIZE, 3), np.uint8)
    return Boards(places, len(places), len(places), SIZE, picture)


def drawn(poses, homography):
    inner = np.stack(np.meshgrid(np.arange(1, 10), np.arange(1, 7)), -1).reshape(-1, 2) * 40.0
    return [placed(homography @ pose, inner) for pose in poses]


def test_corners_in_any_order_find_their_partners(poses):
    ours, theirs = drawn(poses, np.eye(3)), drawn(poses, HOMOGRAPHY)
    theirs[0], theirs[2] = theirs[0][::-1], theirs[2][::-1]
    estimate = checkerboard.register("tir", seen(ours), seen(theirs), BOARD, 0.0)
    assert true_errors(estimate, HOMOGRAPHY).max() < 1e-3


def test_a_mirrored_board_is_refused(poses):
    mirror = np.array([[-1.0, 0, SIZE[1] - 1], [0, 1, 0], [0, 0, 1]])
    theirs = [c.reshape(6, 9, 2)[:, ::-1].reshape(-1, 2) for c in drawn(poses, mirror)]
    estimate = checkerboard.register("tir", seen(drawn(poses, np.eye(3))), seen(theirs), BOARD, 0.0)
    with pytest.raises(CheckError, match="mirrors"):
        check("tir", estimate, Limits())


def test_two_places_are_too_few(poses):
    ours, theirs = drawn(poses[:2], np.eye(3)), drawn(poses[:2], HOMOGRAPHY)
    with pytest.raises(CheckError, match="at 2 places, at least 3"):
        checkerboard.register("tir", seen(ours), seen(theirs), BOARD, 0.0)


def test_a_picture_without_board_shows_none():
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    assert checkerboard.find_corners(noise, BOARD) is None


@pytest.mark.parametrize("text", ["9", "9x", "2x6", "axb", "9x600", "-9x6"])
def test_a_board_is_given_by_its_inner_corners(text):
    assert parse_board("9X6") == (9, 6)
    with pytest.raises(InputError, match="inner corners"):
        parse_board(text)
