"""Looking after identities while a run decides."""

import contextlib
import threading
import time

import pytest

from runtime.config import MatchConfig, SinksConfig, SnapshotsConfig
from runtime.identity.errands import MOST_WAITING, BusyError, Errands
from runtime.server.door import VARIABLE
from tests.scene_cameras import until
from tests.served import Served

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 200, 30)
PERSON = "/api/identities/person"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    sinks = SinksConfig(snapshots=SnapshotsConfig(enabled=True))
    run = Served(tmp_path / "out", monkeypatch, sinks=sinks)
    yield run
    run.close()


def names(served, query=""):
    return [person["id"] for person in served.answer(f"/api/identities{query}")]


def test_who_is_known_and_from_where(served):
    old = served.know(RED, GREEN, rig="yard", time_s=1000.0)
    new = served.know(BLUE, rig="gate", time_s=2000.0)
    (first, second) = [
        p for p in served.answer("/api/identities?subject=person") if p["id"] in (old, new)
    ]
    assert (first["id"], first["rigs"], first["templates"]) == (new, ["gate"], 1)
    assert (second["first_seen"], second["last_seen"], second["rigs"]) == (1000.0, 1000.0, ["yard"])
    assert served.answer("/api/identities?subject=vehicle") == []
    person = served.answer(f"{PERSON}/{old}")
    assert {**second, "records": person["records"]} == person
    assert [r["modalities"] for r in person["records"]] == [["rgb", "nir", "tir"]] * 2
    assert {r["template"] for r in person["records"]} == {
        r.point for r in served.gallery.templates_of(old)
    }


def test_pages_hold_everybody_once(served):
    known = [served.know(RED, time_s=float(second)) for second in range(10, 17)]
    seen, after = [], ""
    while page := names(served, f"?limit=3{after}"):
        assert len(page) <= 3
        seen += page
        after = f"&after={page[-1]}"
    assert [name for name in seen if name in known] == known[::-1]
    assert len(set(seen)) == len(seen)
    assert served.ask("/api/identities?after=P999")[0] == 404


@pytest.mark.parametrize("name", ["Ada", "Адa 王小明 🚗", "a\n b", "<b>", "x" * 100])
def test_a_name_for_people(served, name):
    known = served.know(RED)
    answer = served.send("PATCH", f"{PERSON}/{known}", json={"name": name})
    assert (answer.status_code, answer.json()["name"]) == (200, name)
    assert served.answer(f"{PERSON}/{known}")["name"] == name
    assert served.send("PATCH", f"{PERSON}/{known}", json={"name": None}).json()["name"] is None
    assert served.audit()[-1]["what"] == "rename"
    assert name not in str(served.audit())


def test_merge_split_and_delete(served):
    one, other = served.know(RED, GREEN), served.know(BLUE, rig="dock")
    merged = served.send("POST", f"{PERSON}/{other}/merge", json={"into": one}).json()
    assert (merged["id"], merged["templates"], merged["aliases"]) == (one, 3, [other])
    assert merged["rigs"] == ["dock", "yard"]
    assert served.ask(f"{PERSON}/{other}")[0] == 404
    points = [r["template"] for r in served.answer(f"{PERSON}/{one}")["records"]]
    parted = served.send("POST", f"{PERSON}/{one}/split", json={"templates": points[:2]}).json()
    assert (parted["templates"], parted["aliases"]) == (2, [])
    assert parted["id"] not in (one, other)
    assert served.answer(f"{PERSON}/{one}")["templates"] == 1
    gone = served.send("DELETE", f"{PERSON}/{one}")
    assert (gone.status_code, gone.json()) == (200, {"id": one, "aliases": [other], "templates": 1})
    assert served.send("DELETE", f"{PERSON}/{one}").status_code == 404
    assert one not in names(served)
    lines = [(x["what"], x["result"]) for x in served.audit()]
    assert lines[:6] == [
        (what, result) for what in ("merge", "split", "delete") for result in ("begins", "done")
    ]
    assert lines[7][0] == "delete"
    assert lines[7][1].startswith("failed")
    assert served.audit()[3]["new"] == parted["id"]
    assert (served.audit()[5]["by"], served.audit()[5]["address"]) == ("loopback", "127.0.0.1")


def test_what_makes_no_sense_changes_nothing(served):
    one = served.know(RED, GREEN)
    points = [r["template"] for r in served.answer(f"{PERSON}/{one}")["records"]]
    before = served.answer(f"{PERSON}/{one}")
    for path, body, status in [
        ("merge", {"into": one}, 422),
        ("merge", {"into": "P999"}, 404),
        ("merge", {}, 422),
        ("split", {"templates": points}, 422),
        ("split", {"templates": []}, 422),
        ("split", {"templates": ["nothing", points[0]]}, 422),
        ("split", {"templates": points[0]}, 422),
        ("split", {"templates": ["x"] * 1001}, 422),
    ]:
        answer = served.send("POST", f"{PERSON}/{one}/{path}", json=body)
        assert answer.status_code == status, (path, body, answer.text)
        assert isinstance(answer.json()["detail"], str)
    for body, status in [("[" * 30_000, 400), ("{", 422), ('{"name": "' + "x" * 101 + '"}', 422),
                         ('{"name": 5}', 422), ("null", 422), ('{"name": NaN}', 422),
                         ("x" * 70_000, 413)]:  # fmt: skip
        answer = served.send(
            "PATCH", f"{PERSON}/{one}", data=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == status, (body[:20], answer.text)
    for path in ("/api/identities/vehicle/V1", "/api/identities/person/..%2Fx", f"{PERSON}/%00"):
        assert served.ask(path)[0] == 404
    assert served.ask("/api/identities/robot/R1")[0] == 422
    assert served.answer(f"{PERSON}/{one}") == before


def test_who_is_deleted_while_in_view_is_gone_for_good(served):
    """The subject walks by again and again: what is seen of it later is of somebody new."""
    sighting = until(lambda: next((e for e in served.events() if e["event"] == "sighting"), None))
    who, pictures = sighting["identity"], sighting["snapshots"]
    assert served.send("GET", f"/api/snapshots/{pictures['rgb']}").content[:2] == b"\xff\xd8"
    assert served.send("DELETE", f"{PERSON}/{who}").status_code == 200
    new = until(
        lambda: next((e for e in served.events()
                      if e["event"] == "sighting" and e["identity"] != who), None)
    )  # fmt: skip
    assert new["known"] is False
    until(lambda: all(event.get("identity") != who for event in served.events()))
    time.sleep(1.2)  # longer than a deletion of events takes
    assert all(event.get("identity") != who for event in served.events())
    assert served.ask(f"/api/snapshots/{pictures['rgb']}")[0] == 404
    assert who not in names(served)
    assert served.ask(f"/api/events?identity={who}") == (200, "[]")


def test_tracks_take_over_whom_they_were_merged_into(tmp_path, monkeypatch):
    # By the best template: with match.top, those of who became part would count in the mean.
    served = Served(tmp_path / "out", monkeypatch, match=MatchConfig(decide_after=2, top=1))
    with contextlib.closing(served):
        merge_who_is_in_view(served)


def merge_who_is_in_view(served):
    until(lambda: any(e["event"] == "sighting" for e in served.events()))
    who = served.events()[-1]["identity"] or "P1"
    other = served.know(GREEN)
    assert served.send("POST", f"{PERSON}/{who}/merge", json={"into": other}).status_code == 200
    at = len(served.events())
    until(lambda: any(e["event"] == "sighting" for e in served.events()[at:]))
    later = [e["identity"] for e in served.events()[at + 1 :] if e["event"] == "sighting"]
    assert who not in later
    assert set(later) <= {other}


def test_changes_are_made_by_the_thread_that_decides(served, monkeypatch):
    deciding, changing = [], []
    pipeline_gallery = type(served.gallery)
    delete, candidates = pipeline_gallery.delete, pipeline_gallery.candidates
    monkeypatch.setattr(pipeline_gallery, "delete", lambda g, i: (
        changing.append(threading.get_ident()), delete(g, i))[1])  # fmt: skip
    monkeypatch.setattr(pipeline_gallery, "candidates", lambda g, *a, **k: (
        deciding.append(threading.get_ident()), candidates(g, *a, **k))[1])  # fmt: skip
    until(lambda: deciding)
    served.send("DELETE", f"{PERSON}/{served.know(RED)}")
    assert set(changing) == set(deciding)


def test_the_audit_log_must_take_it_or_nothing_is_deleted(served, monkeypatch):
    known = served.know(RED)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("runtime.server.audit.Audit.note", full)
        answer = served.send("DELETE", f"{PERSON}/{known}")
    assert answer.status_code == 503
    assert "No space left" in answer.json()["detail"]
    assert served.ask(f"{PERSON}/{known}")[0] == 200


def test_errands_are_done_in_order_by_who_runs_them():
    errands, answers = Errands(), []
    asking = [
        threading.Thread(target=lambda n=n: answers.append(errands.ask(lambda: n)))
        for n in range(5)
    ]
    for thread in asking:
        thread.start()
    until(lambda: errands._waiting.qsize() == 5)
    errands.run()
    until(lambda: len(answers) == 4)  # the fifth waits for the next instant
    errands.run()
    for thread in asking:
        thread.join(5)
    assert sorted(answers) == list(range(5))


def test_an_errand_that_is_not_begun_in_time_never_is():
    errands, done = Errands(patience_s=0.05), []
    with pytest.raises(BusyError, match="nothing was changed"):
        errands.ask(lambda: done.append(1))
    errands.run()
    assert not done


def test_an_errand_that_has_begun_is_waited_for():
    errands, began, go_on = Errands(patience_s=0.1), threading.Event(), threading.Event()

    def slow():
        began.set()
        go_on.wait(5)
        return "done"

    def run():
        until(lambda: errands._waiting.qsize())
        errands.run()

    running = threading.Thread(target=run)
    running.start()
    threading.Timer(0.5, go_on.set).start()
    assert errands.ask(slow) == "done"
    running.join(5)


def test_errors_of_an_errand_are_the_askers():
    errands = Errands()

    def wrong():
        raise TimeoutError("of its own")

    running = threading.Thread(
        target=lambda: (until(lambda: errands._waiting.qsize()), errands.run())
    )
    running.start()
    with pytest.raises(TimeoutError, match="of its own"):
        errands.ask(wrong)
    running.join(5)


def test_no_errand_waits_for_a_run_that_is_over_or_behind_too_many():
    errands = Errands(patience_s=5)
    told = []

    def ask():
        try:
            errands.ask(lambda: 1)
        except BusyError as error:
            told.append(str(error))

    asking = [threading.Thread(target=ask) for _ in range(MOST_WAITING)]
    for thread in asking:
        thread.start()
    until(lambda: errands._waiting.full())
    with pytest.raises(BusyError, match="wait already"):
        errands.ask(lambda: 1)
    errands.close()
    for thread in asking:
        thread.join(2)
    assert len(told) == MOST_WAITING
    with pytest.raises(BusyError, match="ending"):
        errands.ask(lambda: 1)
