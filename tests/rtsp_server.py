"""An RTSP server on loopback whose cameras can be made to fail; tests/rtsp.py starts and drives it.

Run by the system's Python, which has GStreamer (Debian: python3-gi, gir1.2-gst-rtsp-server-1.0,
gstreamer1.0-plugins-base, gstreamer1.0-plugins-good). A camera is a mount; it plays a file of H.264
access units live, round and round, all cameras by one clock. Commands come on stdin, a line each:

    freeze MOUNT           send nothing more, keep the connections
    thaw MOUNT             go on with what is live now, from a key frame
    jump MOUNT SECONDS     shift the time stamps
    clip MOUNT FILE        play another file, from a key frame

Each is answered on stdout by "ok"; "ready PORT" comes first. The end of stdin ends the server, so
it does not outlive its parent.
"""

from __future__ import annotations

import argparse
import struct
import sys
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
# GstApp: an appsrc that two threads see first at once, its class not loaded, is no Element to one.
from gi.repository import GLib, Gst, GstApp, GstRtspServer  # noqa: E402, F401

CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
LAUNCH = (
    f"( appsrc name=source is-live=true format=time caps={CAPS} "
    "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
HEADER = struct.Struct("<d?I")  # time s, key frame, bytes
REPORT_EVERY_NS = 500_000_000
REPORTS_FROM_S = 1.0
AGE_NS = 3600 * 10**9


class Clip:
    """Access units and their times."""

    def __init__(self, path: str) -> None:
        data = Path(path).read_bytes()
        self.units: list[tuple[float, bool, bytes]] = []
        at = 0
        while at < len(data):
            time_s, key, size = HEADER.unpack_from(data, at)
            at += HEADER.size
            self.units.append((time_s, key, data[at : at + size]))
            at += size
        self.period_s = self.units[-1][0] + self.units[-1][0] / (len(self.units) - 1)


def _mend(_pipeline: object, _bin: object, element: Gst.Element) -> None:
    """Make GStreamer 1.22 send at once, and no sender report before it knows the time."""
    if element.find_property("sync") is not None:  # whatever `set_rate_control` said
        element.connect("notify::sync", _unsync)
        _unsync(element, None)
    if element.get_factory().get_name() == "rtpsession":
        element.connect("pad-added", _hold_first_reports)


def _hold_first_reports(_session: object, pad: Gst.Pad) -> None:
    until_s = time.monotonic() + REPORTS_FROM_S

    def probe(_pad: object, _info: object) -> Gst.PadProbeReturn:
        early = time.monotonic() < until_s
        return Gst.PadProbeReturn.DROP if early else Gst.PadProbeReturn.OK

    if pad.get_name().startswith("send_rtcp_src"):
        pad.add_probe(Gst.PadProbeType.BUFFER, probe)


def _unsync(element: Gst.Element, _property: object) -> None:
    if element.get_property("sync"):
        element.set_property("sync", False)


class Camera(GstRtspServer.RTSPMediaFactory):
    """Plays a clip live to whoever is connected."""

    def __init__(self, clip: Clip, begin_s: float, period_s: float) -> None:
        super().__init__()
        self.set_launch(LAUNCH)
        self.set_shared(True)
        self.set_suspend_mode(GstRtspServer.RTSPSuspendMode.NONE)
        self.connect("media-configure", self._configure)
        self.frozen = False
        self.jump_s = 0.0
        self.next_clip: Clip | None = None
        self._clip, self._begin_s, self._period_s = clip, begin_s, period_s
        self._media: GstRtspServer.RTSPMedia | None = None
        self._source: Gst.Element | None = None
        self._needs_key = True
        threading.Thread(target=self._run, daemon=True).start()

    def _configure(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        pipeline = media.get_element().get_parent()
        pipeline.set_start_time(Gst.CLOCK_TIME_NONE)  # or it would overwrite the base time
        pipeline.set_base_time(time.monotonic_ns() - AGE_NS)  # so that time can jump back
        pipeline.connect("deep-element-added", _mend)
        media.connect("prepared", self._prepared)
        media.connect("unprepared", self._unprepared)
        self._media, self._source = media, media.get_element().get_by_name("source")
        self._needs_key = True

    def _prepared(self, media: GstRtspServer.RTSPMedia) -> None:
        session = media.get_stream(0).get_rtpsession()
        session.set_property("rtcp-min-interval", REPORT_EVERY_NS)

    def _unprepared(self, media: GstRtspServer.RTSPMedia) -> None:
        if media == self._media:  # threads: the next one may be there already
            self._source = None

    def _run(self) -> None:
        lap = int((time.monotonic() - self._begin_s) / self._period_s)
        while True:
            for time_s, key, data in self._clip.units:
                due_s = self._begin_s + lap * self._period_s + time_s
                time.sleep(max(0.0, due_s - time.monotonic()))
                if key and self.next_clip is not None:
                    break
                self._send(due_s, key, data)
            if self.next_clip is not None:
                self._clip, self.next_clip = self.next_clip, None
                self._begin_s, self._period_s, lap = time.monotonic(), self._clip.period_s, 0
            else:
                lap += 1

    def _send(self, due_s: float, key: bool, data: bytes) -> None:
        source = self._source
        if self.frozen or source is None or source.current_state != Gst.State.PLAYING:
            self._needs_key = True
            return
        if self._needs_key and not key:
            return
        self._needs_key = False
        buffer = Gst.Buffer.new_wrapped(data)
        running_ns = round((due_s + self.jump_s) * 1e9) - source.get_base_time()
        buffer.pts = buffer.dts = running_ns
        source.emit("push-buffer", buffer)


def obey(line: str, cameras: dict[str, Camera]) -> None:
    """Do what one line of stdin says."""
    command, mount, *rest = line.split(maxsplit=2)
    camera = cameras[mount]
    if command in ("freeze", "thaw"):
        camera.frozen = command == "freeze"
    elif command == "jump":
        camera.jump_s += float(rest[0])
    elif command == "clip":
        camera.next_clip = Clip(rest[0])
    else:
        raise ValueError(command)


def listen(loop: GLib.MainLoop, cameras: dict[str, Camera]) -> None:
    """Obey until stdin ends."""
    try:
        for line in sys.stdin:
            obey(line.strip(), cameras)
            print("ok", flush=True)
    finally:
        loop.quit()


def authenticate(server: GstRtspServer.RTSPServer, user: str, password: str) -> None:
    """Let nobody in without the password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description="RTSP cameras for tests; see the docstring")
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: a free one)")
    parser.add_argument("--login", default="", help="USER:PASSWORD that clients must give")
    parser.add_argument("cameras", nargs="+", help="MOUNT=FILE of access units, one a camera")
    args = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(args.port))
    clips = {}
    for argument in args.cameras:
        mount, _, path = argument.partition("=")
        clips[mount] = Clip(path)
    period_s = max(clip.period_s for clip in clips.values())  # a round is as long for all of them
    begin_s = time.monotonic()
    cameras = {}
    for mount, clip in clips.items():
        cameras[mount] = camera = Camera(clip, begin_s, period_s)
        if args.login:
            roles = GstRtspServer.RTSPPermissions()
            roles.add_role("user")
            roles.add_permission_for_role("user", "media.factory.access", True)
            roles.add_permission_for_role("user", "media.factory.construct", True)
            camera.set_permissions(roles)
        server.get_mount_points().add_factory(f"/{mount}", camera)
    if args.login:
        authenticate(server, *args.login.split(":", 1))
    server.get_thread_pool().set_max_threads(len(cameras))  # cameras answer side by side
    if server.attach(None) == 0:
        sys.exit(f"cannot listen at 127.0.0.1:{args.port}: it is taken")
    loop = GLib.MainLoop()
    threading.Thread(target=listen, args=(loop, cameras), daemon=True).start()
    print("ready", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
