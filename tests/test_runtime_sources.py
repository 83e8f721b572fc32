"""A source has four outcomes, and names the clip when it fails."""

import threading

import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.sources import End, Failure, FileSource, Frame, NothingYet, open_source
from tests.runtime_scenes import write_clip


@pytest.fixture
def clip(tmp_path):
    pictures = [np.full((32, 48, 3), 40 + 10 * i, np.uint8) for i in range(20)]
    return write_clip(tmp_path / "clip.mp4", pictures, [0.5 + i / 25 for i in range(20)])


def read_all(source):
    readings = []
    while not readings or not isinstance(readings[-1], (End, Failure)):
        readings.append(source.read(2.0))
    return readings


def test_a_file_gives_every_frame_in_order_then_its_end(clip):
    source = FileSource(str(clip), queue_frames=2)  # smaller than the clip: the decoder has to wait
    *frames, last = read_all(source)
    assert source.read(0.0) == last == End(20)
    source.close()
    assert [frame.index for frame in frames] == list(range(20))
    assert np.allclose([f.time_s for f in frames], 0.5 + np.arange(20) / 25, atol=1e-4)
    assert {f.time_source for f in frames} == {"pts"}
    assert np.allclose([f.picture.mean() for f in frames], 40 + 10 * np.arange(20), atol=3)


def test_colours_are_red_green_blue(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:] = (200, 30, 60)
    source = FileSource(str(write_clip(tmp_path / "c.mp4", [picture] * 3, [0, 0.04, 0.08])))
    frame = source.read(2.0)
    source.close()
    assert isinstance(frame, Frame)
    assert np.allclose(frame.picture.mean(axis=(0, 1)), (200, 30, 60), atol=6)


def test_nothing_yet_is_not_an_end(clip):
    source = FileSource(str(clip))
    source.close()
    while isinstance(reading := source.read(0.0), Frame):
        pass
    assert reading == NothingYet()


def test_closing_does_not_wait_for_the_reader(clip):
    source = FileSource(str(clip), queue_frames=1)
    source.read(2.0)
    source.close()
    assert f"decode {clip}" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot open clip .*broken\.mp4"):
        open_source(str(path))


def test_a_missing_clip_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.mp4: No such file"):
        open_source(str(tmp_path / "gone.mp4"))


def test_a_scheme_that_is_not_served_is_named():
    with pytest.raises(InputError, match=r"cannot open rtps://\*\*\*@camera/1: rtps: is not known"):
        open_source("rtps://me:secret@camera/1")


def test_damaged_pictures_are_skipped_or_named_but_do_not_hang(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(60)]
    clip = write_clip(tmp_path / "clip.mp4", noise, [i / 25 for i in range(60)])
    damaged = bytearray(clip.read_bytes())
    middle = damaged.find(b"mdat") + len(damaged) // 3
    damaged[middle : middle + len(damaged) // 3] = bytes(len(damaged) // 3)
    path = clip.with_name("damaged.mp4")
    path.write_bytes(damaged)
    source = FileSource(str(path))
    last = read_all(source)[-1]
    source.close()
    assert isinstance(last, (End, Failure))
    assert isinstance(last, End) or "damaged.mp4" in last.reason
