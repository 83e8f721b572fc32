"""Kinds of sources besides RTSP: folders, HTTP, USB devices, GStreamer."""

import http.server
import threading
import time

import av
import cv2
import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources import End, Failure, Frame, gstreamer, open_source
from runtime.sources.av_camera import AvCamera
from runtime.sources.camera import CameraLost
from tests.numbered_clips import number_of, numbered, numbered_clip

QUICK = SourceConfig(connect_timeout_s=1.0, read_timeout_s=1.0)


def read_all(source):
    readings = []
    while not readings or not isinstance(readings[-1], (End, Failure)):
        readings.append(source.read(5.0))
    source.close()
    return readings


def folder_of(path, names):
    path.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(path / name), numbered(number)[..., ::-1])
    (path / "notes.txt").write_text("no picture")
    return path


def test_a_folder_is_read_in_the_natural_order_of_its_names(tmp_path):
    names = [f"shot {n}.png" for n in (1, 2, 9, 10, 11, 100)]
    *frames, end = read_all(open_source(str(folder_of(tmp_path / "shots", names))))
    assert end == End(6)
    assert [number_of(f.picture) for f in frames] == list(range(6))
    assert np.allclose([f.time_s for f in frames], np.arange(6) / 25)
    assert {f.time_source for f in frames} == {"frame_rate"}
    assert np.allclose(frames[0].picture[60, 5], (90, 90, 90), atol=2)
    assert np.allclose(frames[0].picture[20, 30], (200, 40, 60), atol=2)  # R, G, B


def test_the_rate_of_a_folder_comes_from_the_settings(tmp_path):
    path = folder_of(tmp_path / "shots", ["000001.jpg", "000002.jpg"])
    *frames, _ = read_all(open_source(f"file://{path}", SourceConfig(folder_fps=10)))
    assert [f.time_s for f in frames] == [0.0, 0.1]


@pytest.mark.parametrize(
    ("names", "times_s"),
    [
        (["9.960.png", "10.000.png", "10.040.png"], [9.96, 10.0, 10.04]),
        (["1700000000.png", "1700000001.png"], [1.7e9, 1.7e9 + 1]),
        (["1700000000000.png", "1700000000040.png"], [1.7e9, 1.7e9 + 0.04]),
        (["1700000000000000000.png", "1700000000040000000.png"], [1.7e9, 1.7e9 + 0.04]),
    ],
)
def test_names_that_are_times_are_the_times(tmp_path, names, times_s):
    *frames, _ = read_all(open_source(str(folder_of(tmp_path / "shots", names))))
    assert np.allclose([f.time_s for f in frames], times_s, atol=1e-6, rtol=0)
    assert {f.time_source for f in frames} == {"pts"}


def test_folders_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: it holds no picture \(\.bmp, \.jpeg"):
        open_source(str(tmp_path / "empty"))
    path = folder_of(tmp_path / "shots", ["1.png", "2.png"])
    (path / "2.png").write_bytes(b"not a picture")
    first, last = read_all(open_source(str(path)))
    assert isinstance(first, Frame)
    assert last == Failure(f"cannot decode picture {path / '2.png'}")


class Mjpeg(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(50):
            jpeg = cv2.imencode(".jpg", numbered(number)[..., ::-1])[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(0.02)

    def log_message(self, *_):
        pass


def test_mjpeg_over_http_is_live_and_comes_back():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    source = open_source(f"http://127.0.0.1:{server.server_port}/video.mjpg", QUICK)
    frames = []
    while not frames or frames[-1].connection == 0:
        reading = source.read(5.0)
        assert isinstance(reading, Frame), source.status()
        frames.append(reading)
    source.close()
    server.shutdown()
    thread.join()
    server.server_close()
    first = [f for f in frames if f.connection == 0]
    numbers = [number_of(f.picture) for f in first]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 40
    assert {f.time_source for f in frames} == {"arrival"}  # FFmpeg's time stamps are made up


@pytest.mark.parametrize(
    "uri", ["usb:9", "v4l2:///dev/none?size=640x360&fps=25", "v4l2:///dev/null"]
)
def test_a_device_that_is_not_there_is_waited_for(uri):
    source = open_source(uri, QUICK)
    end_s = time.monotonic() + 5.0
    while source.status().state != "lost":
        assert time.monotonic() < end_s
        time.sleep(0.01)
    reason = source.status().reason
    source.close()
    assert reason in ("No such file or directory", "Inappropriate ioctl for device")


@pytest.mark.parametrize(
    "uri", ["v4l2://", "v4l2:///dev/video0?fps=0", "v4l2:///dev/video0?size=1"]
)
def test_what_is_no_device_is_refused(uri):
    with pytest.raises(InputError, match="cannot open v4l2"):
        open_source(uri)


def test_gstreamer_needs_an_opencv_that_has_it(monkeypatch):
    monkeypatch.setattr(gstreamer, "opencv_has_gstreamer", lambda: False)
    with pytest.raises(InputError, match=r"has no GStreamer.*python3-opencv.*rtsp://"):
        open_source("gst:videotestsrc ! videoconvert ! appsink")


def test_a_pipeline_must_end_in_an_appsink():
    with pytest.raises(InputError, match="end in BGR and appsink"):
        open_source("gst:videotestsrc ! autovideosink")


def test_a_pipeline_gives_pictures_and_is_started_again(tmp_path, monkeypatch):
    """OpenCV's wheels have no GStreamer: a clip plays the pipeline's part in the same interface."""
    clip = str(numbered_clip(tmp_path / "clip.mp4", 5))
    asked = []
    capture = cv2.VideoCapture

    def fake(pipeline, backend):
        asked.append((pipeline, backend))
        return capture(clip)

    monkeypatch.setattr(gstreamer, "opencv_has_gstreamer", lambda: True)
    monkeypatch.setattr(gstreamer.cv2, "VideoCapture", fake)
    source = open_source("gst:nvarguscamerasrc ! appsink", QUICK)
    frames = []
    while len(frames) < 6:
        reading = source.read(5.0)
        assert isinstance(reading, Frame)
        frames.append(reading)
    source.close()
    assert [number_of(f.picture) for f in frames] == [0, 1, 2, 3, 4, 0]
    assert np.allclose(frames[0].picture[20, 30], (200, 40, 60), atol=12)
    assert frames[-1].connection == 1
    assert {f.time_source for f in frames} == {"arrival"}
    assert asked[0] == ("nvarguscamerasrc ! appsink", cv2.CAP_GSTREAMER)


def test_damaged_pictures_are_counted_and_not_given(tmp_path):
    clip = numbered_clip(tmp_path / "clip.mp4", 100)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        to_bytes = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [p for p in container.demux(stream) if p.size]
        units = bytearray(b"".join(bytes(u) for p in packets for u in to_bytes.filter(p)))
    rng = np.random.default_rng(1)
    for at in rng.integers(200, len(units), 12):
        units[at] ^= 1 << rng.integers(8)
    path = tmp_path / "damaged.h264"
    path.write_bytes(units)
    camera = AvCamera(str(path), {}, open_s=5.0, read_s=5.0, slice_s=5.0)
    pictures = []
    with pytest.raises(CameraLost, match="ended the stream"):
        while True:
            pictures += [shot.picture for shot in camera.read()]
    camera.close()
    assert camera.damaged > 0
    assert len(pictures) + camera.damaged == 100
    numbers = [number_of(picture) for picture in pictures]
    assert numbers == sorted(set(numbers))  # none shows a number that it should not
