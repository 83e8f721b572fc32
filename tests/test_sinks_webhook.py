"""Events reach a real HTTP server that fails at random: each at least once, in order."""

import hashlib
import hmac
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mambapro.cli import InputError
from runtime.config import SinksConfig, WebhookConfig
from runtime.sinks import open_events
from tests.broker import free_port, until


class Receiver:
    """Answers as ``answer(event)`` says: a status, "hang up", "be silent" or "take and hang up"."""

    def __init__(self, answer=lambda event: 200, port=0):
        self.taken, self.requests = [], []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                receiver.reply(self, json.loads(body), answer(json.loads(body)))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/events"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def reply(self, handler, event, answer):
        if answer in (200, "take and hang up"):
            self.taken.append(event["id"])
        if answer == "be silent":
            time.sleep(0.3)
        if isinstance(answer, str):
            handler.close_connection = True
            return
        handler.send_response(answer)
        handler.send_header("Location", self.url + "/elsewhere")
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receive():
    receivers = []

    def start(*arguments, **settings):
        receivers.append(Receiver(*arguments, **settings))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("runtime.sinks.dispatcher.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("runtime.sinks.dispatcher.LONGEST_WAIT_S", 0.05)


def opened(url, output, timeout_s=0.2):
    config = SinksConfig(webhook=WebhookConfig(url, timeout_s=timeout_s))
    return open_events(config, output, live=True)


def webhook(log):
    return next(sink for sink in log.status().sinks if sink.name == "webhook")


def an_event():
    return {"event": "track_end", "rig": "gate", "time_s": time.time()}


def test_a_server_that_fails_at_random_gets_every_event_in_order(tmp_path, receive):
    chance = random.Random(1)
    ways = [200] * 6 + [500, 503, 429, 404, 302, "hang up", "be silent", "take and hang up"]
    receiver = receive(lambda event: chance.choice(ways))
    written = []
    for _ in range(2):  # restarted in the middle
        log = opened(receiver.url, tmp_path)
        written += [log.write(an_event()) for _ in range(20)]
        assert until(lambda: len(receiver.taken) > 5)
        log.close(drain_s=0.0)
    log = opened(receiver.url, tmp_path)
    assert until(lambda log=log: webhook(log).behind == 0, 60)
    log.close()
    assert list(dict.fromkeys(receiver.taken)) == written
    assert len(receiver.taken) > len(written)  # taken, but the answer was lost: the id is equal
    assert {path for path, _, _ in receiver.requests} == {"/events"}  # no redirect was followed
    assert not (tmp_path / "refused.jsonl").exists()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_it_will_never_take_is_set_aside(tmp_path, receive, status):
    receiver = receive(lambda event: status if event["id"].endswith("1") else 200)
    log = opened(receiver.url, tmp_path)
    written = [log.write(an_event()) for _ in range(3)]
    assert until(lambda: webhook(log).behind == 0)
    assert webhook(log).refused == 1
    log.close()
    assert receiver.taken == [written[0], written[2]]
    refused = json.loads((tmp_path / "refused.jsonl").read_text())
    assert (refused["reason"], refused["event"]["id"]) == (f"HTTP {status}", written[1])


def test_a_server_that_is_away_gets_all_when_it_is_back(tmp_path, receive):
    port = free_port()
    log = opened(f"http://127.0.0.1:{port}/secret-path", tmp_path)
    written = [log.write(an_event()) for _ in range(5)]
    assert until(lambda: "refused" in (webhook(log).last_error or ""))
    assert not webhook(log).connected
    assert "secret-path" not in webhook(log).last_error
    receiver = receive(port=port)
    assert until(lambda: receiver.taken == written)
    assert until(lambda: webhook(log).connected)
    log.close()


def test_the_body_is_signed_and_secrets_come_from_the_environment(tmp_path, receive, monkeypatch):
    monkeypatch.setenv("MAMBAPRO_WEBHOOK_KEY", "hidden")
    monkeypatch.setenv("MAMBAPRO_WEBHOOK_TOKEN", "t0ken")
    receiver = receive()
    log = opened(receiver.url, tmp_path)
    log.write(an_event())
    assert until(lambda: receiver.taken)
    log.close()
    _, headers, body = receiver.requests[0]
    digest = hmac.new(b"hidden", body, hashlib.sha256).hexdigest()
    assert headers["X-MambaPro-Signature-256"] == f"sha256={digest}"
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/json"
    assert body == (tmp_path / "events.jsonl").read_bytes().strip()


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://host/x"},
        {"url": "host/x"},
        {"url": "https://user:hunter2@host/x"},
        {"timeout_s": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(InputError, match=r"sinks\.webhook") as error:
        WebhookConfig(**settings)
    assert "hunter2" not in str(error.value)


def test_missing_certificates_are_refused(tmp_path):
    config = SinksConfig(webhook=WebhookConfig("https://host/x", ca_file="no.pem"))
    with pytest.raises(InputError, match=r"no\.pem"):
        open_events(config, tmp_path, live=True)
