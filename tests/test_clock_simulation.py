"""Simulated cameras with known truth: pairing through offsets, drift, loss, reorder and jumps."""

import numpy as np
import pytest

from benchmarks.clock_simulation import HALF_FRAME_S, Condition, figures, simulate
from runtime.config import SyncConfig

TOGETHER = {"phase_s": 0.002, "seconds": 40.0}
WITHIN_S = SyncConfig().tolerance_s + 0.004
"""No pair may be further apart in truth than the tolerance and the clocks' residual errors."""


def measured(seed=0, **changes):
    return figures(simulate(Condition("test", **changes), seed))


@pytest.mark.parametrize("seed", range(3))
def test_cameras_triggered_together_are_paired_to_their_trigger(seed):
    found = measured(seed, **TOGETHER)
    assert np.percentile(found.errors_s, 95) < 0.006
    assert found.complete > 0.97 * found.possible
    assert found.good_s[0] < 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"jitter_s": 0.03, "spike_share": 0.01},
        {"loss": 0.2, "burst": 5.0},
        {"overtaken": 0.05},
        {"gone": ("nir", "tir")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_no_pair_is_off_by_a_frame(changes):
    found = measured(1, **TOGETHER, **changes)
    assert np.percentile(found.errors_s, 95) < 0.5 * HALF_FRAME_S
    assert found.errors_s.max() < WITHIN_S
    assert found.complete > 0.85 * found.possible


@pytest.mark.parametrize("jumping", ["nir", "rgb"])
@pytest.mark.parametrize("jump_s", [5.0, -5.0, 0.3, -0.3])
def test_a_clock_that_is_set_is_followed(jumping, jump_s):
    found = measured(2, **TOGETHER, jumps_s=(jump_s,), jumping=jumping)
    assert found.good_s[1] < 2.5
    assert np.percentile(found.errors_s, 95) < 0.5 * HALF_FRAME_S


def test_free_running_cameras_are_paired_as_well_as_perfect_clocks_would():
    found = measured(3, phase_s=None)
    assert np.percentile(found.errors_s, 95) < np.percentile(found.best_s, 95) + 0.004
    assert found.complete > 0.9 * found.possible


def test_nobody_waits_longer_than_allowed():
    found = measured(4, gone=("tir",), **TOGETHER)
    assert found.waits_s.max() < SyncConfig().max_wait_s + SyncConfig().reorder_s + 0.02


def test_the_measure_sees_a_wrong_offset():
    """Residuals that are wrong by more than a frame pair wrong frames: the tests above can fail."""
    found = measured(0, **TOGETHER, residual_error_s=0.1)
    assert np.percentile(found.errors_s, 95) > HALF_FRAME_S
