"""Segments of a live run's video: cut by time and by rigs, kept in number; no run ends for one."""

import errno
import os

import numpy as np

from runtime.config import CameraConfig, RigConfig, VideoConfig
from runtime.feeds.preflight import Preflight
from runtime.picture.presentation import Presentation
from runtime.picture.video import VideoWriter
from runtime.sources import Frame
from runtime.sync.synchroniser import Triplet
from runtime.watching.rig import RigStep

T0 = 1_795_584_000.0


class Nobody:
    """A recogniser that has seen nobody."""

    sightings = ()

    def decision(self, rig, track):
        return None


def begin(shown, name):
    rig = RigConfig(name, {"rgb": CameraConfig("pattern://")})
    shown.begin(rig, Preflight({"rgb": (90, 160)}, 10.0, {}, {}))


def play(shown, rig, from_s, seconds):
    picture = np.full((90, 160, 3), 90, np.uint8)
    for i in range(round(seconds * 10)):
        time_s = from_s + i / 10
        frame = Frame(picture, time_s, "rtcp", i, time_s)
        shown.show(RigStep(rig, Triplet(time_s, {"rgb": frame}, 0.0), np.zeros((0, 4)), [], [], []))
        shown.draw(time_s)


def names(folder):
    return sorted(path.name for path in folder.glob("mosaic-*.mp4"))


def test_segments_are_cut_by_time_and_the_oldest_go(tmp_path):
    shown = Presentation(VideoConfig(width_px=320, segment_s=2.0, keep=2), tmp_path, Nobody())
    begin(shown, "gate")
    play(shown, "gate", T0, 9.0)
    shown.finish(None)
    found = names(tmp_path)
    assert len(found) == 3  # two that were kept, and the one that was being written
    assert found[-1] > found[0] > "mosaic-2026"
    assert not list(tmp_path.glob("mosaic.*"))


def test_a_rig_that_begins_starts_a_new_segment(tmp_path):
    shown = Presentation(VideoConfig(width_px=320, segment_s=100.0), tmp_path, Nobody())
    begin(shown, "gate")
    play(shown, "gate", T0, 2.0)
    begin(shown, "yard")
    play(shown, "yard", T0 + 2.0, 2.0)
    shown.end("yard")
    play(shown, "gate", T0 + 4.0, 2.0)
    shown.finish(None)
    assert len(names(tmp_path)) == 3


def test_a_full_disk_costs_a_live_run_its_video_only(tmp_path, monkeypatch, caplog):
    whole = VideoWriter._encode
    full = [True]

    def encode(self, aside):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(self, aside)

    monkeypatch.setattr(VideoWriter, "_encode", encode)
    shown = Presentation(VideoConfig(width_px=320, segment_s=100.0), tmp_path, Nobody())
    begin(shown, "gate")
    play(shown, "gate", T0, 5.0)
    assert names(tmp_path) == []
    assert caplog.text.count("no video") == 1  # it waits before it tries again
    full[0] = False
    play(shown, "gate", T0 + 70.0, 3.0)
    shown.finish(None)
    assert len(names(tmp_path)) == 1
