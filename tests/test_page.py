"""What the page lives on: its files, server-sent events, pictures, history."""

import asyncio
import http.client
import json
import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from runtime.config import ServerConfig
from runtime.operation.lifecycle import reload_rigs
from runtime.picture.drawing import Mark, Row
from runtime.picture.viewing import SHARED_S, Viewing
from runtime.server import open_door, serving
from runtime.server.door import VARIABLE
from runtime.server.history import quantile
from runtime.server.live import QUEUE_MESSAGES, Live
from runtime.server.streams import SlowClientError
from tests.scene_cameras import InProcess, until

STATIC = Path(__file__).parents[1] / "runtime" / "server" / "static"
TOKEN = "a-token-of-thirty-two-characters"
SIZES = {"rgb": (180, 320), "nir": (200, 320), "tir": (256, 320)}


class Served:
    """A live run with its server."""

    def __init__(self, folder, monkeypatch, **run):
        config = ServerConfig(port=0)
        with ExitStack() as owner:
            self.door = owner.enter_context(open_door(config))

            def tend(view):
                return serving(self.door, config, view, lambda: reload_rigs(view.feed, list))

            self.run = owner.enter_context(InProcess(folder, monkeypatch, tend, **run))
            self.close = owner.pop_all().close

    def get(self, path, **headers):
        """Return the open answer."""
        address = urlsplit(self.door.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with ExitStack() as owner:

        def start(**run):
            served = Served(tmp_path / "out", monkeypatch, **run)
            owner.callback(served.close)
            return served

        yield start


def messages(answer):
    """Yield kind and data of each server-sent event."""
    while True:
        kind, data, end = (answer.readline().decode() for _ in range(3))
        if not kind:
            return
        assert end == "\n"
        yield kind.removeprefix("event: ").strip(), json.loads(data.removeprefix("data: "))


def parts(answer):
    """Yield headers and body of each part."""
    boundary = re.search(r"boundary=(\w+)", answer.headers["content-type"])[1]
    while line := answer.readline():
        assert line == f"--{boundary}\r\n".encode()
        headers = http.client.parse_headers(answer)
        yield headers, answer.read(int(headers["content-length"]))
        assert answer.readline() == b"\r\n"


def test_the_page_needs_no_token_and_runs_no_script_of_others(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    served = serve()
    for path in ("/", *(f"/static/{file.name}" for file in STATIC.iterdir())):
        answer = served.get(path)
        assert answer.status == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = served.get(path, **{"if-none-match": answer.headers["etag"]})
        assert (again.status, again.read()) == (304, b"")
    for path in ("/static/", "/static/../page.py", "/static/%2e%2e/page.py", "/index.html"):
        assert served.get(path).status in (401, 404), path
    for path in ("/api/live", "/api/mosaic", "/api/identities", "/api/snapshots/a/b.jpg"):
        assert served.get(path).status == 401, path
        assert served.get(f"{path}?token={TOKEN}").status == 401, path
    assert served.get("/api/live", authorization=f"Bearer {TOKEN}").status == 200


def test_no_file_of_the_page_names_another_site_or_runs_inline():
    for file in STATIC.iterdir():
        text = file.read_text()
        named = set(re.findall(r"https?://[^\s\"')]+", text))
        assert named <= {"http://www.w3.org/2000/svg"}, file.name
        assert not re.search(r"\b(eval|innerHTML|outerHTML|insertAdjacentHTML)\b", text), file.name
        assert len(text.splitlines()) < 300, file.name
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


def test_every_event_is_told_as_it_was_written(serve):
    served = serve()
    told = messages(served.get("/api/live"))
    kind, hello = next(told)
    assert (kind, hello["sample_s"]) == ("hello", 5.0)
    kind, state = next(told)
    assert kind == "state"
    assert [rig["name"] for rig in state["rigs"]] == ["gate"]
    events, tracks = [], []
    while not any(event.get("known") for event in events):
        kind, data = next(told)
        if kind == "event":
            assert abs(time.time() - data["told_s"]) < 5
            events.append(data["event"])
        elif kind == "state":
            tracks += data["rigs"][0]["tracks"]
    served.close()
    path = Path(served.run.view.config.output) / "events.jsonl"
    written = [json.loads(line) for line in path.read_text().splitlines()]
    first, last = events[0]["id"], events[-1]["id"]
    assert events == [event for event in written if first <= event["id"] <= last]
    assert {track["identity"] for track in tracks} <= {None, "P1"}
    assert any(track["modalities"] == ["rgb", "nir", "tir"] for track in tracks)


def test_a_camera_that_dies_is_told(serve):
    served = serve()
    told = messages(served.get("/api/live"))
    states = (data for kind, data in told if kind == "state")
    next(s for s in states if s["rigs"][0]["begun"])
    served.run.cameras["gate-tir"].state = "lost"
    served.run.cameras["gate-tir"].reason = "connection refused"
    state = next(s for s in states if s["problems"])
    assert state["rigs"][0]["cameras"]["tir"]["state"] == "lost"
    assert state["problems"] == ["rig gate: tir is lost (connection refused)"]


def test_pictures_are_drawn_for_who_looks_and_once_for_all(serve):
    served = serve()
    viewing = served.run.view.viewing
    until(lambda: viewing.rows())
    time.sleep(0.5)
    assert viewing.drawn == 0  # nobody looks
    assert served.get("/api/mosaic?rig=attic").status == 404
    looking = [parts(served.get("/api/mosaic")) for _ in range(3)]
    seen = [[next(look) for look in looking] for _ in range(4)]
    for headers, body in seen[-1]:
        assert headers["x-rig"] == "gate"
        assert abs(float(headers["x-time"]) - time.time()) < 10
        picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == 960
        assert picture.std() > 10
    assert 4 <= viewing.drawn <= 6  # not 12
    assert seen[-1][0][1] == seen[-1][1][1]


def test_it_stops_within_a_second_while_clients_look(serve):
    served = serve()
    until(lambda: served.run.view.viewing.rows())
    events = [messages(served.get("/api/live")) for _ in range(3)]
    pictures = [parts(served.get("/api/mosaic")) for _ in range(3)]
    for stream in (*events, *pictures):
        next(stream)
    stuck = served.get("/api/mosaic")  # takes nothing
    server = next(t for t in threading.enumerate() if t.name == "server")
    stopped_s = time.monotonic()
    served.run.view.feed.stop()
    until(lambda: server not in threading.enumerate())
    assert time.monotonic() - stopped_s < 1.5  # serving's promise, and an instant of the feed
    assert stuck.status == 200
    for stream in events:
        list(stream)  # they end, too


def test_a_client_that_does_not_keep_up_is_let_go(serve):
    """It gets what fits in its queue; the others get all."""
    served = serve()
    view = served.run.view

    async def play():
        live = Live(view, 30.0)
        async with live.running(None):
            slow, quick = live.messages(), live.messages()
            for client in (slow, quick):
                assert b"hello" in await anext(client)
                assert b"state" in await anext(client)
            got = 0
            waiting = asyncio.ensure_future(anext(quick))
            for number in range(QUEUE_MESSAGES + 10):
                live.publish({"number": number})
                while b"number" not in (data := await waiting):
                    waiting = asyncio.ensure_future(anext(quick))
                assert json.loads(data.split(b"data: ")[1])["event"] == {"number": number}
                got += 1
                waiting = asyncio.ensure_future(anext(quick))
            assert got == QUEUE_MESSAGES + 10
            with pytest.raises(SlowClientError):
                await anext(slow)
            waiting.cancel()

    view.events.listen(None)
    asyncio.run(play())


def test_who_takes_nothing_is_dropped_and_counted(serve, monkeypatch, caplog):
    from runtime.server import streams

    monkeypatch.setattr(streams, "SLOW_S", 0.3)
    served = serve()
    until(lambda: served.run.view.viewing.rows())
    many = "&".join(["rig=gate"] * 400)  # fills the socket's buffers soon
    answer = served.get(f"/api/mosaic?{many}")
    assert answer.status == 200
    monkeypatch.setattr(served.run.view.viewing, "shot", lambda _: Big())
    tally = served.run.view.tally
    until(lambda: tally.clients_dropped == 1)
    assert "took nothing" in caplog.text
    assert served.get("/healthz").status == 200


class Big:
    """A picture of many bytes, each time another one."""

    time_s = 0.0
    jpeg = bytes(1 << 20)


def test_a_picture_is_drawn_again_only_when_there_is_another():
    now = [100.0]
    viewing = Viewing({"P1": "Ada"}.get, lambda: now[0])
    viewing.begin("gate", SIZES)
    assert viewing.shot("gate") is viewing.shot("attic") is None
    pictures = {m: np.full((*size, 3), 90, np.uint8) for m, size in SIZES.items()}

    def row(time_s):
        mark = Mark(1, {"rgb": (10, 10, 40, 90)}, "P1", 0.8, "match")
        return Row("gate", time_s, None, pictures, [mark])

    viewing.show(row(1.0))
    first = viewing.shot("gate")
    now[0] += 10
    assert viewing.shot("gate") is first
    viewing.show(row(2.0))
    second = viewing.shot("gate")
    assert second.time_s == 2.0
    viewing.show(row(3.0))
    now[0] += SHARED_S / 2
    assert viewing.shot("gate") is second
    now[0] += SHARED_S
    assert viewing.shot("gate").time_s == 3.0
    assert viewing.drawn == 3
    viewing.end("gate")
    assert viewing.shot("gate") is None
    assert viewing.rows() == {}


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantiles_of_bins_are_near_those_of_the_values(share):
    values = np.random.default_rng(3).gamma(4.0, 0.1, 4000)
    bounds = tuple(np.arange(0.05, 2.0, 0.05).tolist())
    counts = np.histogram(values, [0, *bounds, np.inf])[0].tolist()
    assert quantile(bounds, counts, share) == pytest.approx(np.quantile(values, share), abs=0.01)


def test_quantiles_at_the_ends():
    assert quantile((1.0, 2.0), [0, 0, 0], 0.5) is None
    assert quantile((1.0, 2.0), [0, 0, 3], 0.5) == 2.0
    assert quantile((1.0, 2.0), [4, 0, 0], 1.0) == 1.0
