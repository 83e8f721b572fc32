"""What moves is boxed; shadows, flashes and noise are not."""

import cv2
import numpy as np
import pytest

from runtime.config import DetectConfig, TrackConfig
from runtime.figures.scoring import iou
from runtime.watching.detectors.blobs import join_parts
from runtime.watching.detectors.interface import Detections, View
from runtime.watching.detectors.motion import MotionDetector
from runtime.watching.tracking import Tracker
from tests.runtime_scenes import HOMOGRAPHIES, SIZES, Walk, picture

HEIGHT, WIDTH = SIZES["rgb"]
REST = 40


def scene(seed=0):
    """An empty scene with noise, (H, W, 3)."""
    return picture("rgb", [], seed / 25, seed=0).astype(np.int16)


def run(pictures, homographies=None, config=None, skip=REST):
    """Feed triplets; return the boxes of each after the first ``skip``."""
    config = config or DetectConfig()
    view = View("rgb", (HEIGHT, WIDTH), homographies or {"rgb": np.eye(3)}, 25.0)
    detector = MotionDetector(config, view)
    found = [detector.detect(p if isinstance(p, dict) else {"rgb": p}).boxes for p in pictures]
    return found[skip:]


def moving(count, night=False, cameras=("rgb",), walk=None):
    walk = walk or Walk("a", REST / 25)
    times = np.arange(REST + count) / 25
    shown = [[walk] if t > walk.start_s else [] for t in times]
    return (
        walk,
        times,
        [
            {m: picture(m, w, t, night=night) for m in cameras}
            for t, w in zip(times, shown, strict=True)
        ],
    )


def test_a_walker_is_boxed():
    walk, times, pictures = moving(80)
    boxes = run(pictures)
    inside = [
        (found, walk.box(t))
        for found, t in zip(boxes, times[REST:], strict=True)
        if walk.box(t)[0] > 2
    ]
    assert len(inside) > 40
    assert all(len(found) == 1 for found, _ in inside)
    assert np.mean([iou(tuple(found[0]), true) for found, true in inside]) > 0.75


def test_noise_alone_is_nothing():
    assert all(len(boxes) == 0 for boxes in run([scene(i).astype(np.uint8) for i in range(120)]))


def test_a_shadow_is_nothing():
    pictures = []
    for i in range(100):
        ground = scene(i).astype(np.float32)
        if i > REST:
            ground[90:120, (i - REST) * 2 : (i - REST) * 2 + 70] *= 0.68
        pictures.append(ground.clip(0, 255).astype(np.uint8))
    boxes = run(pictures)
    assert sum(len(found) for found in boxes) <= 2  # a grazing edge may flicker


@pytest.mark.parametrize("gain", [0.55, 1.6])
def test_a_change_of_light_everywhere_is_nothing(gain):
    pictures = [
        (scene(i) * (gain if i > REST else 1.0)).clip(0, 255).astype(np.uint8) for i in range(100)
    ]
    assert all(len(boxes) == 0 for boxes in run(pictures))


EXPOSURES = {
    "offset": lambda light: light + 60,
    "gamma": lambda light: 255 * (light.clip(0) / 255) ** 0.6,
    "white balance": lambda light: light * np.array([1.25, 1, 0.75]),
}


@pytest.mark.parametrize("name", EXPOSURES)
def test_a_jump_of_exposure_floods_nothing_and_a_walker_in_it_is_boxed(name):
    """No gain undoes an offset or a gamma; a curve of tones does, from the first frame on."""
    walk, times, pictures = moving(60)
    shown = [
        p["rgb"] if i < REST + 25 else EXPOSURES[name](p["rgb"].astype(np.float32))
        for i, p in enumerate(pictures)
    ]
    boxes = run([picture.clip(0, 255).astype(np.uint8) for picture in shown])
    for found, time_s in zip(boxes, times[REST:], strict=True):
        if walk.box(time_s)[0] > 2:
            assert len(found) == 1
            assert iou(tuple(found[0]), walk.box(time_s)) > 0.7


@pytest.mark.parametrize(("light", "settings"), [(0.6, {}), (0.4, {"shadow": 0.3})])
def test_the_shadow_at_a_walkers_feet_is_not_boxed(light, settings):
    walk, times, pictures = moving(60)
    for shown, time_s in zip(pictures, times, strict=True):
        if time_s > walk.start_s:
            cast_shadow(shown["rgb"], walk.box(time_s), light)
    boxes = run(pictures, config=DetectConfig(**settings))
    whole = [
        iou(tuple(found[0]), walk.box(t))
        for found, t in zip(boxes, times[REST:], strict=True)
        if walk.box(t)[0] > 2 and len(found) == 1
    ]
    assert len(whole) > 35
    assert min(whole) > 0.65


def cast_shadow(shown, box, light):
    """Darken what lies behind the feet of ``box`` to ``light``, 50 px to the side; in place."""
    x0, y0, x1, y1 = (round(v) for v in box)
    ground = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.fillPoly(
        ground, [np.array([[x0, y1], [x1, y1], [x1 + 50, y1 + 26], [x0 + 50, y1 + 26]])], 1
    )
    ground = cv2.GaussianBlur(ground, (0, 0), 2)
    ground[y0:y1, max(x0, 0) : max(x1, 0)] = 0  # not on the walker
    shown[:] = (shown * (1 - (1 - light) * ground[..., None])).astype(np.uint8)


def test_what_sways_is_learned():
    """A rough patch that swings to and fro: boxes at first, ever fewer, and then no track."""
    rng = np.random.default_rng(9)
    leaves = rng.uniform(30, 200, (14, 12, 3)).astype(np.float32)
    leaves = cv2.resize(leaves, (48, 56), interpolation=cv2.INTER_CUBIC)
    config = DetectConfig(history_s=6)
    pictures = []
    for i in range(400):
        shift = 2.0 * np.sin(i * 2 * np.pi / 45)
        matrix = np.array([[1, 0, 180 + shift], [0, 1, 40]], np.float32)
        cover = cv2.warpAffine(np.ones((56, 48, 1), np.float32), matrix, (WIDTH, HEIGHT))[..., None]
        shown = scene(i) * (1 - cover) + cv2.warpAffine(leaves, matrix, (WIDTH, HEIGHT)) * cover
        pictures.append(shown.clip(0, 255).astype(np.uint8))
    boxes = run(pictures, config=config, skip=0)
    counts = [len(found) for found in boxes]
    tracker = Tracker(TrackConfig(), config, 25.0, (HEIGHT, WIDTH))
    ended = [
        track
        for i, found in enumerate(boxes)
        for track in tracker.update(Detections(found, np.ones(len(found), np.float32)), i / 25)[1]
    ]
    assert sum(counts[:100]) > 40  # or it shows nothing
    assert sum(counts[300:]) < 0.5 * sum(counts[:100])
    assert [track for track in ended + tracker.finish() if track.end_s > 8] == []


def test_dusk_is_nothing_and_a_walker_in_it_is_boxed():
    walk, times, pictures = moving(100)
    dusk = [
        {"rgb": (p["rgb"] * np.interp(i, [REST, REST + 100], [1.0, 0.6])).astype(np.uint8)}
        for i, p in enumerate(pictures)
    ]
    extra = 0
    for found, time_s in zip(run(dusk), times[REST:], strict=True):
        if walk.box(time_s)[0] > 2:
            assert max(iou(tuple(box), walk.box(time_s)) for box in found) > 0.5
            extra += len(found) - 1
    assert extra <= 3  # a wake may flash for a frame; no track comes of it


def test_a_flicker_that_covers_the_picture_makes_it_learn_anew():
    rng = np.random.default_rng(3)
    other = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.int16)
    pictures = [(scene(i) if i < REST else other).astype(np.uint8) for i in range(120)]
    boxes = run(pictures)
    assert all(len(found) == 0 for found in boxes)


def test_at_night_the_others_see_what_rgb_does_not():
    cameras = ("rgb", "nir", "tir")
    walk, times, pictures = moving(80, night=True, cameras=cameras)
    together = run(pictures, homographies=HOMOGRAPHIES)
    for found, time_s in zip(together, times[REST:], strict=True):
        if 2 < walk.box(time_s)[0] < WIDTH - 40:
            assert len(found) == 1
            assert iou(tuple(found[0]), walk.box(time_s)) > 0.6


def test_by_day_thermal_sees_whom_the_wall_hides():
    """A walker whose middle is of the wall's own colour is one warm body, not a head and legs."""
    walk, times, pictures = moving(80, cameras=("rgb", "tir"))
    for shown, time_s in zip(pictures[REST:], times[REST:], strict=True):
        x0, y0, x1, y1 = (round(v) for v in walk.box(time_s))
        wall = picture("rgb", [], time_s)
        middle = slice(y0 + 14, y1 - 16), slice(max(x0 - 2, 0), max(x1 + 2, 0))
        shown["rgb"][middle] = wall[middle]
    homographies = {m: HOMOGRAPHIES[m] for m in ("rgb", "tir")}
    inside = [i for i, t in enumerate(times[REST:]) if 2 < walk.box(t)[0] < WIDTH - 40]
    joined = run(pictures, homographies)
    alone = run(pictures, homographies, DetectConfig(day_modalities=()))
    whole = [
        max((iou(tuple(box), walk.box(times[REST + i])) for box in joined[i]), default=0.0)
        for i in inside
    ]
    assert np.mean(np.array(whole) > 0.6) > 0.9
    assert np.mean([len(alone[i]) != 1 for i in inside]) > 0.9


def test_without_the_reference_the_others_are_asked():
    _, _, pictures = moving(60, cameras=("tir",))
    assert any(len(found) == 1 for found in run(pictures, homographies=HOMOGRAPHIES))


def test_without_any_picture_there_is_nothing():
    assert [len(found) for found in run([{}] * 3, skip=0)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ([(10, 10, 20, 18), (8, 20, 22, 60)], 1),  # head above body
        ([(8, 10, 22, 40), (9, 44, 21, 70)], 1),  # body above legs
        ([(10, 10, 20, 40), (40, 10, 50, 40)], 2),  # side by side
        ([(10, 10, 20, 40), (17, 42, 27, 72)], 2),  # one behind the other
        ([(10, 10, 20, 50), (10, 90, 20, 130)], 2),  # far below
        ([], 0),
    ],
)
def test_parts_of_a_body_are_joined_and_bodies_are_not(parts, count):
    assert len(join_parts(parts)) == count
