"""The cameras of the rehearsal: they obey, and stay in step round after round."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from calibration.registering.footage import shots
from runtime.config import load_rigs
from tests.cameras import RIGS, login_and_port, obey
from tests.numbered_clips import number_of, numbered_clip
from tests.rtsp import RtspServer, require_rtsp_server


class Server:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def freeze(self, camera):
        self.told.append(("freeze", camera))

    def thaw(self, camera):
        self.told.append(("thaw", camera))

    def jump(self, camera, seconds):
        self.told.append(("jump", camera, seconds))


def test_it_obeys_what_it_knows():
    server = Server()
    for line in ("freeze gate-tir", "thaw gate-tir", "jump gate-tir -2.5"):
        assert obey(server, {"gate-tir"}, line.split()) == "done"
    assert server.told == [
        ("freeze", "gate-tir"), ("thaw", "gate-tir"), ("jump", "gate-tir", -2.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["", "freeze", "melt gate-tir", "freeze yard-tir", "jump gate-tir", "jump gate-tir far"]
)
def test_of_all_else_it_says_what_is_legal(line):
    server = Server()
    assert obey(server, {"gate-tir"}, line.split()).startswith("say freeze, thaw, jump and one of")
    assert server.told == []


def test_the_rigs_file_is_of_one_server():
    uris = [c.uri for rig in load_rigs(RIGS) for c in rig.cameras.values()]
    assert len(set(uris)) == 6
    assert {login_and_port(uri) for uri in uris} == {("viewer:rehearsal", 8554)}


@pytest.mark.parametrize("path", sorted(RIGS.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_rigs_files_are_rigs_files(path):
    assert load_rigs(path)


def test_clips_of_different_length_stay_in_step(tmp_path):
    require_rtsp_server()
    clips = {
        name: numbered_clip(tmp_path / f"{name}.mp4", frames)
        for name, frames in (("short", 20), ("long", 30))
    }

    def first_pictures(server, name):
        """Return when each round began."""
        seen = [(t, number_of(p)) for t, p in shots(name, server.url(name), 4.0, 0.04)]
        return np.array([t for t, number in seen if number == 0])

    with RtspServer(clips, tmp_path) as server, ThreadPoolExecutor() as pool:
        begins = list(pool.map(lambda name: first_pictures(server, name), clips))
    assert min(map(len, begins)) >= 3
    apart_s = [np.abs(begins[1] - at_s).min() for at_s in begins[0]]
    assert max(apart_s) < 0.1
