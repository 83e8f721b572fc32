"""A URI says what to open; what is shown of it holds no secret."""

from dataclasses import replace
from pathlib import Path

import pytest

from mambapro.cli import InputError
from runtime.config import CameraConfig, RigConfig, load_rigs, one_camera_rig
from runtime.sources import open_source, redact
from runtime.sources.uri import parse

SECRET = "hunter2"
WITH_SECRETS = (
    f"rtsp://admin:{SECRET}@10.0.0.7:554/stream1",
    f"rtsps://{SECRET}@camera/1",
    f"rtsp://admin:{SECRET}/with@and?{SECRET}@10.0.0.7/stream1",
    f"rtsp://admin:p%40{SECRET}@[fe80::1]:554/1?transport=udp",
    f"rtsp://camera/1?user=admin&password={SECRET}",
    f"http://camera/video.mjpg?token={SECRET}&fps=25",
    f"https://camera/video?unheard_of={SECRET}#x",
    f"rtsp://camera/user=admin_password={SECRET}_channel=1_stream=0.sdp",
    f"gst:rtspsrc location=rtsp://a:{SECRET}@camera/1 ! decodebin ! appsink",
    f"gst:rtspsrc location=rtsp://camera/1 user-id={SECRET} user-pw={SECRET} ! appsink",
    f'gst:rtspsrc location="rtsp://camera/1?key={SECRET}" ! appsink',
)


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_what_is_shown_of_a_uri_holds_no_secret(uri):
    camera = CameraConfig(uri)
    shown = [
        redact(uri),
        redact(f"cannot open '{uri}': [Errno 110] timed out"),
        parse(uri).shown,
        repr(parse(uri)),
        repr(camera),
        repr(RigConfig("gate", {"rgb": camera})),
        repr(replace(camera, offset_s=1.0)),
        one_camera_rig(uri).name,
    ]
    assert all(SECRET not in text and "admin:" not in text for text in shown), shown


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://camera:554/axis-media/media.amp?transport=tcp",
        "pattern://?size=640x360&fps=25",
        "v4l2:///dev/video0",
        "usb:0",
        "gate/rgb.mp4",
        "/data/day=3/clip.mp4",
        "gst:videotestsrc ! video/x-raw,format=BGR ! appsink",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(uri):
    assert redact(uri) == uri


@pytest.mark.parametrize(
    ("uri", "scheme", "target"),
    [
        ("clip.mp4", "file", "clip.mp4"),
        ("file:///data/my%20clip.mp4", "file", "/data/my clip.mp4"),
        ("RTSP://camera/1", "rtsp", "RTSP://camera/1"),
        ("rtsp://u:p@c/1?transport=udp", "rtsp", "rtsp://u:p@c/1"),
        ("rtsp://c/1?a=%2F&transport=udp&b", "rtsp", "rtsp://c/1?a=%2F&b"),
        ("http://c/v?x=1", "http", "http://c/v?x=1"),
        ("v4l2:///dev/video2", "v4l2", "/dev/video2"),
        ("usb:1", "v4l2", "/dev/video1"),
        ("gst:a ! b", "gst", "a ! b"),
        ("gst://a ! b", "gst", "a ! b"),
        ("pattern://", "pattern", ""),
    ],
)
def test_a_uri_is_taken_apart(uri, scheme, target):
    parts = parse(uri)
    assert (parts.scheme, parts.target) == (scheme, target)


def test_our_own_options_do_not_reach_the_camera():
    parts = parse("rtsp://camera/1?transport=udp&profile=2")
    assert parts.options == {"transport": "udp"}
    assert parts.target == "rtsp://camera/1?profile=2"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"ftp://me:{SECRET}@host/clip.mp4", "ftp: is not known"),
        ("rtsp:///stream", "it names no host"),
        ("rtsp://", "it names no host"),
        ("rtsp://[::1/stream", "it names no host"),
        ("usb:left", "usb: takes a number"),
        ("pattern://?size=big", "size must be WIDTHxHEIGHT, got 'big'"),
        ("pattern://?size=0x0", "size must be"),
        ("pattern://?sise=64x64", "pattern: has no option sise; it has size and fps"),
        ("file:///clip.mp4?fps=5", "file: has no option fps; it has none"),
        ("pattern://?fps=none", "fps must be over 0"),
        ("pattern://?fps=nan", "fps must be over 0"),
    ],
)
def test_what_can_never_work_is_refused_and_says_why(uri, message):
    with pytest.raises(InputError, match=message) as caught:
        open_source(uri)
    assert SECRET not in str(caught.value)


def test_only_paths_start_at_the_folder_of_the_rigs_file(tmp_path: Path):
    uris = ["clip.mp4", "usb:0", "gst:videotestsrc ! appsink", "rtsp://camera/1", "/abs/clip.mp4"]
    rigs = "".join(
        f"- {{name: r{i}, cameras: {{rgb: {{uri: '{uri}'}}}}}}\n" for i, uri in enumerate(uris)
    )
    path = tmp_path / "rigs.yaml"
    path.write_text(f"rigs:\n{rigs}")
    found = [rig.cameras["rgb"].uri for rig in load_rigs(path)]
    assert found == [str(tmp_path / "clip.mp4"), *uris[1:4], "/abs/clip.mp4"]
