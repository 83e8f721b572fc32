"""The stream as a service: real cameras over RTSP, systemd's socket, the server, signals."""

import json
import re
import signal
import urllib.error
import urllib.request

import pytest

from runtime.config import LiveConfig
from runtime.server.door import VARIABLE
from tests.live_run import LiveRun, live_rigs, mounts
from tests.rtsp import RtspServer, require_rtsp_server
from tests.runtime_scenes import Walk, write_colour_model, write_scene
from tests.scene_cameras import until
from tests.test_deploy import UNIT
from tests.test_service import Manager

RED = "STATUS=1 of 1 rigs watched; gate: nir is "  # the first camera of the file
TOKEN = "another-token-of-32-characters-x"
SETTINGS = (
    "models.vehicle=null", "match.decide_after=2", "live.warm_up_s=1", "sync.tolerance_s=0.05",
    "source.read_timeout_s=1.5", "source.connect_timeout_s=1.5", "source.stalled_after_s=0.4",
)  # fmt: skip


def get(url, path):
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_camera_that_dies_turns_ready_red_and_all_is_told(tmp_path, monkeypatch):
    require_rtsp_server()
    write_scene(tmp_path, {"gate": [Walk("a", 0.6, speed=150)]}, 4.0)
    model = write_colour_model(tmp_path / "person.onnx")
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    with (
        Manager(str(tmp_path / "notify")) as manager,
        RtspServer(mounts(tmp_path), tmp_path, login="me:geheim") as cameras,
    ):
        rigs = live_rigs(tmp_path, cameras, tmp_path / "live.yaml")
        rigs.write_text(rigs.read_text().replace("rtsp://", "rtsp://me:geheim@"))
        settings = [*SETTINGS, f"models.person={model}"]
        with LiveRun(rigs, tmp_path / "out", settings, "--log-format", "json") as stream:
            url = until(lambda: re.search(r"serving (http://[\d.:]+)", stream.log()))[1]
            until(lambda: get(url, "/readyz")[0] == 200)
            stream.until(lambda events: any(e["event"] == "sighting" for e in events))
            cameras.stop()
            until(lambda: get(url, "/readyz")[0] == 503)
            away = json.loads(get(url, "/readyz")[1])["problems"]
            assert any(re.match(r"rig gate: nir is (stalled|lost)", words) for words in away)
            assert get(url, "/healthz")[0] == 200
            until(lambda: any(RED in line for line in manager.heard()))
            cameras.start()
            until(lambda: get(url, "/readyz")[0] == 200)
            text = get(url, "/metrics")[1]
            reconnects = re.search(r'mambapro_source_reconnects_total\{.*"rgb".*\} (\S+)', text)
            assert float(reconnects[1]) >= 1
            stream.signal(signal.SIGHUP)
            until(lambda: '"message": "watching gate"' in stream.log())
            states = get(url, "/api/rigs")[1]
            code, took_s = stream.stop()
        assert code == 0
        assert took_s < LiveConfig.drain_s
        heard = until(lambda: manager.heard()[-1] == "STATUS=ending" and list(manager.heard()))
    assert [heard.count(line) for line in ("READY=1", "STOPPING=1")] == [1, 1]
    assert heard.index("READY=1") < heard.index("STOPPING=1")
    assert heard.count("WATCHDOG=1") > 3
    lines = [line for line in stream.log().splitlines() if line.startswith("{")]
    records = [json.loads(line) for line in lines]
    assert any(r.get("rig") == "gate" for r in records)
    assert any("***@127.0.0.1" in r.get("camera", "") for r in records)
    for told in (stream.log(), states, text, "\n".join(heard)):
        assert "geheim" not in told
        assert TOKEN not in told


@pytest.mark.parametrize("key", ["TimeoutStopSec", "WatchdogSec"])
def test_the_unit_waits_for_what_the_run_may_take(key):
    seconds = float(re.search(rf"^{key}=(\d+)$", UNIT.read_text(), re.MULTILINE)[1])
    assert seconds > LiveConfig.drain_s


def test_the_unit_hears_and_reloads():
    text = UNIT.read_text()
    assert "Type=notify\n" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    assert "KillSignal" not in text  # systemd's own is SIGTERM
