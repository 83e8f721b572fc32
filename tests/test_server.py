"""The server of a live run: who is let in, what is well, what is counted."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from mambapro.cli import InputError, MissingError
from mambapro.contract import EXIT_BAD_INPUT
from runtime.config import ServerConfig
from runtime.operation.drift import Drift
from runtime.operation.metrics import DECLARED
from runtime.server import open_door
from runtime.server.door import VARIABLE
from tests.scene_cameras import scene_rig, until
from tests.served import Served

ROOT = Path(__file__).parents[1]
TOKEN = "a-token-of-thirty-two-characters"
ANY_PORT = ServerConfig(port=0)


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    with ExitStack() as owner:

        def start(**settings):
            served = Served(tmp_path / "out", monkeypatch, **settings)
            owner.callback(served.close)
            return served

        yield start


def test_metrics_tell_what_the_run_does(serve):
    served = serve()
    seen = until(lambda: (now := served.scrape())("decisions_total", "person", "known") and now)
    camera = ("gate", "nir")
    assert seen("frames_total", *camera) > 25
    assert seen("frames_dropped_total", *camera, "source") == 2
    assert seen("source_reconnects_total", *camera) == 1
    states = ("live", "connecting", "stalled", "lost", "ended")
    assert [seen("source_state", *camera, state) for state in states] == [1, 0, 0, 0, 0]
    assert seen("rig_begun", "gate") == 1
    triplets = seen("triplets_total", "gate")
    assert triplets > 25
    assert 0.9 * triplets < seen("triplets_with_modality_total", *camera) <= triplets
    assert 0.9 * triplets < seen("skew_seconds_bucket", "gate", "0.05") <= triplets
    assert seen("skew_seconds_bucket", "gate", "+Inf") == seen("skew_seconds_count", "gate")
    steps = seen("stage_duration_seconds_count", "step")
    assert steps > 20
    assert 0 < seen("stage_duration_seconds_sum", "step") < steps
    assert seen("stage_duration_seconds_count", "embed") >= 2
    new, known = (seen("decisions_total", "person", outcome) for outcome in ("new", "known"))
    assert (new, known) == (1, 1)  # one walks by again and again
    assert seen("gallery_identities", "person") == 1
    assert seen("stage_duration_seconds_count", "decide") == new + known
    assert seen("event_latency_seconds_count") == new + known
    assert 0 < seen("event_latency_seconds_sum") < 10 * (new + known)
    assert seen("events_total") >= new + known
    assert seen("sink_up", "jsonlines") == 1
    until(lambda: served.scrape()("sink_events_behind", "jsonlines") == 0)
    assert seen("process_threads") > 3


def test_metrics_of_the_process_are_right(serve):
    served = serve()
    proc = Path("/proc/self")
    assert served.scrape()("process_threads") == pytest.approx(
        len(list((proc / "task").iterdir())), abs=5
    )
    text = served.ask("/metrics")[1]
    value = dict(re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE))
    assert float(value["process_open_fds"]) == pytest.approx(
        len(list((proc / "fd").iterdir())), abs=8
    )
    rss = int(re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text())[1]) * 1024
    assert float(value["process_resident_memory_bytes"]) == pytest.approx(rss, rel=0.2)


def test_the_page_of_metrics_is_true(serve):
    """Name, kind and labels of docs/metrics.md are those of the exposition, both ways round."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", page, re.MULTILINE)
    written = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows
    }
    assert len(written) == len(rows)
    served = serve()
    until(lambda: served.ask("/readyz")[0] == 200)
    ours = {m.name: (m.kind, m.labels) for m in DECLARED}
    exposed = {}
    for family in text_string_to_metric_families(served.ask("/metrics")[1]):
        name = family.name + "_total" if family.type == "counter" else family.name
        labels = {k for sample in family.samples for k in sample.labels} - {"le"}
        bare = not family.samples  # nothing has drifted, and this board may tell nothing
        exposed[name] = family.type, set(written[name][1]) if bare else labels
    assert {name: (kind, set(labels)) for name, (kind, labels) in written.items()} == exposed
    assert ours == {name: row for name, row in written.items() if name.startswith("mambapro_")}
    for name, (kind, _) in ours.items():
        assert name.endswith("_total") == (kind == "counter"), name
    for metric in DECLARED:
        assert metric.meaning in page, metric.name


def test_expressions_of_the_page_name_what_exists():
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = {metric.name for metric in DECLARED}
    blocks = "".join(re.findall(r"```(?:yaml|promql)\n(.*?)```", page, re.DOTALL))
    used = set(re.findall(r"\bmambapro_\w+", blocks))
    assert len(used) >= 5
    for name in used:
        assert re.sub(r"_(bucket|sum|count)$", "", name) in names, name
    assert blocks.count("- alert:") >= 3


def test_open_metrics_when_asked_for(serve):
    served = serve()
    status, text = served.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert {f.name for f in open_metrics(text)} >= {"mambapro_frames", "mambapro_source_state"}


def test_ready_when_every_rig_is_watched_and_not_while_a_camera_is_away(serve):
    served = serve()
    status, body = served.ask("/readyz")
    assert status == 503
    assert (
        "rig gate has not begun: it looks at the empty scene first" in json.loads(body)["problems"]
    )
    until(lambda: served.ask("/readyz")[0] == 200)
    assert served.answer("/readyz") == {"ok": True, "problems": []}
    camera = served.run.cameras["gate-tir"]
    camera.state, camera.reason = "lost", "connection refused"
    until(lambda: served.ask("/readyz")[0] == 503)
    assert served.answer("/readyz")["problems"] == ["rig gate: tir is lost (connection refused)"]
    assert served.ask("/healthz")[0] == 200  # a restart would not bring it back
    (rig,) = served.answer("/api/rigs")
    assert (rig["name"], rig["begun"]) == ("gate", True)
    assert rig["cameras"]["tir"]["state"] == "lost"
    assert served.scrape()("source_state", "gate", "tir", "lost") == 1
    camera.state, camera.reason = "live", ""
    until(lambda: served.ask("/readyz")[0] == 200)


def test_drift_is_told_and_does_not_make_it_unready(serve):
    served = serve()
    until(lambda: served.ask("/readyz")[0] == 200)
    drifts = {
        ("gate", "person", "tir"): Drift("share", 0.71, True),
        ("gate", "person", "rgb"): Drift("share", 0.2, False),
    }
    object.__setattr__(served.run.view, "drift", lambda: drifts)  # the view is frozen
    status, body = served.ask("/readyz")
    assert status == 200
    assert json.loads(body)["problems"] == [
        "rig gate: persons in tir look unlike calibration (drift 0.71)"
    ]


def test_stuck_is_not_healthy(serve, monkeypatch):
    served = serve(config=replace(ANY_PORT, stuck_after_s=0.5))
    assert served.ask("/healthz") == (200, '{"ok":true,"problems":[]}')
    go_on = threading.Event()
    rig = served.run.view.feed.rigs()[0]
    poll = rig.poll
    monkeypatch.setattr(rig, "poll", lambda: go_on.wait(20) and poll())
    until(lambda: served.ask("/healthz")[0] == 503)
    assert re.search(r"deciding thread has not advanced for \d+ s", served.ask("/healthz")[1])
    assert served.scrape()("deciding_idle_seconds") > 0.5
    go_on.set()
    until(lambda: served.ask("/healthz")[0] == 200)


def test_a_disk_that_refuses_events_is_told_but_no_reason_to_restart(serve, monkeypatch):
    served = serve()
    until(lambda: served.ask("/readyz")[0] == 200)
    events = served.run.view.events

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(events._sink, "write", full)
        until(lambda: served.scrape()("events_waiting") > 0)
        status, body = served.ask("/healthz")
        assert status == 200
        assert "No space left on device" in json.loads(body)["problems"][0]
        assert served.ask("/readyz")[0] == 503
    until(lambda: served.scrape()("events_waiting") == 0)
    until(lambda: served.ask("/readyz")[0] == 200)


def test_reload_watches_other_rigs_and_says_why_not(serve):
    served = serve()
    until(lambda: served.ask("/readyz")[0] == 200)
    served.read_rigs = lambda: [scene_rig("gate"), scene_rig("yard", "rgb")]
    status, body = served.ask("/api/rigs/reload", "POST")
    assert (status, json.loads(body)) == (202, {"rigs": ["gate", "yard"]})
    until(lambda: [r["name"] for r in served.answer("/api/rigs")] == ["gate", "yard"])
    assert any("rig yard has not begun" in p for p in served.answer("/readyz")["problems"])
    until(lambda: served.ask("/readyz")[0] == 200)

    def broken():
        raise InputError("rig gate: camera rtsp://me:secret@host/1 has no homography")

    served.read_rigs = broken
    status, body = served.ask("/api/rigs/reload", "POST")
    assert status == 422
    assert "the rigs stay as they are" in body
    assert "secret" not in body
    assert len(served.answer("/api/rigs")) == 2
    assert served.ask("/api/rigs/reload")[0] == 405


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/api/rigs", "/openapi.json"])
def test_the_token_is_asked_for_everywhere(serve, monkeypatch, path, caplog):
    monkeypatch.setenv(VARIABLE, TOKEN)
    served = serve()
    until(lambda: served.run.view.feed.rigs()[0].begun)
    for wrong in (
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
    ):
        assert served.ask(path, authorization=wrong)[0] == 401, wrong
    assert served.ask(path)[0] == 401
    assert served.ask(path, authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.ask(path, authorization=f"bearer {TOKEN}", host="any.name")[0] == 200
    assert served.ask("/api/rigs/reload", "POST")[0] == 401
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(served.door)


def test_health_without_the_token_when_configured_so(serve, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    config = ServerConfig(port=0, token_file=str(file), token_for_health=False)
    served = serve(config=config)
    until(lambda: served.ask("/readyz")[0] == 200)
    assert served.ask("/metrics")[0] == served.ask("/healthz")[0] == 200
    assert served.ask("/api/rigs")[0] == served.ask("/openapi.json")[0] == 401
    assert served.ask("/api/rigs", authorization=f"Bearer {TOKEN}")[0] == 200


def test_without_a_token_only_names_of_loopback_are_served(serve):
    """A page that lets its own name point at this machine learns nothing."""
    served = serve()
    for host in ("evil.example", "evil.example:8470", "127.0.0.1.evil.example"):
        assert served.ask("/api/rigs", host=host)[0] == 421
    for host in ("localhost:1", "127.0.0.1", "[::1]:8470"):
        assert served.ask("/api/rigs", host=host)[0] == 200
    for origin in ("https://evil.example", "null", "http://[", "http://127.0.0.1.evil.example"):
        assert served.ask("/api/rigs/reload", "POST", origin=origin)[0] == 421
    assert served.ask("/api/rigs/reload", "POST", origin=served.door.url)[0] == 202
    assert served.ask("/nothing")[0] == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.invalid"])
def test_other_machines_need_a_token(host):
    with pytest.raises(InputError, match=f"{re.escape(host)} can be reached.*{VARIABLE}"):  # noqa: SIM117
        with open_door(ServerConfig(host=host)):
            pass


def test_with_a_token_it_listens_anywhere(monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    with open_door(ServerConfig(host="0.0.0.0", port=0)) as door:
        assert door.token == TOKEN


@pytest.mark.parametrize(
    ("token", "words"),
    [("short", "at least 16"), (f"{TOKEN} x", "no spaces"), ("ü" * 20, "ASCII")],
)
def test_bad_tokens_are_refused_and_not_shown(monkeypatch, tmp_path, token, words):
    monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(InputError, match=words) as refusal:  # noqa: SIM117
        with open_door(ANY_PORT):
            pass
    assert token not in str(refusal.value)
    monkeypatch.setenv(VARIABLE, TOKEN)
    for file in (tmp_path / "absent", tmp_path):
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(InputError, match=r"server\.token_file .* cannot be read"):  # noqa: SIM117
            with open_door(replace(ANY_PORT, token_file=str(file))):
                pass


def test_answers_do_not_wait_for_acknowledgements():
    """With Nagle's algorithm the body of an answer comes 40 ms after its header."""
    with open_door(ANY_PORT) as door:
        address = door.listener.getsockname()[:2]
        with socket.create_connection(address), door.listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_two_tokens_are_one_too_many(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, TOKEN)
    with pytest.raises(InputError, match="two tokens"):  # noqa: SIM117
        with open_door(replace(ANY_PORT, token_file=str(tmp_path / "x"))):
            pass


def test_a_port_in_use_is_bad_input(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rigs = tmp_path / "rigs.yaml"
        rigs.write_text("rigs: [{name: gate, cameras: {rgb: {uri: 'pattern://'}}}]")
        done = subprocess.run(
            [
                sys.executable, str(ROOT / "runtime" / "stream.py"), "--rigs", str(rigs),
                "--output", str(tmp_path), "--set", f"server.port={port}",
                "--set", "models.person=null", "--set", "models.vehicle=null",
            ],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == EXIT_BAD_INPUT
    last = done.stderr.splitlines()[-1]
    assert f"server.port {port}: Address already in use" in last
    assert "server.enabled=false" in last


def test_it_stops_within_a_second_even_with_somebody_waiting(serve, monkeypatch):
    served = serve()
    hold, began = threading.Event(), threading.Event()

    def slow():
        began.set()
        hold.wait(20)
        return []

    def ask():
        with suppress(OSError):
            served.ask("/api/rigs/reload", "POST")

    served.read_rigs = slow
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with socket.create_connection(served.door.listener.getsockname()):
        assert began.wait(10)
        server = next(t for t in threading.enumerate() if t.name == "server")
        stopped_s = time.monotonic()
        served.run.view.feed.stop()
        until(lambda: server not in threading.enumerate())
        took_s = time.monotonic() - stopped_s
    hold.set()
    asking.join(10)
    assert took_s < 1.5  # serving's promise, and an instant of the feed


LAZY = """
import sys
sys.path[0] = {root!r}
import runtime.stream
loaded = {{n.split(".")[0] for n in sys.modules}}
assert not loaded & {{"fastapi", "starlette", "uvicorn", "prometheus_client"}}, loaded
"""


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingError, match=r"needs uvicorn: .*server\.enabled=false"):  # noqa: SIM117
        with open_door(ANY_PORT):
            pass


def test_who_serves_nothing_loads_no_server():
    code = LAZY.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
