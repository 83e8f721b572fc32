"""A gallery on a Qdrant server: the same answers as on disk, and a server that is away or hostile.

The server is a stand-in (tests/qdrant_http.py): real HTTP and the client library's own engine.
"""

import logging
import socket

import numpy as np
import pytest

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery import export_gallery, import_gallery, open_gallery
from runtime.gallery import qdrant_server as server_module
from tests.qdrant_http import FakeQdrant

SPEC = ModelSpec("person", (64, 32), 24, 4, "space-one", "0" * 64)
SECRET = "s3cret-key"


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT_S", 0.001)
    with FakeQdrant() as fake:
        yield fake


def on(server, folder, **settings):
    return open_gallery(folder, SPEC, GalleryConfig(url=server.url, **settings))


def work(gallery):
    """Do everything once; return what can be seen of it."""
    seen = []
    points = [gallery.put(f"P{n}", unit(n), {"rig": "a", "time_s": float(n)}) for n in range(1, 7)]
    more = [gallery.put("P1", unit(20 + n), {"rig": "b", "time_s": 10.0 + n}) for n in range(4)]
    gallery.put("P2", unit(30), {"rig": "b", "time_s": 3.0}, points[1])
    gallery.rename("P1", "Ada")
    gallery.merge("P3", into="P4")
    gallery.split("P1", more[1:3])
    gallery.delete("P6")
    seen.append(gallery.expire(99.5))
    for seed in (1, 21, 22, 30, 3, 99):
        for excluded in ((), ("P4", "P7")):
            found = gallery.candidates(unit(seed), 2, excluded)
            seen.append([(c.identity, round(c.score, 4)) for c in found])
    templates = [[r.payload for r in gallery.templates_of(n)] for n in ("P4", "P7")]
    return seen, gallery.identities(), templates, gallery.new_identity()


@pytest.mark.parametrize("settings", [{}, {"moving_average": 0.4, "templates": 3, "capacity": 8}])
def test_a_server_answers_as_the_disk_does(server, tmp_path, settings):
    settings = {"time_to_live_s": 100.0, "retention_s": 98.0, **settings}
    local = open_gallery(tmp_path / "g", SPEC, GalleryConfig(**settings))
    remote = on(server, tmp_path / "none", **settings)
    assert work(remote) == work(local)
    assert not (tmp_path / "none").exists()
    known = remote.identities(), remote.new_identity()
    remote.close()
    again = on(server, tmp_path / "none", **settings)
    assert (again.identities(), again.new_identity()) == known
    for gallery in (local, again):
        gallery.close()


def test_galleries_move_between_disk_and_server(server, tmp_path):
    local = open_gallery(tmp_path / "g", SPEC, GalleryConfig())
    for n in range(1, 301):
        local.put(f"P{n}", unit(n), {"rig": "a", "time_s": float(n)})
    local.delete("P300")
    assert export_gallery(local, tmp_path / "a.npz") == 299
    remote = on(server, tmp_path)
    assert import_gallery(remote, tmp_path / "a.npz", SPEC, mix_precisions=False) == 299
    assert remote.identities() == local.identities()
    assert remote.new_identity() == "P301"
    assert remote.candidates(unit(7), 1)[0].identity == "P7"
    export_gallery(remote, tmp_path / "b.npz")
    back = open_gallery(tmp_path / "h", SPEC, GalleryConfig())
    import_gallery(back, tmp_path / "b.npz", SPEC, mix_precisions=False)
    assert back.identities() == local.identities()
    for gallery in (local, remote, back):
        gallery.close()


def test_two_sites_share_a_server(server, tmp_path):
    north, south = (on(server, tmp_path, site=name) for name in ("north", "south"))
    assert (north.new_identity(), south.new_identity()) == ("north-P1", "south-P1")
    north.put("north-P1", unit(1), {"rig": "n", "time_s": 0.0})
    assert south.candidates(unit(1), 1)[0].identity == "north-P1"
    south.put("north-P1", unit(2), {"rig": "s", "time_s": 1.0})
    assert south.identity("north-P1").templates == 2
    north.expire(2.0)
    assert north.identity("north-P1").templates == 2
    assert (north.new_identity(), south.new_identity()) == ("north-P2", "south-P1")
    for gallery in (north, south):
        gallery.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embedding_space": "space-two"}, "space-one.*space-two"),
        ({"precision": "int8"}, "fp32 model.*int8.*mix_precisions"),
        ({"embedding_dim": 48}, "48 channels.*gallery.collection"),
    ],
)
def test_embeddings_of_another_model_are_refused(server, tmp_path, change, says):
    on(server, tmp_path).close()
    with pytest.raises(InputError, match=says):
        open_gallery(tmp_path, SPEC.replace(**change), GalleryConfig(url=server.url))


def test_a_busy_server_is_asked_again(server, tmp_path):
    gallery = on(server, tmp_path)
    server.busy = 3
    gallery.put("P1", unit(1), {"time_s": 0.0})
    assert gallery.candidates(unit(1), 1)[0].identity == "P1"
    server.busy = 99
    with pytest.raises(OSError, match=rf"mambapro-person at {server.url} answered 503.*4 times"):
        gallery.put("P2", unit(2), {"time_s": 0.0})
    server.busy = 0
    assert len(gallery) == 1
    gallery.put("P2", unit(2), {"time_s": 0.0})
    assert len(gallery) == 2
    gallery.close()


def test_a_silent_server_is_not_waited_for_for_ever(server, tmp_path):
    gallery = on(server, tmp_path, timeout_s=1.0, retries=0)
    server.silent_s = 1.5
    with pytest.raises(OSError, match=rf"{server.url} cannot be reached.*timed out"):
        gallery.candidates(unit(1), 1)
    server.silent_s = 0.0
    assert gallery.candidates(unit(1), 1) == []
    gallery.close()


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT_S", 0.001)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(OSError, match=f"at {url} cannot be reached.*tried 2 times"):
            open_gallery(tmp_path, SPEC, GalleryConfig(url=url, retries=1))


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_comes_from_the_environment_and_is_never_shown(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    with FakeQdrant(key=SECRET) as server:
        with pytest.raises(InputError, match=f"{server.url} refused the API key") as error:
            on(server, tmp_path)
        monkeypatch.setenv("SITE_KEY", SECRET)
        gallery = on(server, tmp_path, api_key_variable="SITE_KEY")
        gallery.put("P1", unit(1), {"time_s": 0.0})
        gallery.close()
    assert SECRET not in caplog.text + str(error.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://ada:s3cret-key@box:6333", "http://box must hold no credentials"),
        ("https://box:6333/?api-key=s3cret-key", "https://box must hold no credentials"),
        ("box:6333", "https://host:6333"),
        ("redis://box", "https://host:6333"),
    ],
)
def test_addresses_that_are_none(tmp_path, url, says):
    with pytest.raises(InputError, match=says) as error:
        open_gallery(tmp_path, SPEC, GalleryConfig(url=url))
    assert SECRET not in str(error.value)
