"""One log: ids, a disk that fills, restarts, and the JSON lines file that follows the journal."""

import json
import time
from datetime import datetime

import pytest

from runtime.config import JsonLinesConfig, SinksConfig
from runtime.sinks import CLIPS, EventLog, JsonLinesSink, open_events
from runtime.sinks.ids import order

NOW_S = float(int(time.time()))


def an_event(number=0):
    return {"event": "track_end", "rig": "gate", "track": number, "time_s": NOW_S + number}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(condition, most_s=10.0):
    """Wait for ``condition``, whose result is returned."""
    end_s = time.monotonic() + most_s
    while not (result := condition()) and time.monotonic() < end_s:
        time.sleep(0.01)
    return result


def test_on_files_ids_are_the_same_each_time_and_the_file_starts_anew(tmp_path):
    for _ in range(2):
        log = open_events(SinksConfig(), tmp_path, live=False)
        assert [log.write(an_event(n)) for n in range(2)] == ["clips-00000000", "clips-00000001"]
        log.close()
    events = lines(tmp_path / "events.jsonl")
    assert [e["id"] for e in events] == ["clips-00000000", "clips-00000001"]
    assert events[0] == {**an_event(), "id": "clips-00000000", "schema": 1, "time": None}
    assert list(events[0])[:2] == ["event", "id"]
    assert not (tmp_path / "journal").exists()


def test_live_ids_go_on_over_restarts_and_so_does_the_file(tmp_path):
    written = []
    for _ in range(3):
        log = open_events(SinksConfig(), tmp_path, live=True)
        written += [log.write(an_event(n)) for n in range(4)]
        log.close()
    assert sorted(set(written), key=order) == written
    events = lines(tmp_path / "events.jsonl")
    assert [e["id"] for e in events] == written
    assert datetime.fromisoformat(events[1]["time"].replace("Z", "+00:00")).timestamp() == NOW_S + 1


def test_a_line_that_was_written_but_not_acknowledged_is_not_doubled(tmp_path):
    log = open_events(SinksConfig(), tmp_path, live=True)
    cursor = tmp_path / "journal" / "jsonlines.cursor"
    before = cursor.read_bytes()
    written = [log.write(an_event(n)) for n in range(5)]
    log.close()
    cursor.write_bytes(before)  # as a kill between the two leaves it
    log = open_events(SinksConfig(), tmp_path, live=True)
    written.append(log.write(an_event(9)))
    log.close()
    assert [e["id"] for e in lines(tmp_path / "events.jsonl")] == written


def test_the_file_catches_up_with_what_a_kill_kept_from_it(tmp_path):
    log = open_events(SinksConfig(), tmp_path, live=True)
    written = [log.write(an_event(n)) for n in range(5)]
    log.close()
    cursor = tmp_path / "journal" / "jsonlines.cursor"
    path = tmp_path / "events.jsonl"
    text = path.read_bytes()
    path.write_bytes(text[: text.index(b"\n") + 20])  # one whole line, one torn
    cursor.write_bytes(b"")
    cursor.write_bytes(b"damaged")
    log = open_events(SinksConfig(), tmp_path, live=True)
    log.close()
    assert [e["id"] for e in lines(path)] == written


class Disk:
    """A sink whose disk fills and is emptied."""

    def __init__(self):
        self.full, self.events = False, []

    def write(self, event):
        if self.full:
            raise OSError(28, "No space left on device", "disk")
        self.events.append(event)

    def close(self):
        pass


def test_while_the_disk_is_full_events_wait_in_memory_in_order():
    disk = Disk()
    log = EventLog(CLIPS, disk, patience=5)
    log.write(an_event(0))
    disk.full = True
    for number in range(1, 4):
        log.write(an_event(number))
    status = log.status()
    assert (status.written, status.waiting, status.lost) == (4, 3, 0)
    assert "No space left" in status.last_error
    disk.full = False
    log.write(an_event(4))  # does not overtake
    assert until(lambda: log.status().waiting == 0)
    assert log.status().last_error is None
    log.close()
    assert [e["track"] for e in disk.events] == [0, 1, 2, 3, 4]
    assert [e["id"] for e in disk.events] == [f"clips-{n:08d}" for n in range(5)]


def test_what_waits_is_bounded_and_what_is_lost_is_counted(caplog):
    disk = Disk()
    disk.full = True
    log = EventLog(CLIPS, disk, patience=3)
    for number in range(5):
        log.write(an_event(number))
    assert (log.status().waiting, log.status().lost) == (3, 2)
    log.close()
    assert "3 events are lost" in caplog.text


def test_without_patience_the_caller_is_told_and_no_id_is_used_up():
    disk = Disk()
    log = EventLog(CLIPS, disk)
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        log.write(an_event())
    disk.full = False
    assert log.write(an_event()) == "clips-00000000"
    log.close()


def test_rotation_loses_no_line_and_keeps_so_many_files(tmp_path):
    config = SinksConfig(jsonlines=JsonLinesConfig(rotate_mb=0.001, keep=3))
    log = open_events(config, tmp_path, live=True)
    written = [log.write(an_event(n)) for n in range(30)]
    log.close()
    names = ["events.jsonl.3", "events.jsonl.2", "events.jsonl.1", "events.jsonl"]
    files = [lines(tmp_path / name) for name in names]
    got = [e["id"] for events in files for e in events]
    assert got == written[-len(got) :]
    assert len(got) > 20
    assert all((tmp_path / name).stat().st_size <= 1048 for name in names)
    assert not (tmp_path / "events.jsonl.4").exists()


def test_an_old_file_is_rotated_after_a_restart(tmp_path):
    path = tmp_path / "events.jsonl"
    log = open_events(SinksConfig(), tmp_path, live=True)
    first = log.write({**an_event(), "time_s": NOW_S - 90_000})
    log.close()
    log = open_events(SinksConfig(), tmp_path, live=True)
    second = log.write(an_event())
    log.close()
    assert [e["id"] for e in lines(tmp_path / "events.jsonl.1")] == [first]
    assert [e["id"] for e in lines(path)] == [second]


def test_json_lines_that_are_recorded_start_anew(tmp_path):
    for number in range(2):
        sink = JsonLinesSink(tmp_path / "crops.jsonl")
        sink.write({"n": number})
        sink.close()
    assert lines(tmp_path / "crops.jsonl") == [{"n": 1}]


@pytest.mark.parametrize("identifier", ["clips-00000007", 7])
def test_a_live_run_goes_on_in_the_file_of_a_run_on_files(tmp_path, identifier):
    (tmp_path / "events.jsonl").write_text(json.dumps({"id": identifier, "time_s": NOW_S}) + "\n")
    log = open_events(SinksConfig(), tmp_path, live=True)
    written = [log.write(an_event(n)) for n in range(3)]
    log.close()
    assert [e["id"] for e in lines(tmp_path / "events.jsonl")] == [identifier, *written]
