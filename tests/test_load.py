"""What is given up when work comes late, in which order, and how it comes back."""

import itertools

from runtime.load import FALL_S, NO_PICTURES, RISE_S, THRIFT, LoadControl, left_out


def levels(lags_s, budget_s=0.4, step_s=0.04):
    control = LoadControl(budget_s)
    return [control.see(lag_s, i * step_s) for i, lag_s in enumerate(lags_s)]


def test_in_time_nothing_is_given_up():
    assert set(levels([0.39] * 500)) == {0}


def test_late_work_raises_the_load_step_by_step():
    seen = levels([1.0] * 200)
    assert seen[0] == 1  # at once
    assert [seen.index(level) for level in range(1, len(THRIFT))] == sorted(
        seen.index(level) for level in range(1, len(THRIFT))
    )
    first_at = [seen.index(level) * 0.04 for level in (1, 2, 3)]
    assert all(b - a >= RISE_S for a, b in itertools.pairwise(first_at))
    assert seen[-1] == len(THRIFT) - 1


def test_the_load_falls_only_after_a_while_in_time():
    late, fine = [1.0] * 30, [0.1] * 1000
    seen = levels([*late, *fine])
    peak = max(seen)
    fell_s = [(seen.index(peak - i, 30) - 29) * 0.04 for i in range(1, peak + 1)]
    assert fell_s[0] >= FALL_S - 0.05
    assert seen[-1] == 0
    # One late frame on the way down holds it up.
    held = levels([*late, *fine[:90], 1.0, *fine[:90]])
    assert held[-1] == max(held) > 0


def test_embedding_is_thinned_out_before_anything_else():
    assert THRIFT[0] == 1.0
    assert list(THRIFT) == sorted(set(THRIFT))
    assert THRIFT[1] > 1.0
    assert NO_PICTURES > 1  # pictures go later than crops


def test_what_is_left_out_is_said_in_words():
    words = [left_out(level) for level in range(len(THRIFT))]
    assert words[0] == "nothing is left out"
    assert all(f"{THRIFT[level]:g} times" in words[level] for level in range(1, len(THRIFT)))
    assert ["mosaic" in text for text in words].index(True) == NO_PICTURES
