"""Two minutes of the soak, and that its judgement can fail."""

from dataclasses import replace

import pytest

from tests.rtsp import require_rtsp_server
from tests.soak import Usage, judged, memory_growth, sequence_faults, soak


def test_two_minutes_of_faults(tmp_path):
    require_rtsp_server()
    result = soak(2.0, 3, tmp_path)
    # Two minutes are too short to judge memory, which `make soak` does: caches still fill.
    problems = [words for words in result["problems"] if not words.startswith("memory")]
    assert problems == [], result
    assert sum(result["faults"].values()) >= 6


STEADY = [Usage(float(i), 200.0, 30, 60) for i in range(100)]
EVENTS = [
    {
        "event": kind,
        "id": f"run-{i:08d}",
        "rig": "gate",
        "track": 1,
        "identity": "P1",
        "known": True,
    }
    for i, kind in enumerate(("sighting", "track_end"))
]  # fmt: skip


def test_a_steady_run_has_no_problems():
    assert judged(STEADY, EVENTS, 0)["problems"] == []


@pytest.mark.parametrize(
    ("samples", "events", "code", "words"),
    [
        (STEADY, EVENTS, 1, "exit code 1"),
        ([replace(s, rss_mb=200 + 0.2 * s.at_s) for s in STEADY], EVENTS, 0, "memory grew"),
        ([replace(s, threads=30 + int(s.at_s / 10)) for s in STEADY], EVENTS, 0, "more threads"),
        ([replace(s, files=60 + int(s.at_s / 5)) for s in STEADY], EVENTS, 0, "more open files"),
        (STEADY, EVENTS[1:], 0, "1 events lost"),
        (STEADY, [*EVENTS, EVENTS[1]], 0, "1 events doubled"),
        (STEADY, EVENTS[:1], 0, "without an end"),
        (STEADY, [{**e, "known": False} for e in EVENTS], 0, "nobody"),
    ],
)
def test_what_must_not_be_is_named(samples, events, code, words):
    assert any(words in problem for problem in judged(samples, events, code)["problems"])


def test_growth_and_sequences():
    assert memory_growth([100.0] * 50 + [100.0 + i * 0.1 for i in range(50)]) == pytest.approx(0.05)
    assert sequence_faults([f"r-{i:08d}" for i in (0, 1, 1, 4)]) == (2, 1)
