"""RTSP cameras on loopback for tests: start them, read them, make them fail."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
HEADER = struct.Struct("<d?I")
KEY_FRAME_EVERY_S = 0.4
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
)


def why_no_rtsp_server(python: str = PYTHON) -> str:
    """Return what keeps the server from running; empty when nothing does."""
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); "
        "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        "assert Gst.ElementFactory.find('rtph264pay') and Gst.ElementFactory.find('appsrc')"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip()[-200:] if done.returncode else ""


def require_rtsp_server(python: str = PYTHON) -> None:
    """Skip the test when the server's packages are missing; in CI, fail."""
    if why := why_no_rtsp_server(python):
        words = f"the RTSP server needs {PACKAGES}: {why}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(words)


def access_units(clip: Path, output: Path) -> Path:
    """Write a clip as the server reads it, with a key frame every KEY_FRAME_EVERY_S; return it.

    Cameras begin with a key frame for whoever connects. A file cannot, but with short distances
    between its key frames a reader waits no longer. Times begin at 0.
    """
    with av.open(str(clip)) as container, output.open("wb") as file:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = round(float(stream.average_rate or 25))
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height = stream.width, stream.height
        encoder.pix_fmt = "yuv420p"
        encoder.framerate, encoder.time_base = Fraction(rate), Fraction(1, 90_000)
        encoder.thread_count = 1
        encoder.options = {
            "preset": "ultrafast", "tune": "zerolatency", "crf": "22",
            "g": str(round(KEY_FRAME_EVERY_S * rate)),
            "x264-params": "repeat-headers=1:scenecut=0",
        }  # fmt: skip
        begin_s = None
        for frame in container.decode(stream):
            time_s = frame.time
            begin_s = time_s if begin_s is None else begin_s
            frame.pts, frame.time_base = round((time_s - begin_s) * 90_000), Fraction(1, 90_000)
            frame.pict_type = 0
            for packet in encoder.encode(frame):
                data = bytes(packet)
                file.write(HEADER.pack(packet.pts / 90_000, packet.is_keyframe, len(data)) + data)
    return output


class RtspServer:
    """Cameras that play clips live: ``with RtspServer({"rgb": clip}, folder) as server:``.

    ``server.url("rgb")`` is a camera's address. Its faults are ``freeze``, ``thaw``, ``jump`` and
    ``play``; ``stop`` kills all cameras at once and ``start`` brings them back on the same port.
    All clips begin together when the server starts, and go round and round. The server ends when
    this process does.
    """

    def __init__(
        self, clips: Mapping[str, Path], folder: Path, login: str = "", port: int = 0
    ) -> None:
        """Serve ``clips`` by mount, to who knows ``login`` (user:password) if one is given.

        ``folder`` keeps what is made of the clips, for the next time too. ``port`` 0 is a free one.
        """
        self.folder, self.login, self.port = folder, login, port
        self.address = "127.0.0.1"
        self._units = {mount: self._converted(clip) for mount, clip in clips.items()}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, mount: str, login: str = "") -> str:
        """Return the address of a camera; ``login`` is user:password."""
        return f"rtsp://{login + '@' if login else ''}{self.address}:{self.port}/{mount}"

    def start(self) -> None:
        """Start the server; returns when it accepts connections."""
        cameras = [f"{mount}={path}" for mount, path in self._units.items()]
        login = ["--login", self.login] if self.login else []
        self._process = subprocess.Popen(
            [PYTHON, str(PROGRAM), "--port", str(self.port), *login, *cameras],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer("ready"))

    def stop(self) -> None:
        """Kill the server without a goodbye; nothing to do when it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self, mount: str) -> None:
        """Send nothing more from one camera, but keep its connections."""
        self._command("freeze", mount)

    def thaw(self, mount: str) -> None:
        """Go on after a freeze, with what the camera sees now."""
        self._command("thaw", mount)

    def jump(self, mount: str, seconds: float) -> None:
        """Shift one camera's time stamps."""
        self._command("jump", mount, str(seconds))

    def play(self, mount: str, clip: Path) -> None:
        """Play another clip, of another size if you like."""
        self._command("clip", mount, str(self._converted(clip)))

    def _converted(self, clip: Path) -> Path:
        output = self.folder / f"{clip.parent.name}-{clip.stem}.units"
        if not output.exists() or output.stat().st_mtime < clip.stat().st_mtime:
            access_units(clip, output.with_suffix(".part")).replace(output)
        return output

    def _command(self, *words: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        self._answer("ok")

    def _answer(self, expected: str) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        word, _, rest = self._process.stdout.readline().strip().partition(" ")
        if word != expected:
            raise RuntimeError(f"the RTSP server answered {word!r}, not {expected!r}")
        return rest
