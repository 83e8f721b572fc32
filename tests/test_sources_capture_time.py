"""Which clock a live picture is stamped by, and when that clock is taken for another one."""

import numpy as np
import pytest

from runtime.sources.camera import Shot
from runtime.sources.capture_time import CaptureClock

PICTURE = np.zeros((2, 2, 3), np.uint8)
UNIX_S = 1_800_000_000.0
STEP_S = 0.04


def clock():
    return CaptureClock(lambda: UNIX_S)


def shots(count, pts_s=None, wallclock_s=None, delays_s=None):
    """``count`` shots from second 0 on; each clock is where it stands at second 0."""
    for i in range(count):
        delay_s = 0.0 if delays_s is None else delays_s[i]
        yield Shot(
            PICTURE,
            i * STEP_S + delay_s,
            None if pts_s is None else pts_s + i * STEP_S,
            None if wallclock_s is None else wallclock_s + i * STEP_S,
        )


def test_time_stamps_are_tied_to_unix_time_where_the_first_picture_arrived():
    ours = clock()
    stamps = [ours.stamp(shot) for shot in shots(50, pts_s=777.0)]
    assert {s.source for s in stamps} == {"pts"}
    assert np.allclose([s.time_s for s in stamps], UNIX_S + np.arange(50) * STEP_S, atol=1e-6)
    assert {s.connection for s in stamps} == {0}


def test_the_cameras_own_clock_wins_and_arrival_comes_last():
    ours = clock()
    (shot,) = shots(1, pts_s=5.0, wallclock_s=UNIX_S - 99.0)
    assert (ours.stamp(shot).source, ours.stamp(shot).time_s) == ("rtcp", UNIX_S - 99.0)
    ours = clock()
    stamps = [ours.stamp(shot) for shot in shots(3)]
    assert [s.source for s in stamps] == ["arrival"] * 3
    assert np.allclose([s.time_s for s in stamps], UNIX_S + np.arange(3) * STEP_S, atol=1e-6)


def test_another_source_of_time_is_another_clock():
    ours = clock()
    connections = [ours.stamp(shot).connection for shot in shots(5, pts_s=1.0)]
    connections += [ours.stamp(s).connection for s in shots(5, pts_s=2.0, wallclock_s=UNIX_S)]
    assert connections == [0] * 5 + [1] * 5


@pytest.mark.parametrize("jump_s", [0.7, 5.0, 1e6, -0.1, -5.0, -1e6])
@pytest.mark.parametrize("which", ["pts_s", "wallclock_s"])
def test_a_jump_is_counted_once(jump_s, which):
    ours = clock()
    all_shots = [*shots(50, **{which: UNIX_S}), *list(shots(100, **{which: UNIX_S + jump_s}))[50:]]
    stamps = [ours.stamp(shot) for shot in all_shots]
    assert [s.connection for s in stamps] == [0] * 50 + [1] * 50
    if which == "pts_s":  # tied to Unix time again
        assert np.allclose([s.time_s for s in stamps], UNIX_S + np.arange(100) * STEP_S, atol=1e-6)


@pytest.mark.parametrize("drift", [-500e-6, 500e-6])
def test_drift_is_no_jump_however_long_it_lasts(drift):
    ours = clock()
    for i in range(20_000):  # 20 s of drift at one picture every two seconds
        arrival_s = 2.0 * i
        shot = Shot(PICTURE, arrival_s, pts_s=arrival_s * (1 + drift))
        assert ours.stamp(shot).connection == 0


def test_a_network_that_stalls_and_catches_up_is_no_jump():
    delays_s = np.zeros(200)
    delays_s[50:100] = np.linspace(4.0, 2.0, 50)  # a stall of 4 s, then all comes late, in a burst
    delays_s[100:120] = np.linspace(2.0, 0.0, 20)
    jitter_s = np.random.default_rng(0).exponential(0.02, 200)
    ours = clock()
    stamps = [ours.stamp(shot) for shot in shots(200, pts_s=3.0, delays_s=delays_s + jitter_s)]
    assert {s.connection for s in stamps} == {0}


def test_a_new_connection_reads_the_machines_clock_again():
    offsets = iter([UNIX_S, UNIX_S + 3600.0])  # it was set by an hour meanwhile
    ours = CaptureClock(lambda: next(offsets))
    (shot,) = shots(1, pts_s=9.0)
    assert ours.stamp(shot).time_s == UNIX_S
    ours.connected()
    after = ours.stamp(shot)
    assert (after.connection, after.time_s) == (1, UNIX_S + 3600.0)


def test_a_jump_is_seen_after_days_of_drift_too():
    ours = clock()
    for i in range(20_000):  # the camera's clock falls 20 s behind
        arrival_s = 2.0 * i
        ours.stamp(Shot(PICTURE, arrival_s, pts_s=arrival_s * (1 - 500e-6)))
    assert ours.stamp(Shot(PICTURE, 40_000.0, pts_s=40_000.0 * (1 - 500e-6) + 5.0)).connection == 1
