"""The journal keeps what it took, in order, over kills, damage and a bound on its size."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mambapro.cli import InputError
from runtime.sinks.appending import cut_torn_tail
from runtime.sinks.ids import event_id, new_run, order
from runtime.sinks.journal import Journal

ROOT = Path(__file__).parents[1]


def opened(folder, max_bytes=1 << 20, **settings):
    return Journal(folder, max_bytes=max_bytes, **{"fsync": False, **settings})


def write(journal, numbers):
    for number in numbers:
        journal.write({"id": f"run-{number:08d}", "text": "é\n" * (number % 5)})


def numbers(events):
    return [order(event["id"])[1] for event in events]


def test_a_reader_goes_on_where_it_acknowledged(tmp_path):
    journal = opened(tmp_path)
    reader = journal.reader("a")
    write(journal, range(10))
    assert numbers(reader.read(4)) == [0, 1, 2, 3]
    reader.acknowledge(3)
    assert numbers(reader.read(4)) == [3, 4, 5, 6]
    assert reader.behind == 7
    journal.close()
    journal = opened(tmp_path)
    write(journal, range(10, 12))
    assert numbers(journal.reader("a").read(99)) == list(range(3, 12))
    assert journal.reader("new").behind == 0
    assert journal.last()["id"] == "run-00000011"
    journal.close()


def test_segments_that_all_have_read_are_deleted(tmp_path):
    journal = opened(tmp_path, max_bytes=16_000)  # segments of 1000 bytes
    fast, slow = journal.reader("fast"), journal.reader("slow")
    write(journal, range(100))
    before = journal.size_bytes
    fast.read(100)
    fast.acknowledge(100)
    assert journal.size_bytes == before
    assert numbers(slow.read(100)) == list(range(100))
    slow.acknowledge(100)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert journal.size_bytes == sum(p.stat().st_size for p in tmp_path.glob("*.jsonl"))
    assert journal.last() is not None
    journal.close()


def test_at_its_bound_the_oldest_go_and_are_counted(tmp_path):
    journal = opened(tmp_path, max_bytes=16_000)
    reader = journal.reader("away")
    write(journal, range(1000))
    assert journal.size_bytes <= 16_000 + 100
    got = numbers(reader.read(1000))
    assert got == list(range(1000))[reader.skipped :]
    assert 0 < reader.skipped < 900
    journal.close()


def test_who_comes_back_after_its_events_were_dropped_is_told(tmp_path):
    journal = opened(tmp_path, max_bytes=16_000)
    journal.reader("away")
    write(journal, range(5))
    journal.close()
    journal = opened(tmp_path, max_bytes=16_000)
    write(journal, range(5, 1000))  # "away" is not configured in this run
    journal.close()
    reader = opened(tmp_path, max_bytes=16_000).reader("away")
    got = numbers(reader.read(1000))
    assert got == list(range(1000))[-len(got) :]
    assert reader.skipped == 1000 - len(got)


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_record_is_absent_after_opening(tmp_path, cut):
    journal = opened(tmp_path)
    journal.reader("a")
    write(journal, range(3))
    journal.close()
    (segment,) = tmp_path.glob("*.jsonl")
    os.truncate(segment, segment.stat().st_size - cut)
    journal = opened(tmp_path)
    write(journal, [7])
    assert numbers(journal.reader("a").read(9)) == [0, 1, 7]
    journal.close()


def test_a_damaged_record_is_left_out_and_the_rest_is_read(tmp_path, caplog):
    journal = opened(tmp_path)
    write(journal, range(5))
    journal.close()
    (segment,) = tmp_path.glob("*.jsonl")
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"run-00000002", b"run-00000009"))
    journal = opened(tmp_path)
    (tmp_path / "a.cursor").write_bytes(b"not a cursor\n")
    reader = journal.reader("a")
    events = reader.read(99)
    assert numbers(events) == [0, 1, 3, 4]
    assert "record 2 is damaged" in caplog.text
    reader.acknowledge(4)
    assert reader.behind == 0
    journal.close()


def test_a_journal_of_damaged_records_alone_is_passed(tmp_path):
    journal = opened(tmp_path)
    journal.reader("a")
    journal.close()
    (tmp_path / f"{0:016d}.jsonl").write_bytes(b"rubbish\n" * 3)
    journal = opened(tmp_path)
    reader = journal.reader("a")
    assert reader.read(9) == []
    assert reader.behind == 0
    journal.close()


def test_one_process_at_a_time(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(InputError, match="another process"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path).close()


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, 200_000])
def test_a_torn_tail_of_any_length_is_found(tmp_path, size):
    path = tmp_path / "f"
    path.write_bytes(b"whole\n" + b"x" * size)
    assert cut_torn_tail(path) == 6
    assert path.read_bytes() == b"whole\n"
    path.write_bytes(b"x" * size)
    assert cut_torn_tail(path) == 0


WRITER = """
import sys
from pathlib import Path
from runtime.sinks.journal import Journal
journal = Journal(Path(sys.argv[1]), max_bytes=1 << 18, fsync=False)
reader = journal.reader("a")
start = journal.end
for number in range(start, start + 100_000):
    journal.write({"id": f"run-{number:08d}", "text": "x" * (number % 700)})
    print(number, flush=True)
    if number % 3 == 0:
        reader.acknowledge(len(reader.read(5)) - 1)
"""


def test_killed_again_and_again_it_has_every_event_whose_write_returned(tmp_path):
    chance = random.Random(5)
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        lines = [writer.stdout.readline() for _ in range(chance.randint(1, 400))]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        written = [int(line) for line in lines if line.endswith(b"\n")]
        journal = opened(tmp_path, max_bytes=1 << 18)
        assert journal.end - written[-1] in (1, 2)
        assert journal.last()["id"] == f"run-{journal.end - 1:08d}"
        reader = journal.reader("a")
        got = numbers(reader.read(10**6))
        assert got == list(range(journal.end - len(got), journal.end))
        journal.close()
    assert reader.skipped == 0


def test_ids_follow_each_other_over_restarts_even_when_the_clock_goes_back():
    first = new_run(1_764_000_000.5, None).text
    assert first.startswith("20251124T160000Z-")
    ids = [event_id(first, 0), event_id(first, 99_999_999), event_id(first, 100_000_000)]
    for now_s in (1_764_000_000.7, 0.0, 1_764_000_000.0, 1_800_000_000.0):
        run = new_run(now_s, ids[-1]).text
        ids += [event_id(run, number) for number in range(2)]
    assert sorted(ids, key=order) == ids
    assert len(set(ids)) == len(ids)
    assert new_run(0.0, "clips-00000001").text.startswith("19700101T000000Z-")
