"""A real full disk: a small tmpfs under the journal and events.jsonl."""

import json
import os
import subprocess
import time

import pytest

from runtime.config import SinksConfig
from runtime.sinks import open_events
from tests.reliability import record


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        assert not os.environ.get("CI"), f"cannot mount a tmpfs: {done.stderr}"
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_event_is_lost_or_doubled_by_a_full_disk(small_disk):
    log = open_events(SinksConfig(), small_disk, live=True)
    event = {"event": "track_end", "rig": "gate", "time_s": time.time()}
    written = [log.write(event) for _ in range(5)]
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        while True:
            try:
                if file.write(b"x" * 4096) < 4096:
                    break
            except OSError:
                break
    while log.status().waiting < 20:  # what is left of the last pages is used up first
        written.append(log.write(event))
        assert len(written) < 5000
    assert "No space left" in log.status().last_error
    filler.unlink()
    freed_s = time.monotonic()
    while log.status().waiting and time.monotonic() < freed_s + 20:
        time.sleep(0.01)
    recovery_s = time.monotonic() - freed_s
    log.close(drain_s=10.0)
    lines = (small_disk / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == written
    record("disk full under the events", recovery_s=round(recovery_s, 2), events_lost=0)
