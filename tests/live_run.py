"""The stream as a process that watches RTSP cameras, and what it tells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.rtsp import ROOT, RtspServer

PATIENCE_S = 60.0


class LiveRun:
    """``with LiveRun(rigs, output, settings) as run:``; it is killed at the end if still there."""

    def __init__(self, rigs: Path, output: Path, settings: Sequence[str], *more: str) -> None:
        self.rigs, self.output = rigs, output
        self._arguments = ["--rigs", str(rigs), "--output", str(output), "--no-video", *more]
        for setting in ("server.port=0", *settings):
            self._arguments += ["--set", setting]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LiveRun:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Start the process; its log goes to stream.log in the output folder."""
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / "stream.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "runtime" / "stream.py"), *self._arguments],
                stdout=log,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Fail, with the end of its log, when it has ended by itself."""
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"it has ended with exit code {code}:\n{self.log()[-3000:]}"

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it: no goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> tuple[int, float]:
        """Ask it to end; return its exit code and how long it took, s."""
        assert self._process is not None
        asked_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code, time.monotonic() - asked_s

    def log(self) -> str:
        """Return what it logged so far."""
        return (self.output / "stream.log").read_text()

    def events(self) -> list[dict[str, Any]]:
        """Return its events so far."""
        path = self.output / "events.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def until(
        self, wanted: Callable[[list[dict[str, Any]]], Any], patience_s: float = PATIENCE_S
    ) -> float:
        """Wait until ``wanted(events)``; return the moment, by ``time.monotonic()``."""
        give_up_s = time.monotonic() + patience_s
        while not wanted(self.events()):
            self.check()
            assert time.monotonic() < give_up_s, f"nothing came:\n{self.log()[-3000:]}"
            time.sleep(0.02)
        return time.monotonic()


def live_rigs(scene: Path, server: RtspServer, output: Path, names: Sequence[str] = ()) -> Path:
    """Write a rigs file like ``scene``'s whose cameras are ``server``'s mounts ``RIG-MODALITY``."""
    rigs = yaml.safe_load((scene / "rigs.yaml").read_text())["rigs"]
    for rig in rigs:
        for modality, camera in rig["cameras"].items():
            camera["uri"] = server.url(f"{rig['name']}-{modality}")
    chosen = [rig for rig in rigs if not names or rig["name"] in names]
    output.write_text(yaml.safe_dump({"rigs": chosen}))
    return output


def mounts(scene: Path) -> dict[str, Path]:
    """Return the clips of ``scene`` by mount."""
    rigs = yaml.safe_load((scene / "rigs.yaml").read_text())["rigs"]
    return {
        f"{rig['name']}-{modality}": scene / camera["uri"]
        for rig in rigs
        for modality, camera in rig["cameras"].items()
    }
