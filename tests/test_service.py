"""What systemd is told, by a real socket; and the unit that listens."""

import contextlib
import os
import signal
import socket
import threading

import pytest

from runtime.operation.service import Notifier, announcing, watchdog_s
from tests.scene_cameras import InProcess, until


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket; ``heard()`` gives all lines so far."""
    with Manager(str(tmp_path / "notify")) as listening:
        yield listening


class Manager:
    def __init__(self, address):
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(0.05)
        self.lines = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def heard(self):
        return self.lines

    def _read(self):
        """Take what comes: the kernel keeps ten datagrams for who does not."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.lines += self._socket.recv(65536).decode().splitlines()


def watched(folder, monkeypatch, manager, watchdog_us="400000"):
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": watchdog_us}
    return InProcess(folder, monkeypatch, lambda view: announcing(view, environment))


def test_ready_alive_status_and_stopping(tmp_path, monkeypatch, manager):
    with watched(tmp_path / "out", monkeypatch, manager) as run:
        until(lambda: "STATUS=1 of 1 rigs watched" in manager.heard())
        assert manager.lines.count("READY=1") == 1
        assert manager.lines.index("READY=1") < manager.lines.index("STATUS=1 of 1 rigs watched")
        run.cameras["gate-nir"].state, run.cameras["gate-nir"].reason = "lost", "refused"
        until(lambda: "STATUS=1 of 1 rigs watched; gate: nir is lost (refused)" in manager.heard())
        alive = manager.lines.count("WATCHDOG=1")
        until(lambda: manager.heard().count("WATCHDOG=1") > alive + 2)
    until(lambda: manager.heard()[-2:] == ["STOPPING=1", "STATUS=ending"])


def test_a_rig_without_cameras_is_no_reason_not_to_start(tmp_path, monkeypatch, manager):
    run = watched(tmp_path / "out", monkeypatch, manager)
    monkeypatch.setattr("tests.scene_cameras.SceneCamera.state", "connecting", raising=False)
    with run:
        for camera in run.cameras.values():
            camera.state = "lost"
        until(lambda: "READY=1" in manager.heard())
        until(lambda: any(line.startswith("STATUS=0 of 1 rigs") for line in manager.heard()))


def test_a_deciding_thread_that_hangs_is_not_called_alive(tmp_path, monkeypatch, manager):
    with watched(tmp_path / "out", monkeypatch, manager) as run:
        until(lambda: manager.heard().count("WATCHDOG=1") > 2)
        go_on = threading.Event()
        held = threading.Event()
        rig = run.view.feed.rigs()[0]
        poll = rig.poll
        monkeypatch.setattr(rig, "poll", lambda: held.set() or (go_on.wait(20) and poll()))
        assert held.wait(10)
        run.cameras["gate-tir"].state = "lost"  # so that we hear that it still tells
        until(lambda: any("tir is lost" in line for line in manager.heard()))
        alive = manager.lines.count("WATCHDOG=1")
        run.cameras["gate-tir"].reason = "still"
        until(lambda: any("(still)" in line for line in manager.heard()))
        assert manager.lines.count("WATCHDOG=1") == alive
        go_on.set()
        until(lambda: manager.heard().count("WATCHDOG=1") > alive)


def test_an_abstract_name(tmp_path):
    with Manager(f"@mambapro-{os.getpid()}") as manager:
        with contextlib.closing(Notifier(manager.address)) as notifier:
            notifier.send("READY=1", "STATUS=x")
        until(lambda: manager.heard() == ["READY=1", "STATUS=x"])


def test_a_manager_that_is_gone_stops_nothing(tmp_path, caplog):
    with contextlib.closing(Notifier(str(tmp_path / "gone"))) as notifier:
        notifier.send("READY=1")
    assert "systemd was not told READY=1" in caplog.text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_whom_it_names(environment, expected):
    assert watchdog_s(environment) == expected


def test_without_systemd_nothing_is_announced(tmp_path, monkeypatch):
    before = {t.name for t in threading.enumerate()}
    with InProcess(tmp_path / "out", monkeypatch, lambda view: announcing(view, {})):
        assert "service" not in {t.name for t in threading.enumerate()} - before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
