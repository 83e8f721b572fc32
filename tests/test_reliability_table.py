"""The table of faults shows the worst of several tries."""

import json

from benchmarks.reliability import shown, worst_of
from tests import reliability


def test_the_worst_of_each_figure_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "RECORDS", tmp_path / "build" / "lines.jsonl")
    reliability.record("cut", detection_s=0.1, recovery_s=2.0, frames_lost=3)
    reliability.record("disk full", events_lost=0)
    reliability.record("cut", detection_s=0.3, recovery_s=1.0, frames_lost=4)
    lines = [json.loads(line) for line in reliability.RECORDS.read_text().splitlines()]
    worst = worst_of(lines)
    assert list(worst) == ["cut", "disk full"]
    assert shown(worst["cut"]) == ["2", "0.30 s", "2.00 s", "4", ""]
    assert shown(worst["disk full"]) == ["1", "", "", "", "0"]
