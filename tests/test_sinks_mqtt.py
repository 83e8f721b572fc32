"""Events reach a second client through a real broker, whatever happens to broker and process."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mambapro.cli import InputError
from runtime.config import MqttConfig, SinksConfig
from runtime.sinks import open_events
from runtime.sinks.mqtt import PASSWORD, USERNAME
from runtime.sinks.refused import RefusedEvents
from tests.broker import Broker, Subscriber, free_port, until
from tests.reliability import record

ROOT = Path(__file__).parents[1]


@pytest.fixture
def owner():
    with ExitStack() as stack:
        yield stack


def a_broker(owner, tmp_path, *lines, **settings):
    broker = Broker(tmp_path / "broker", *lines, **settings)
    owner.callback(lambda: broker.kill())
    return broker


def a_subscriber(owner, broker, topic="mambapro/#"):
    subscriber = Subscriber(broker, topic)
    owner.callback(subscriber.close)
    return subscriber


def opened(owner, broker, output, **settings):
    config = SinksConfig(mqtt=MqttConfig("127.0.0.1", broker.port, **settings))
    log = open_events(config, output, live=True)
    owner.callback(log.close)
    return log


def mqtt(log):
    return next(sink for sink in log.status().sinks if sink.name == "mqtt")


def an_event(rig="gate", **more):
    return {"event": "track_end", "rig": rig, "time_s": time.time(), **more}


def first_of_each(ids):
    return list(dict.fromkeys(ids))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_events_and_status_on_their_topics(owner, tmp_path, version):
    broker = a_broker(owner, tmp_path)
    subscriber = a_subscriber(owner, broker)
    log = open_events(
        SinksConfig(mqtt=MqttConfig("127.0.0.1", broker.port, version=version)),
        tmp_path / "out", live=True,
    )  # fmt: skip
    written = [log.write(an_event(rig)) for rig in ("gate", "yard", "a/b +#")]
    assert until(lambda: len(subscriber.ids()) == 3)
    log.close()
    assert until(lambda: subscriber.statuses()[-1:] == [b"offline"])
    assert subscriber.ids() == written
    topics = [topic for topic, _, _ in subscriber.received]
    assert topics == [
        "mambapro/status", "mambapro/events/gate", "mambapro/events/yard",
        "mambapro/events/a%2Fb %2B%23", "mambapro/status",
    ]  # fmt: skip
    assert subscriber.statuses() == [b"online", b"offline"]
    kept = [json.loads(x) for x in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert subscriber.events() == kept


def test_the_status_is_retained_for_who_comes_later(owner, tmp_path):
    broker = a_broker(owner, tmp_path)
    log = opened(owner, broker, tmp_path / "out")
    assert until(lambda: mqtt(log).connected)
    late = a_subscriber(owner, broker)
    assert until(lambda: late.received == [("mambapro/status", b"online", True)])


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_while_the_broker_is_down_for_10_s_no_event_is_lost_or_doubled(owner, tmp_path):
    broker = a_broker(owner, tmp_path)
    subscriber = a_subscriber(owner, broker)
    broker.save()
    log = opened(owner, broker, tmp_path / "out")
    assert until(lambda: mqtt(log).connected)
    written = [log.write(an_event()) for _ in range(50)]
    broker.kill()
    killed_s = time.monotonic()
    assert until(lambda: not mqtt(log).connected)
    detection_s = time.monotonic() - killed_s
    while time.monotonic() < killed_s + 10:
        written.append(log.write(an_event()))
        time.sleep(0.05)
    assert mqtt(log).behind > 100
    assert "refused" in mqtt(log).last_error  # by the machine: nobody listens
    broker.start()
    back_s = time.monotonic()
    written += [log.write(an_event()) for _ in range(50)]
    assert until(lambda: set(subscriber.ids()) >= set(written), 30)
    recovery_s = time.monotonic() - back_s
    assert first_of_each(subscriber.ids()) == written
    assert until(lambda: mqtt(log).behind == 0)
    assert mqtt(log).last_error is None
    record(
        "MQTT broker down for 10 s", detection_s=round(detection_s, 2),
        recovery_s=round(recovery_s, 2), events_lost=len(set(written) - set(subscriber.ids())),
    )  # fmt: skip


WRITER = """
import sys, time
from pathlib import Path
from runtime.config import MqttConfig, SinksConfig
from runtime.sinks import open_events
config = SinksConfig(mqtt=MqttConfig("127.0.0.1", int(sys.argv[2])))
log = open_events(config, Path(sys.argv[1]), live=True)
while True:
    print(log.write({"event": "track_end", "rig": "gate", "time_s": time.time()}), flush=True)
"""


def test_killed_while_it_sends_it_says_offline_and_loses_nothing(owner, tmp_path):
    broker = a_broker(owner, tmp_path)
    subscriber = a_subscriber(owner, broker)
    chance, told, detections_s, recoveries_s = random.Random(5), [], [], []
    for _ in range(3):
        received = len(subscriber.ids())
        started_s = time.monotonic()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "out"), str(broker.port)],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        lines = [writer.stdout.readline() for _ in range(chance.randint(100, 400))]
        assert until(lambda start=received: len(subscriber.ids()) > start)
        recoveries_s.append(time.monotonic() - started_s)
        writer.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        assert until(lambda: subscriber.statuses()[-1:] == [b"offline"])
        detections_s.append(time.monotonic() - killed_s)
        lines += writer.stdout.readlines()
        writer.wait()
        told += [line.decode().strip() for line in lines if line.endswith(b"\n")]
    log = opened(owner, broker, tmp_path / "out")
    assert until(lambda: mqtt(log).behind == 0 and set(subscriber.ids()) >= set(told), 30)
    kept = [json.loads(x) for x in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert first_of_each(subscriber.ids()) == [event["id"] for event in kept]
    by_id = {event["id"]: event for event in kept}
    assert all(event == by_id[event["id"]] for event in subscriber.events())  # doubles are equal
    record(
        "kill -9 while sending", detection_s=round(max(detections_s), 2),
        recovery_s=round(max(recoveries_s), 2), events_lost=len(set(told) - set(subscriber.ids())),
    )  # fmt: skip


def test_what_the_broker_will_never_take_is_set_aside(owner, tmp_path):
    broker = a_broker(owner, tmp_path, "max_packet_size 1000")
    subscriber = a_subscriber(owner, broker)
    log = opened(owner, broker, tmp_path / "out")
    written = [log.write(an_event(note="x" * size)) for size in (1, 2000, 2)]
    assert until(lambda: mqtt(log).behind == 0)
    assert mqtt(log).refused == 1
    assert until(lambda: subscriber.ids() == [written[0], written[2]])
    (line,) = (tmp_path / "out" / "refused.jsonl").read_text().splitlines()
    refused = json.loads(line)
    assert (refused["sink"], refused["event"]["id"]) == ("mqtt", written[1])
    assert "larger than the broker" in refused["reason"]


def test_what_the_broker_may_take_later_is_kept_for_it(owner, tmp_path):
    (tmp_path / "acl").write_text("topic write mambapro/status\ntopic read #\n")
    broker = a_broker(owner, tmp_path, f"acl_file {tmp_path}/acl")
    subscriber = a_subscriber(owner, broker)
    log = opened(owner, broker, tmp_path / "out")
    written = [log.write(an_event()) for _ in range(3)]
    assert until(lambda: "Not authorized" in (mqtt(log).last_error or ""))
    (tmp_path / "acl").write_text("topic readwrite #\n")
    broker.process.send_signal(signal.SIGHUP)
    assert until(lambda: subscriber.ids() == written)
    assert not (tmp_path / "out" / "refused.jsonl").exists()


def test_a_wrong_password_is_said_but_not_shown(owner, tmp_path, monkeypatch, caplog):
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "box", "right"], check=True)
    broker = a_broker(owner, tmp_path, f"password_file {passwords}", anonymous=False)
    monkeypatch.setenv(USERNAME, "box")
    monkeypatch.setenv(PASSWORD, "hunter2")
    log = opened(owner, broker, tmp_path / "out")
    assert until(lambda: "Not authorized" in (mqtt(log).last_error or ""))
    assert "hunter2" not in caplog.text + mqtt(log).last_error
    monkeypatch.setenv(PASSWORD, "right")
    assert until(lambda: mqtt(log).connected)


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(folder):
    folder.mkdir()
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    return folder


def test_tls_checks_the_brokers_certificate(owner, tmp_path):
    ours, others = certificate(tmp_path / "ours"), certificate(tmp_path / "others")
    broker = a_broker(owner, tmp_path, f"certfile {ours}/cert.pem", f"keyfile {ours}/key.pem")
    log = opened(owner, broker, tmp_path / "a", tls=True, ca_file=str(ours / "cert.pem"))
    log.write(an_event())
    assert until(lambda: mqtt(log).sent == 1)
    wrong = opened(owner, broker, tmp_path / "b", tls=True, ca_file=str(others / "cert.pem"))
    assert until(lambda: "certificate verify failed" in (mqtt(wrong).last_error or ""))


def test_a_broker_that_accepts_but_says_nothing_is_found(owner, tmp_path):
    mute = owner.enter_context(socket.create_server(("127.0.0.1", 0)))
    config = MqttConfig("127.0.0.1", mute.getsockname()[1], timeout_s=0.3)
    log = open_events(SinksConfig(mqtt=config), tmp_path, live=True)
    owner.callback(log.close)
    log.write(an_event())
    assert until(lambda: "no answer for 0.3 s" in (mqtt(log).last_error or ""))
    assert mqtt(log).behind == 1


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"prefix": "a/#"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"ca_file": "ca.pem"}, "tls=true"),
        ({"tls": True, "key_file": "key.pem"}, "cert_file"),
        ({"port": 0}, "port"),
        ({"keepalive_s": 0}, "keepalive_s"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, word):
    with pytest.raises(InputError, match=word):
        MqttConfig("broker", **settings)


def test_a_missing_certificate_is_refused_before_anything_is_open(tmp_path):
    config = SinksConfig(mqtt=MqttConfig("broker", free_port(), tls=True, ca_file="no.pem"))
    for _ in range(2):  # the journal is not left locked
        with pytest.raises(InputError, match=r"no\.pem"):
            open_events(config, tmp_path, live=True)


def test_a_run_on_files_says_that_it_sends_nothing(tmp_path, caplog):
    open_events(SinksConfig(mqtt=MqttConfig("broker")), tmp_path, live=False).close()
    assert "sinks.mqtt" in caplog.text


def test_refused_events_of_all_sinks_share_a_file(tmp_path):
    refusals = RefusedEvents(tmp_path / "refused.jsonl")
    refusals.add("mqtt", "too large", an_event())
    refusals.add("webhook", "422", an_event())
    lines = (tmp_path / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["sink"] for line in lines] == ["mqtt", "webhook"]
