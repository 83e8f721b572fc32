"""A gallery that is killed, damaged, or out of disk space."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.config import GalleryConfig
from runtime.gallery import edge, index, open_gallery
from tests.gallery_writer import CONFIG, SPEC, change, content, unit
from tests.reliability import record

WRITER = Path(__file__).with_name("gallery_writer.py")
KILLS = int(os.environ.get("MAMBAPRO_GALLERY_KILLS", "20"))
KEPT = GalleryConfig(keep=True, templates=3)
SALVAGE = GalleryConfig(keep=True, templates=3, on_damage="salvage")


def test_kill_9_at_any_instant_loses_at_most_the_change_under_way(tmp_path):
    """Beside the victim runs a gallery that nobody kills and that makes the same changes."""
    draw = np.random.default_rng(9)
    folder, done = tmp_path / "victim", 0
    peer = open_gallery(tmp_path / "peer", SPEC, CONFIG)
    for _ in range(KILLS):
        acknowledged = killed_writer(folder, done, draw.integers(5), draw.uniform(0.0, 0.05))
        while done < acknowledged:
            change(peer, done)
            done += 1
        victim = open_gallery(folder, SPEC, CONFIG)
        found = content(victim)
        victim.close()
        if found != content(peer):
            change(peer, done)
            done += 1
        assert found == content(peer), f"after {acknowledged} acknowledged changes"
    assert done > KILLS
    peer.close()


def killed_writer(folder, first, changes, then_s):
    """Let a writer make ``changes`` and kill it a moment later; return how many it says there are.

    Without changes it may die while it opens or makes the gallery.
    """
    command = [sys.executable, str(WRITER), str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        said = [writer.stdout.readline() for _ in range(changes)]
        time.sleep(then_s)
        writer.kill()
        said += writer.stdout.read().rpartition("\n")[0].split()
    return int(said[-1]) + 1 if said else first


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a gallery that was killed: ledger and spare copy; and what it holds."""
    folder = tmp_path_factory.mktemp("sound") / "g"
    gallery = open_gallery(folder, SPEC, KEPT)
    for number in range(1, 101):
        for again in range(2):
            gallery.put(f"P{number}", unit(2 * number + again), {"time_s": float(number)})
    gallery.delete("P100")
    gallery.close()
    gallery = open_gallery(folder, SPEC, KEPT)
    gallery.put("P101", unit(999), {"time_s": 999.0})
    held = content(gallery)
    gallery.close()
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}, held


def damaged(folder, sound, draw, files):
    """Write the sound gallery to ``folder`` with one file damaged; return how."""
    folder.mkdir()
    for name, content_ in sound.items():
        if name in files:
            (folder / name).write_bytes(content_)
    file = folder / files[draw.integers(len(files))]
    size = file.stat().st_size
    start, length = int(draw.integers(size)), int(draw.integers(1, 9000))
    kinds = ["truncate", "garble", "zero", "empty", "remove"]
    kind = draw.choice(kinds[: 3 + len(files)])
    if kind == "truncate":
        os.truncate(file, start)
    elif kind == "empty":
        os.truncate(file, 0)
    elif kind == "remove":
        file.unlink()
    else:
        with file.open("r+b") as opened:
            opened.seek(start)
            length = min(length, size - start)
            opened.write(draw.bytes(length) if kind == "garble" else bytes(length))
    return f"{kind} {file.name} from {start}"


@pytest.mark.parametrize("files", [("gallery.sqlite", "spare.sqlite"), ("gallery.sqlite",)])
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_gallery_is_whole_or_refused_and_then_salvaged(tmp_path, sound, files, seed):
    folder, (was, held) = tmp_path / "g", sound
    how = damaged(folder, was, np.random.default_rng(seed), files)
    refusal, began_s = None, time.monotonic()
    try:
        gallery = open_gallery(folder, SPEC, KEPT)
    except InputError as error:
        refusal, refused_s = str(error), time.monotonic()
        gallery = open_gallery(folder, SPEC, SALVAGE)
        record(
            "damaged gallery folder, salvaged",
            detection_s=refused_s - began_s,
            recovery_s=time.monotonic() - refused_s,
        )
    if refusal is None:
        assert content(gallery) == held, how
    else:
        assert str(folder) in refusal, how
        assert "gallery.on_damage=salvage" in refusal, how
        assert list(folder.glob("damaged-*")), how
    check_salvaged(gallery, held, how)
    gallery.close()
    open_gallery(folder, SPEC, KEPT).close()


def check_salvaged(gallery, held, how):
    """What is there was there before; nobody gets a name again; it works."""
    _, identities, templates = content(gallery)
    for identity in identities:
        name = identity.identity
        assert {e for e, _ in templates[name]} <= {e for e, _ in held[2][name]}, how
    name = gallery.new_identity()
    assert int(name[1:]) >= int(held[0][1:]), how
    gallery.put(name, unit(5000), {"time_s": 1000.0})
    assert gallery.candidates(unit(5000), 1)[0].identity == name


def test_salvage_saves_what_is_intact(tmp_path, sound):
    """One record of the ledger is wrong, and the spare copy has it."""
    was, held = sound
    for with_spare in (True, False):
        folder = tmp_path / str(with_spare)
        folder.mkdir()
        ledger = was["gallery.sqlite"].replace(unit(40).tobytes(), unit(41).tobytes())
        (folder / "gallery.sqlite").write_bytes(ledger)
        if with_spare:
            (folder / "spare.sqlite").write_bytes(was["spare.sqlite"])
        with pytest.raises(InputError, match="is not what was written"):
            open_gallery(folder, SPEC, GalleryConfig(keep=True))
        gallery = open_gallery(folder, SPEC, SALVAGE)
        found = content(gallery)
        gallery.close()
        if with_spare:
            assert found == held
        else:
            lost = {n for n in held[2] if found[2].get(n) != held[2][n]}
            assert lost == {"P20"}


def test_a_gallery_in_use_is_not_opened_twice(tmp_path):
    gallery = open_gallery(tmp_path / "g", SPEC, GalleryConfig())
    for keep in (True, False):
        with pytest.raises(InputError, match="is open in another process"):
            open_gallery(tmp_path / "g", SPEC, GalleryConfig(keep=keep))
    gallery.put("P1", unit(1), {"time_s": 0.0})
    gallery.close()


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk, leave_bytes):
    """Use up the space of ``disk``; return the file that does."""
    file = disk / "filler"
    state = os.statvfs(disk)
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, state.f_bavail * state.f_frsize - leave_bytes)
    return file


@pytest.mark.parametrize("guarded", [True, False])
def test_a_full_disk_is_an_error_and_work_goes_on_when_there_is_space(
    small_disk, monkeypatch, guarded
):
    """Unguarded: space goes between the look at it and the writing."""
    gallery = open_gallery(small_disk / "g", SPEC, GalleryConfig(keep=True))
    gallery.put("P1", unit(1), {"time_s": 0.0})
    before = content(gallery)
    filler = fill(small_disk, 0)
    with monkeypatch.context() as patch:
        if not guarded:
            for module in (edge, index):
                patch.setattr(module, "require_space", lambda folder, more_bytes: None)
        with pytest.raises(OSError, match=str(small_disk)) as error:
            for number in range(2, 200):
                gallery.put(gallery.new_identity(), unit(number), {"time_s": float(number)})
                before = content(gallery)
    assert error.value.errno == 28  # ENOSPC
    assert content(gallery) == before
    assert gallery.candidates(unit(1), 1)[0].identity == "P1"
    filler.unlink()
    freed_s = time.monotonic()
    name = gallery.new_identity()
    gallery.put(name, unit(300), {"time_s": 300.0})
    record("disk full under the gallery", recovery_s=time.monotonic() - freed_s)
    after = content(gallery)
    gallery.close()
    filler = fill(small_disk, 0)
    with pytest.raises(OSError, match="make room"):
        open_gallery(small_disk / "g", SPEC, GalleryConfig(keep=True))
    filler.unlink()
    with contextlib.closing(
        open_gallery(small_disk / "g", SPEC, GalleryConfig(keep=True))
    ) as again:
        assert content(again) == after


def test_embeddings_can_be_deleted_from_a_full_disk(small_disk):
    gallery = open_gallery(small_disk / "g", SPEC, GalleryConfig(keep=True))
    for number in range(1, 4):
        gallery.put(f"P{number}", unit(number), {"time_s": 0.0})
    fill(small_disk, 64 * 1024)
    gallery.delete("P2")
    assert {i.identity for i in gallery.identities()} == {"P1", "P3"}
    gallery.close()


def test_an_index_that_fails_is_made_anew(tmp_path, monkeypatch):
    gallery = open_gallery(tmp_path / "g", SPEC, KEPT)
    gallery.put("P1", unit(1), {"time_s": 0.0})
    update = index.Index.update
    failures = [RuntimeError("out of order")]

    def fail_once(self, upserts, deletes):
        if failures:
            raise failures.pop()
        update(self, upserts, deletes)

    monkeypatch.setattr(index.Index, "update", fail_once)
    gallery.put("P2", unit(2), {"time_s": 1.0})
    for number in (1, 2):
        assert gallery.candidates(unit(number), 1)[0].identity == f"P{number}"
    gallery.close()
