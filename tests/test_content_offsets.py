"""Residual offsets of a live rig: found from content, smoothed, harmless when it tells nothing."""

import logging
import re
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from runtime.config import SyncConfig
from runtime.sources import Frame
from runtime.sync.clocks import TrackedClocks
from runtime.sync.content_offsets import ContentOffsets, SmoothOffset
from tests.runtime_scenes import HOMOGRAPHIES, Walk, picture

CAMERAS = ("rgb", "nir", "tir")
DELAYS_S = {"rgb": 0.03, "nir": 0.12, "tir": 0.07}
EPOCHS_S = {"rgb": 5.0, "nir": -70.0, "tir": 1000.0}
WALKS = [Walk("a", 1.0), Walk("b", 4.0, leftwards=True), Walk("c", 5.5, row=90, speed=45)]


class AtOnce(Executor):
    """Runs what it is given where it is given it."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def watch(walks, seconds=10.0):
    """Feed a rig whose cameras have delays that no arrival can tell; return clocks and offsets."""
    clocks = TrackedClocks({"nir": 0.005})
    content = ContentOffsets(
        "gate",
        "rgb",
        HOMOGRAPHIES,
        {"rgb": 0.0, "nir": 0.005, "tir": 0.0},
        clocks,
        SyncConfig(),
        AtOnce(),
    )
    for index, true_s in enumerate(np.arange(0.0, seconds, 0.04).tolist()):
        for camera in CAMERAS:
            shown = np.ascontiguousarray(picture(camera, walks, true_s))
            frame = Frame(shown, true_s + EPOCHS_S[camera], "pts", index, true_s + DELAYS_S[camera])
            time_s = clocks.time_s(camera, frame)
            if time_s is not None:
                content.add(camera, shown, time_s)
    content.close()
    return clocks, content


def test_what_arrivals_cannot_tell_comes_from_content(caplog):
    caplog.set_level(logging.INFO, "runtime.sync")
    clocks, content = watch(WALKS)
    told = caplog.records[-1].getMessage()
    assert re.fullmatch(r"gate: clocks by what moves: nir \+\d.*\(\+-2.0\), tir \+\d.*", told)
    assert content.confident >= 1
    for camera in ("nir", "tir"):
        expected_s = DELAYS_S[camera] - DELAYS_S["rgb"]
        assert clocks.residual_s(camera) == pytest.approx(expected_s, abs=0.01)
        assert content.offsets[camera].error_s is not None


def test_a_still_scene_leaves_what_was_configured(caplog):
    caplog.set_level(logging.INFO, "runtime.sync")
    clocks, content = watch([])
    assert "nir +5.0 ms as configured, not seen yet" in caplog.records[-1].getMessage()
    assert content.estimates >= 1
    assert content.confident == 0
    assert clocks.residual_s("nir") == 0.005
    assert content.offsets["nir"].error_s is None


def test_estimates_are_averaged():
    rng = np.random.default_rng(0)
    smooth = SmoothOffset(0.0)
    for _ in range(30):
        smooth.update(0.08 + rng.normal(0, 0.005), 0.005)
    assert smooth.seconds == pytest.approx(0.08, abs=0.004)
    assert smooth.error_s < 0.003


def test_one_outlier_is_not_believed_and_two_are():
    smooth = SmoothOffset(0.0)
    for _ in range(5):
        smooth.update(0.08, 0.003)
    smooth.update(-0.2, 0.003)
    assert smooth.seconds == pytest.approx(0.08)
    smooth.update(0.08, 0.003)
    smooth.update(0.15, 0.003)
    smooth.update(0.151, 0.003)
    assert smooth.seconds == pytest.approx(0.151)
