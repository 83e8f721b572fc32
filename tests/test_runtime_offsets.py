"""Clock offsets from content: constructed maps with a known lag, and rendered cameras."""

import numpy as np
import pytest

from runtime.feeds.preflight import GREY_WIDTH
from runtime.sync.lags import STEP_S, Match
from runtime.sync.offsets import OffsetEstimator
from tests.runtime_scenes import HOMOGRAPHIES, SIZES, Walk, picture

WALKS = [Walk("a", 0.5), Walk("b", 3.5, leftwards=True), Walk("c", 5.0, row=90, speed=45)]


def changes(steps, seed=0, lag_s=0.0):
    """Smooth random signals of 40 pixels, sampled at ``steps`` and moved by ``lag_s``."""
    rng = np.random.default_rng(seed)
    phase, rate = rng.uniform(0, 6, (2, 40, 12))
    times = (steps - lag_s)[:, None, None]
    return np.sin(2 * np.pi * (0.3 + rate / 4) * times + phase).sum(axis=2).astype(np.float32)


def find_lag(start_a, a, start_b, b, max_lag_s):
    match = Match(start_b - start_a, max_lag_s)
    match.add(a[:, :25], b[:, :25])
    match.add(a[:, 25:], b[:, 25:])
    return match.lag()


@pytest.mark.parametrize("lag_s", [-0.3, -0.113, 0.0, 0.0071, 0.15])
def test_the_lag_of_known_signals_is_found(lag_s):
    steps = np.arange(400) * STEP_S
    lag = find_lag(0.0, changes(steps), 0.0, changes(steps, lag_s=lag_s), 0.35)
    assert lag is not None
    assert lag.seconds == pytest.approx(lag_s, abs=0.003)
    assert lag.correlation > 0.8


def test_starts_that_differ_are_taken_into_account():
    steps = np.arange(400) * STEP_S
    lag = find_lag(0.0, changes(steps), 0.753, changes(steps + 0.753, lag_s=0.1), 0.35)
    assert lag is not None
    assert lag.seconds == pytest.approx(0.1, abs=0.003)


def test_unrelated_signals_have_no_confident_lag():
    steps = np.arange(400) * STEP_S
    lag = find_lag(0.0, changes(steps, 1), 0.0, changes(steps, 2), 0.35)
    assert lag is None or lag.error_s > 0.012 or lag.correlation < 0.3


def test_signals_too_short_to_tell_give_none():
    steps = np.arange(30) * STEP_S
    assert find_lag(0.0, changes(steps), 0.0, changes(steps), 0.35) is None


def watcher(offsets_s, seconds=8.0, walks=WALKS, night=False, cameras=("rgb", "nir", "tir")):
    """Return an estimator that saw rendered pictures whose clocks are ahead by ``offsets_s``."""
    estimator = OffsetEstimator(
        "rgb", SIZES["rgb"], HOMOGRAPHIES, window_s=30.0, max_offset_s=0.35, max_error_s=0.012
    )
    rng = np.random.default_rng(5)
    for camera in cameras:
        height, width = SIZES[camera]
        for time_s in np.arange(0.0, seconds, 0.04) + rng.uniform(-0.005, 0.005):
            seen = picture(camera, walks, time_s, night=night)[..., 1]
            rows = round(height * GREY_WIDTH / width)
            seen = seen[:: height // rows, :: width // GREY_WIDTH]
            jitter = rng.normal(0, 0.003)
            estimator.add(camera, time_s + offsets_s[camera] + jitter, seen, SIZES[camera])
    return estimator


def watch(offsets_s, *args, **settings):
    return watcher(offsets_s, *args, **settings).estimate(dict.fromkeys(offsets_s, 0.0))


def test_offsets_of_rendered_cameras():
    offsets = watch({"rgb": 0.13, "nir": -0.12, "tir": 0.02})
    for camera, expected in {"rgb": 0.0, "nir": -0.25, "tir": -0.11}.items():
        assert offsets[camera].seconds == pytest.approx(expected, abs=0.01)
        assert offsets[camera].error_s is not None
        assert offsets[camera].error_s < 0.01


def test_a_still_scene_gives_no_estimate_and_keeps_what_was_configured():
    offsets = watch({"rgb": 0.1, "nir": 0.0, "tir": 0.0}, seconds=4.0, walks=[])
    assert offsets["nir"].error_s is None
    assert offsets["tir"].error_s is None
    assert offsets["nir"].seconds == pytest.approx(0.0, abs=0.001)


def test_dark_rgb_is_no_obstacle_while_anything_shows():
    offsets = watch({"rgb": 0.05, "nir": 0.0, "tir": -0.1}, night=True)
    between = offsets["tir"].seconds - offsets["nir"].seconds
    assert between == pytest.approx(-0.1, abs=0.01)


def test_an_estimate_that_is_given_up_says_what_was_configured():
    estimator = watcher({"rgb": 0.0, "nir": 0.1, "tir": 0.0}, seconds=4.0)
    estimator.give_up()
    offsets = estimator.estimate({"rgb": 0.0, "nir": 0.02, "tir": 0.0})
    assert offsets["nir"].error_s is None
    assert offsets["nir"].seconds == pytest.approx(0.02, abs=0.001)
