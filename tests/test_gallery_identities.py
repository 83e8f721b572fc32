"""Names, merging, splitting, deletion, age and capacity of identities; what a restart keeps."""

import numpy as np
import pytest

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery import open_gallery

SPEC = ModelSpec("person", (64, 32), 24, 4, "space-one", "0" * 64)


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return vector / np.linalg.norm(vector)


class Desk:
    """A gallery that can be reopened, and what it said it would delete."""

    def __init__(self, folder, **settings):
        self.folder, self.purged, self.broken = folder, [], False
        self.config = GalleryConfig(keep=True, **settings)
        self.open()

    def open(self):
        self.gallery = open_gallery(self.folder, SPEC, self.config, self.tell)

    def tell(self, purged):
        if self.broken:
            raise OSError("snapshots cannot be deleted")
        self.purged.append(purged)

    def reopen(self):
        self.gallery.close()
        self.open()

    def see(self, identity, seed, time_s, **payload):
        return self.gallery.put(identity, unit(seed), {"rig": "gate", "time_s": time_s, **payload})

    def best(self, seed):
        return self.gallery.candidates(unit(seed), 1)[0]


@pytest.fixture
def desk(tmp_path):
    opened = []

    def make(**settings):
        opened.append(Desk(tmp_path / "g", **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.gallery.close()


def described(gallery):
    return {
        i.identity: (i.name, i.aliases, i.templates, i.first_seen_s, i.last_seen_s)
        for i in gallery.identities()
    }


def test_a_name_is_kept_and_borne_by_later_templates(desk):
    d = desk()
    d.see("P1", 1, 1.0)
    d.gallery.rename("P1", "Ada")
    d.see("P1", 2, 2.0)
    d.reopen()
    assert described(d.gallery) == {"P1": ("Ada", (), 2, 1.0, 2.0)}
    assert d.best(2).template.payload["name"] == "Ada"
    d.gallery.rename("P1", None)
    assert "name" not in d.best(1).template.payload


def test_merged_templates_answer_to_one_name(desk):
    d = desk(templates=3)
    points = [d.see("P1", 1, 5.0), d.see("P1", 2, 1.0), d.see("P2", 3, 2.0), d.see("P2", 4, 6.0)]
    d.gallery.rename("P2", "Bo")
    d.gallery.merge("P2", into="P1")
    d.reopen()
    assert described(d.gallery) == {"P1": ("Bo", ("P2",), 3, 2.0, 6.0)}
    assert {r.point for r in d.gallery.templates_of("P1")} == {points[0], points[2], points[3]}
    assert d.best(3).identity == "P1"
    assert d.best(2).score < 0.9


def test_a_track_that_was_open_during_a_merge_or_split_follows_its_template(desk):
    d = desk()
    d.see("P1", 1, 1.0)
    moved = d.see("P2", 2, 2.0)
    d.gallery.merge("P2", into="P1")
    assert d.gallery.put("P2", unit(3), {"time_s": 3.0}, moved) == moved
    d.see("P2", 4, 4.0)
    assert described(d.gallery) == {"P1": (None, ("P2",), 3, 1.0, 4.0)}
    assert d.gallery.split("P1", [moved]).identity == "P3"
    d.gallery.put("P1", unit(5), {"time_s": 5.0}, moved)
    assert d.best(5).identity == "P3"


def test_a_track_that_was_open_during_a_deletion_does_not_undo_it(desk):
    d = desk()
    point = d.see("P1", 1, 1.0)
    d.gallery.delete("P1")
    d.gallery.put("P1", unit(2), {"time_s": 2.0}, point)
    assert len(d.gallery) == 0


def test_split_templates_get_a_name_that_nobody_had(desk):
    d = desk()
    points = [d.see("P4", seed, float(seed)) for seed in range(3)]
    d.gallery.rename("P4", "Cy")
    assert d.gallery.split("P4", points[1:]).identity == "P5"
    d.reopen()
    assert described(d.gallery) == {
        "P4": ("Cy", (), 1, 0.0, 0.0),
        "P5": (None, (), 2, 1.0, 2.0),
    }
    assert d.best(2).identity == "P5"
    assert d.gallery.new_identity() == "P6"


@pytest.mark.parametrize("which", [[], [0, 1], ["nobody"], [0, "nobody"]])
def test_a_split_must_leave_and_take_something(desk, which):
    d = desk()
    points = [d.see("P1", seed, 0.0) for seed in range(2)]
    with pytest.raises(InputError, match=f"cannot split P1.*{points[0]}"):
        d.gallery.split("P1", [points[w] if isinstance(w, int) else w for w in which])


def test_deletion_says_what_else_must_go_before_it_deletes(desk):
    d = desk()
    d.see("P1", 1, 1.0)
    d.see("P2", 2, 2.0)
    d.see("P3", 3, 3.0)
    d.gallery.merge("P1", into="P2")
    purged = d.gallery.delete("P2")
    assert d.purged == [purged]
    assert (purged.identity, purged.aliases, purged.whole, purged.templates) == (
        "P2", ("P1",), True, 2,
    )  # fmt: skip
    d.reopen()
    assert set(described(d.gallery)) == {"P3"}


def test_nothing_is_deleted_when_the_rest_cannot_be(desk):
    d = desk()
    d.see("P1", 1, 1.0)

    d.broken = True
    with pytest.raises(OSError, match="snapshots"):
        d.gallery.delete("P1")
    assert d.best(1).identity == "P1"


def test_embeddings_of_the_deleted_are_in_no_file(desk):
    """The ledger overwrites them, the spare copy goes, and so does the index with the process."""
    d = desk()
    d.see("P1", 1, 1.0)
    d.see("P2", 2, 2.0)
    d.reopen()
    needle = unit(1).tobytes()

    def holding():
        files = (file for file in d.folder.rglob("*") if file.is_file())
        return [file.name for file in files if needle in file.read_bytes()]

    assert {"gallery.sqlite", "spare.sqlite"} <= set(holding())
    d.gallery.delete("P1")
    assert not {"gallery.sqlite", "spare.sqlite"} & set(holding())
    d.gallery.close()
    assert holding() == []
    d.open()


@pytest.mark.parametrize("restart", [False, True])
def test_a_number_is_never_given_again(desk, restart):
    d = desk()
    for number in (1, 2, 3):
        assert d.gallery.new_identity() == f"P{number}"
        d.see(f"P{number}", number, 0.0)
    d.gallery.delete("P3")
    d.gallery.merge("P2", into="P1")
    if restart:
        d.reopen()
    assert d.gallery.new_identity() == "P4"


def test_who_was_unseen_for_too_long_goes_and_old_templates_go(desk):
    d = desk(time_to_live_s=100.0, retention_s=150.0)
    d.see("P1", 1, 0.0)
    d.see("P1", 2, 90.0)
    d.see("P2", 3, 180.0)
    d.see("P3", 4, 20.0)
    assert d.gallery.expire(100.0) == []
    (gone,) = d.gallery.expire(121.0)
    assert (gone.identity, gone.whole, gone.templates) == ("P3", True, 1)
    (old,) = d.gallery.expire(151.0)
    assert (old.identity, old.whole, old.templates) == ("P1", False, 1)
    assert d.best(1).score < 0.9
    d.reopen()
    assert [p.identity for p in d.gallery.expire(280.1)] == ["P1", "P2"]
    assert len(d.gallery) == 0
    assert [p.identity for p in d.purged] == ["P3", "P1", "P1", "P2"]


def test_without_settings_nothing_ever_expires(desk):
    d = desk()
    d.see("P1", 1, 0.0)
    assert d.gallery.expire(1e12) == []


def test_a_full_gallery_forgets_who_was_unseen_for_longest(desk):
    d = desk(templates=2, capacity=4)
    for number, time_s in enumerate([5.0, 1.0, 3.0, 4.0], 1):
        d.see(f"P{number}", number, time_s)
    d.see("P2", 12, 6.0)
    d.see("P5", 15, 7.0)
    assert set(described(d.gallery)) == {"P1", "P2", "P5"}
    assert [p.identity for p in d.purged] == ["P3", "P4"]
    d.see("P2", 22, 8.0)
    d.reopen()
    assert described(d.gallery)["P2"][2:] == (2, 6.0, 8.0)


def test_nobody_by_that_name(desk):
    d = desk()
    for call in (d.gallery.delete, d.gallery.templates_of, d.gallery.identity):
        with pytest.raises(InputError, match="knows no 'P9'"):
            call("P9")
    d.see("P1", 1, 0.0)
    with pytest.raises(InputError, match="merged into itself"):
        d.gallery.merge("P1", into="P1")


@pytest.mark.parametrize("newest", [0.3, 1.0])
def test_the_moving_average_is_one_more_template(desk, newest):
    d = desk(templates=3, moving_average=newest)
    for seed in range(5):
        d.see("P1", seed, float(seed))
    mean = unit(2)
    for seed in (3, 4):
        mean = (1 - newest) * mean + newest * unit(seed)
    mean /= np.linalg.norm(mean)
    d.reopen()
    assert d.gallery.candidates(mean, 1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert d.gallery.identity("P1").templates == 3
    d.gallery.delete("P1")
    assert d.gallery.candidates(mean, 1) == []


def test_averages_follow_the_setting(tmp_path):
    mean = unit(1) + unit(2)
    scores = []
    for setting in (None, 0.5, None):
        d = Desk(tmp_path / "g", moving_average=setting)
        if not len(d.gallery):
            d.see("P1", 1, 0.0)
            d.see("P1", 2, 1.0)
        scores.append(d.gallery.candidates(mean / np.linalg.norm(mean), 1)[0].score)
        d.gallery.close()
    assert scores[1] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] < 0.99
    assert scores[0] == pytest.approx(scores[2])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"templates": 0}, "gallery.templates"),
        ({"capacity": 3}, "gallery.capacity"),
        ({"moving_average": 0.0}, "gallery.moving_average"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(InputError, match=says):
        GalleryConfig(**settings)
