"""Who is deleted is in no event and no snapshot any more, also when a kill comes between."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.config import JournalConfig, JsonLinesConfig, SinksConfig, SnapshotsConfig
from runtime.sinks import forget_in_folder, open_events
from runtime.sinks.deletions import Deletion
from runtime.sinks.ids import order
from runtime.sinks.journal import Journal
from runtime.sinks.refused import RefusedEvents
from tests.broker import until

ROOT = Path(__file__).parents[1]
CONFIG = SinksConfig(
    snapshots=SnapshotsConfig(enabled=True),
    journal=JournalConfig(max_mb=0.5, fsync=False),
    jsonlines=JsonLinesConfig(rotate_mb=0.005, keep=1000),
)
CROPS = {"rgb": np.full((8, 8, 3), 90, np.uint8)}


def a_sighting(identity):
    return {"event": "sighting", "rig": "gate", "identity": identity, "time_s": time.time()}


def kept(folder):
    """Return the events that are left, in the order of their ids."""
    files = [path for path in folder.glob("events.jsonl*") if path.suffix != ".part"]
    events = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return sorted(events, key=lambda event: order(event["id"]))


def told_of(name, folder):
    """Return the files below ``folder`` whose names or bytes hold ``name``."""
    word = name.encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    try:
        return [p for p in files if word in p.read_bytes() + str(p.relative_to(folder)).encode()]
    except FileNotFoundError:  # replaced or done meanwhile: look again
        return files


def write_some(log, count=120):
    return {log.write(a_sighting(f"P{n % 3}"), CROPS): f"P{n % 3}" for n in range(count)}


def test_nothing_is_left_of_who_is_deleted_and_all_of_the_others(tmp_path):
    RefusedEvents(tmp_path / "refused.jsonl").add("webhook", "HTTP 422", a_sighting("P1"))
    RefusedEvents(tmp_path / "refused.jsonl").add("webhook", "HTTP 422", a_sighting("P2"))
    log = open_events(CONFIG, tmp_path, live=True)
    written = write_some(log)
    assert until(lambda: len(kept(tmp_path)) == len(written))
    assert len(list(tmp_path.glob("events.jsonl.*"))) > 2
    log.forget(["P1"])
    assert until(lambda: not told_of("P1", tmp_path))
    later = log.write(a_sighting("P2"), CROPS)
    log.close()
    wanted = [i for i, name in written.items() if name != "P1"]
    assert [event["id"] for event in kept(tmp_path)] == [*wanted, later]
    assert len(list((tmp_path / "snapshots").rglob("*.jpg"))) == 81
    (line,) = (tmp_path / "refused.jsonl").read_text().splitlines()
    assert json.loads(line)["event"]["identity"] == "P2"
    log = open_events(CONFIG, tmp_path, live=True)  # which goes on after it
    last = log.write(a_sighting("P0"))
    log.close()
    assert kept(tmp_path)[-1]["id"] == last
    assert len({event["id"] for event in kept(tmp_path)}) == len(wanted) + 2


def test_single_events_are_deleted(tmp_path):
    log = open_events(CONFIG, tmp_path, live=True)
    written = list(write_some(log, 12))
    log.forget([], written[:4])
    assert until(lambda: [event["id"] for event in kept(tmp_path)] == written[4:])
    log.close()


def test_readers_pass_over_what_was_deleted(tmp_path):
    journal = Journal(tmp_path, max_bytes=16_000, fsync=False)
    reader = journal.reader("slow")
    padding = "x" * 40
    for number in range(100):
        identity = f"P{number % 4}"
        journal.write({"id": f"run-{number:08d}", "identity": identity, "text": padding})
    reader.read(10)
    reader.acknowledge(7)
    ids = journal.forget(Deletion(frozenset(["P1", "P2"])))
    assert len(ids) == 50
    assert journal.forget(Deletion(frozenset(["P1", "P2"]))) == set()
    journal.close()
    journal = Journal(tmp_path, max_bytes=16_000, fsync=False)
    reader = journal.reader("slow")
    got = []
    while reader.behind:
        events = reader.read(7)
        got += [order(event["id"])[1] for event in events]
        reader.acknowledge(len(events))
    assert got == [n for n in range(7, 100) if n % 4 in (0, 3)]
    assert reader.skipped == 0
    journal.close()


def test_what_waits_for_the_disk_is_deleted_too(tmp_path, monkeypatch):
    log = open_events(CONFIG, tmp_path, live=True)
    full = OSError(28, "No space left on device", "disk")

    def refuse(event):
        raise full

    monkeypatch.setattr(log._sink, "write", refuse)
    written = [log.write(a_sighting(name)) for name in ("P1", "P2", "P1")]
    log.forget(["P1"])
    assert until(lambda: log.status().waiting == 1)
    monkeypatch.undo()
    assert until(lambda: [event["id"] for event in kept(tmp_path)] == [written[1]])
    log.close()


def test_on_files_it_is_done_at_once(tmp_path):
    log = open_events(CONFIG, tmp_path, live=False)
    written = write_some(log, 9)
    log.forget(["P0"])
    assert not told_of("P0", tmp_path)
    more = log.write(a_sighting("P2"))
    log.close()
    wanted = [i for i, name in written.items() if name != "P0"]
    assert [event["id"] for event in kept(tmp_path)] == [*wanted, more]


def test_another_process_deletes_in_the_folder_of_one_that_has_ended(tmp_path):
    log = open_events(CONFIG, tmp_path, live=True)
    write_some(log, 30)
    log.close()
    assert forget_in_folder(CONFIG, tmp_path, ["P2", "nobody"])
    assert not told_of("P2", tmp_path)
    assert len(kept(tmp_path)) == 20


def test_a_stream_that_runs_does_it_for_another_process(tmp_path):
    log = open_events(CONFIG, tmp_path, live=True)
    write_some(log, 30)
    assert not forget_in_folder(CONFIG, tmp_path, ["P2"])
    assert until(lambda: not told_of("P2", tmp_path))
    log.close()


def test_a_full_disk_leaves_the_task(tmp_path, monkeypatch, caplog):
    log = open_events(CONFIG, tmp_path, live=True)
    write_some(log, 30)
    full = OSError(28, "No space left on device")

    def fail(*_):
        raise full

    monkeypatch.setattr("runtime.sinks.journal.rewritten", fail)
    log.forget(["P2"])
    assert until(lambda: "deletion is tried again" in caplog.text)
    log.close()
    monkeypatch.undo()
    log = open_events(CONFIG, tmp_path, live=True)
    assert until(lambda: not told_of("P2", tmp_path))
    log.close()


WRITER = """
import sys, time
from pathlib import Path
from runtime.sinks import open_events
from tests.test_sinks_deletions import CONFIG, a_sighting
log = open_events(CONFIG, Path(sys.argv[1]), live=True)
names = sys.argv[2:]
for n in range(300):
    print(log.write(a_sighting(names[n % 3])), flush=True)
log.forget([names[0]])
print("noted", flush=True)
while True:
    print(log.write(a_sighting(names[1])), flush=True)
    time.sleep(0.001)
"""


@pytest.mark.slow
def test_killed_while_it_deletes_it_ends_the_work_after_the_next_start(tmp_path):
    chance, told = random.Random(2), []
    for turn in range(4):
        names = [f"gone{turn}", f"stays{turn}", "others"]
        command = [sys.executable, "-c", WRITER, str(tmp_path), *names]
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        lines = iter(writer.stdout.readline, "noted\n")
        told += [x.strip() for n, x in enumerate(lines) if n % 3]
        time.sleep(chance.uniform(0.0, 1.1))  # the work begins within a second
        writer.send_signal(signal.SIGKILL)
        told += [x.strip() for x in writer.stdout.readlines() if x.endswith("\n")]
        writer.wait()
    log = open_events(CONFIG, tmp_path, live=True)
    assert until(lambda: not told_of("gone", tmp_path))
    log.close(drain_s=10.0)
    ids = [event["id"] for event in kept(tmp_path)]
    assert len(ids) == len(set(ids))
    assert set(told) <= set(ids)
    assert list(tmp_path.rglob("*.part")) == []
