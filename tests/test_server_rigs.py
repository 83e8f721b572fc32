"""Rigs that come and go while the run goes on."""

import pytest

from mambapro.cli import InputError
from mambapro.config import from_dict
from runtime.config import RigConfig, SourceConfig
from runtime.server.door import VARIABLE
from runtime.server.rigs import EXAMPLE, MOST_RIGS, checked
from tests.scene_cameras import until
from tests.served import Served


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    run = Served(tmp_path / "out", monkeypatch)
    yield run
    run.close()


def pattern(name="yard", **values):
    return {"name": name, "cameras": {"rgb": {"uri": f"pattern://?size=320x180&fps=5#{name}-rgb"}}}


def watched(served):
    return [rig["name"] for rig in served.answer("/api/rigs")]


def test_a_rig_comes_and_goes_and_the_others_are_not_disturbed(served):
    until(lambda: served.ask("/readyz")[0] == 200)
    camera = served.run.cameras["gate-rgb"]
    answer = served.send("POST", "/api/rigs", json=pattern("Tor 王"))
    assert (answer.status_code, answer.json()) == (202, {"rigs": ["gate", "Tor 王"]})
    until(lambda: watched(served) == ["gate", "Tor 王"])
    assert served.send("POST", "/api/rigs", json=pattern("Tor 王")).status_code == 409
    assert served.send("POST", "/api/rigs", json=pattern("gate")).status_code == 409
    gone = served.send("DELETE", "/api/rigs/Tor 王")
    assert (gone.status_code, gone.json()) == (202, {"rigs": ["gate"]})
    until(lambda: watched(served) == ["gate"])
    assert served.send("DELETE", "/api/rigs/Tor 王").status_code == 404
    assert served.run.cameras["gate-rgb"] is camera
    assert camera.state == "live"
    what = [(x["what"], x["rig"], x["result"]) for x in served.audit()]
    assert what[0] == ("add rig", "Tor 王", "begins")
    assert ("remove rig", "Tor 王", "done") in what
    assert what[-1][:2] == ("remove rig", "Tor 王")
    assert what[-1][2].startswith("failed: 404")


def test_a_restart_connects_anew(served):
    until(lambda: served.ask("/readyz")[0] == 200)
    camera = served.run.cameras["gate-rgb"]
    assert served.send("POST", "/api/rigs/gate/restart").status_code == 202
    until(lambda: served.run.cameras["gate-rgb"] is not camera)
    assert camera.state == "ended"
    until(lambda: served.ask("/readyz")[0] == 200)
    assert served.send("POST", "/api/rigs/nowhere/restart").status_code == 404


def test_the_last_rig_may_go_and_the_run_goes_on(served):
    served.send("DELETE", "/api/rigs/gate")
    until(lambda: watched(served) == [])
    assert served.ask("/healthz")[0] == 200
    assert served.ask("/api/rigs/reload", "POST")[0] == 202  # back to the rigs file
    until(lambda: watched(served) == ["gate"])


def test_there_are_not_endless_rigs(served):
    for number in range(MOST_RIGS - 1):
        rig = from_dict(RigConfig, pattern(f"r{number}"))
        assert served.run.view.feed.add(rig)
    assert served.send("POST", "/api/rigs", json=pattern("more")).status_code == 409


def with_camera(**camera):
    return {"name": "x", "cameras": {"rgb": {"uri": "pattern://", **camera}}}


IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("rig", "words"),
    [
        ({}, "missing"),
        ({"name": "x", "cameras": {}}, "reference camera"),
        ({"name": "", "cameras": {"rgb": {"uri": "pattern://"}}}, "1 to 100"),
        ({"name": "a/b", "cameras": {"rgb": {"uri": "pattern://"}}}, "no /"),
        ({"name": "a\n", "cameras": {"rgb": {"uri": "pattern://"}}}, "printable"),
        ({"name": "x" * 101, "cameras": {"rgb": {"uri": "pattern://"}}}, "1 to 100"),
        ({**with_camera(), "camera": -2}, "or -1"),
        ({**with_camera(), "kamera": 1}, "nearest known key is camera"),
        ({"name": "x", "cameras": {"uv": {"uri": "pattern://"}}}, "uv"),
        (with_camera(uri="/etc/passwd"), "clip"),
        (with_camera(uri="file:///etc/passwd"), "clip"),
        (with_camera(uri="gst:filesrc location=/etc/passwd ! fakesink"), "rigs file alone"),
        (with_camera(uri="GST:videotestsrc"), "rigs file alone"),
        (with_camera(uri="rtsp://"), "names no host"),
        (with_camera(uri="ftp://x/y"), "not known"),
        (with_camera(uri="pattern://?size=99999x99999"), "8192"),
        (with_camera(uri="pattern://?fps=0"), "fps"),
        (with_camera(homography=[[0, 0, 0]] * 3), "invertible"),
        (with_camera(homography=[[1, 0, float("nan")], *IDENTITY[1:]]), "finite"),
        (with_camera(offset_s=float("inf")), "finite"),
        (with_camera(offset_s=10**400), "too large"),
        (with_camera(homography=IDENTITY[:2]), "3 items"),
    ],
)
def test_a_rig_that_cannot_be_watched_is_refused(rig, words):
    with pytest.raises(InputError, match=words):
        checked(rig, SourceConfig())


def test_the_refusal_is_answered_and_hides_passwords(served):
    bad = with_camera(uri="ftp://me:secret@host/1")
    answer = served.send("POST", "/api/rigs", json=bad)
    assert answer.status_code == 422
    assert "not known" in answer.json()["detail"]
    assert "secret" not in answer.text
    assert served.send("POST", "/api/rigs", json=[1]).status_code == 422
    assert watched(served) == ["gate"]


def test_the_example_of_the_description_is_legal():
    assert checked(EXAMPLE, SourceConfig()).name == "gate"
