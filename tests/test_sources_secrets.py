"""Logins reach the camera and nobody else; closing is prompt wherever a camera hangs."""

import logging
import shutil
import ssl
import subprocess
import threading
import time

import av
import pytest

from runtime.config import SourceConfig
from runtime.sources import Frame, open_source
from tests.bad_network import Proxy, SilentServer
from tests.numbered_clips import numbered_clip
from tests.rtsp import RtspServer, require_rtsp_server

QUICK = SourceConfig(connect_timeout_s=3.0, read_timeout_s=3.0)
SECRET = "hunter2"
LOGIN = f"gatekeeper:{SECRET}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    require_rtsp_server()
    folder = tmp_path_factory.mktemp("guarded")
    clip = numbered_clip(folder / "clip.mp4", 50)
    with RtspServer({"rgb": clip}, folder, login=LOGIN) as server:
        yield server


def wait_for(source, state):
    end_s = time.monotonic() + 10.0
    while source.status().state != state:
        assert time.monotonic() < end_s, source.status()
        source.read(0.02)
    return source.status()


def test_the_login_opens_the_camera_and_is_shown_nowhere(guarded, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    told = []
    for login, state in ((LOGIN, "live"), ("gatekeeper:wrong" + SECRET, "lost"), ("", "lost")):
        source = open_source(guarded.url("rgb", login) + f"?token={SECRET}", QUICK)
        status = wait_for(source, state)
        told += [repr(status), repr(source), repr(source.read(0.0)), source._thread.name]
        if state == "lost":
            assert "401 Unauthorized" in status.reason
        source.close()
    refused = open_source(f"rtsp://{LOGIN}@127.0.0.1:1/?token={SECRET}", QUICK)
    told.append(repr(wait_for(refused, "lost")))
    refused.close()
    told += [record.getMessage() for record in caplog.records]
    told += [str(record.exc_info) for record in caplog.records]
    told += list(capfd.readouterr())
    assert any("Connection refused" in line for line in told)
    assert not [line for line in told if SECRET in line or "gatekeeper" in line]


def test_ffmpegs_own_log_which_holds_whole_uris_is_off(guarded):
    """Were somebody to switch it on, it would tell: so nothing of ours does."""
    assert av.logging.get_level() is None
    with av.logging.Capture(local=False) as lines:
        source = open_source(guarded.url("rgb", "gatekeeper:wrong" + SECRET), QUICK)
        wait_for(source, "lost")
        source.close()
    assert lines == []


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_closing_is_prompt_while_a_host_says_nothing(scheme):
    with SilentServer() as silent:
        slow = SourceConfig(connect_timeout_s=2.0)
        source = open_source(f"{scheme}://127.0.0.1:{silent.port}/rgb", slow)
        while not silent.connections:
            time.sleep(0.01)
        time.sleep(0.2)  # now it waits for an answer
        began_s = time.monotonic()
        source.close()
        assert time.monotonic() - began_s < 1.0
        # The thread is left to FFmpeg's timeout, which ends it.
        while any(f":{silent.port}" in thread.name for thread in threading.enumerate()):
            assert time.monotonic() < began_s + 10.0
            time.sleep(0.05)


def test_rtsps(guarded, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Proxy(guarded.port, tls=context) as proxy:
        source = open_source(f"rtsps://{LOGIN}@127.0.0.1:{proxy.port}/rgb", QUICK)
        wait_for(source, "live")
        frames = [reading for _ in range(10) if isinstance(reading := source.read(2.0), Frame)]
        source.close()
    assert len(frames) == 10
