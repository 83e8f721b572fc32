"""Registration by points, its checks and files; the oracle is what the points were made by."""

import json
import shutil

import cv2
import numpy as np
import pytest
import yaml

from calibration import registration
from calibration.registering import points
from calibration.registering.estimate import Estimate
from calibration.registering.judging import Limits, check, check_shape
from calibration.registering.parallax import Mounting, focal_px
from calibration.registering.points import Pairs, read_pairs
from calibration.registering.rigs_file import read_rigs, write_homographies
from mambapro.cli import CheckError, InputError, run
from runtime.config import load_rigs
from tests.registration_scenes import HOMOGRAPHY, SIZE, placed

NOISE_PX = 0.5


def pairs(count=16, noise=NOISE_PX, seed=0, homography=HOMOGRAPHY):
    rng = np.random.default_rng(seed)
    ours = rng.uniform([20, 20], [580, 300], (count, 2))
    return Pairs(ours, placed(homography, ours) + rng.normal(0, noise, ours.shape))


def true_error(estimate):
    where = np.stack(np.meshgrid(np.linspace(20, 580, 9), np.linspace(20, 300, 7)), -1)
    where = where.reshape(-1, 2)
    gaps = placed(estimate.homography, where) - placed(HOMOGRAPHY, where)
    return float(np.sqrt((gaps**2).sum(axis=1).mean()))


@pytest.mark.parametrize("seed", range(8))
def test_noisy_points_with_mistakes_are_within_a_pixel(seed):
    given = pairs(seed=seed)
    given.other[:3] += [[60, -20], [-45, 30], [0, 90]]
    estimate = points.register("nir", given, SIZE, SIZE)
    assert true_error(estimate) < 1.0
    assert estimate.used == "13 of 16 points"
    check("nir", estimate, Limits())


def test_told_errors_are_of_the_size_of_the_true_ones():
    estimates = [points.register("nir", pairs(seed=k), SIZE, SIZE) for k in range(40)]
    told = np.mean([e.error_px for e in estimates])
    true = np.mean([true_error(e) for e in estimates])
    assert 0.7 < told / true < 3.0  # the told one is a 95th percentile over the picture
    assert np.median([e.residual_px for e in estimates]) == pytest.approx(
        np.sqrt(2) * NOISE_PX, rel=0.5
    )


def test_too_few_points_are_refused():
    with pytest.raises(CheckError, match="5 points, at least 6"):
        points.register("nir", pairs(5), SIZE, SIZE)


def test_points_on_a_line_are_refused():
    ours = np.linspace([20, 40], [560, 200], 12) + np.random.default_rng(0).normal(0, 0.3, (12, 2))
    with pytest.raises(CheckError, match="on a line"):
        points.register("nir", Pairs(ours, placed(HOMOGRAPHY, ours)), SIZE, SIZE)


def test_points_that_agree_on_nothing_are_refused():
    rng = np.random.default_rng(0)
    chaos = Pairs(rng.uniform(20, 300, (14, 2)), rng.uniform(20, 300, (14, 2)))
    with pytest.raises(CheckError, match="agree"):
        points.register("nir", chaos, SIZE, SIZE)


def test_points_outside_of_the_picture_are_bad_input():
    given = pairs()
    given.other[4] = [900, 20]
    with pytest.raises(InputError, match=r"\(900, 20\) lies outside of the nir picture"):
        points.register("nir", given, SIZE, SIZE)


def test_clustered_points_are_refused():
    ours = np.random.default_rng(0).uniform([100, 100], [160, 150], (16, 2))
    noisy = placed(HOMOGRAPHY, ours) + np.random.default_rng(1).normal(0, 0.3, ours.shape)
    estimate = points.register("nir", Pairs(ours, noisy), SIZE, SIZE)
    with pytest.raises(CheckError, match="the evidence spans"):
        check("nir", estimate, Limits())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[-1, 0, 639], [0, 1, 0], [0, 0, 1]], "mirrors"),
        ([[1, 0, 0], [0, 1, 0], [-0.004, 0, 1]], "folds"),
        ([[1, 0, 520], [0, 1, 0], [0, 0, 1]], "sees 1[0-9] %"),
        ([[1, 0, 0], [1, 0, 0], [0, 0, 1]], "singular"),
        ([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "singular"),
    ],
)
def test_what_two_cameras_cannot_have_is_refused(matrix, message):
    with pytest.raises(CheckError, match=message):
        check_shape("tir", np.array(matrix, float), SIZE, SIZE, 0.3)


def test_residual_and_error_have_limits():
    hull = np.array([[0, 0], [600, 0], [600, 300], [0, 300]], float)

    def estimate(residual, error):
        return Estimate(np.eye(3), "points", residual, error, error, hull, (SIZE, SIZE), "")

    check("nir", estimate(1.9, 2.9), Limits())
    with pytest.raises(CheckError, match=r"residual is 2.50 px, at most 2.00"):
        check("nir", estimate(2.5, 0.5), Limits())
    with pytest.raises(CheckError, match=r"3.50 px, at most 3.00"):
        check("nir", estimate(0.5, 3.5), Limits())
    with pytest.raises(CheckError):
        check("nir", estimate(float("nan"), 0.5), Limits())


# --- files ---------------------------------------------------------------------------------------
def test_csv_and_yaml_say_the_same(tmp_path):
    (tmp_path / "p.csv").write_text(
        "camera, reference_x, reference_y, x, y\nnir, 1, 2, 3, 4\ntir, 5, 6, 7, 8.5\n"
    )
    (tmp_path / "p.yaml").write_text("nir:\n  - [1, 2, 3, 4]\ntir:\n  - [5, 6, 7, 8.5]\n")
    for name in ("p.csv", "p.yaml"):
        read = read_pairs(tmp_path / name)
        assert read["nir"].reference.tolist() == [[1, 2]]
        assert read["tir"].other.tolist() == [[7, 8.5]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "camera,x,y\nnir,1,2\n", "no column reference_x, reference_y"),
        ("p.csv", "camera,reference_x,reference_y,x,y\nnir,1,2,3\n", "row 1: four finite"),
        ("p.csv", "camera,reference_x,reference_y,x,y\nnir,1,2,3,nan\n", "row 1: four finite"),
        ("p.csv", "camera,reference_x,reference_y,x,y\nuv,1,2,3,4\n", "camera must be one of"),
        ("p.csv", "camera,reference_x,reference_y,x,y\n", "holds no points"),
        ("p.yaml", "nir: [1, 2, 3, 4]", "row 1: four finite"),
        ("p.yaml", "- 1", "must map cameras"),
        ("p.yaml", "nir: [[1, 2", "is not YAML"),
        ("none.csv", None, "cannot read points"),
    ],
)
def test_damaged_points_say_where(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_pairs(tmp_path / name)


RIGS = """\
# my site
rigs:
  - name: yard
    cameras: {rgb: {uri: a.mp4}, nir: {uri: b.mp4}}   # no homography yet
  - name: gate     # the second
    reference: rgb
    camera: 0
    cameras:
      rgb:
        uri: rtsp://user:password@192.0.2.10/stream1
      nir:
        uri: b.mp4
        homography:
        - [1.0, 0.0, 12.0]    # measured in May
        - [0.0, 1.0, -3.0]
        - [0.0, 0.0, 1.0]

        offset_s: 0.08        # a guess
      tir:
        uri: v4l2:///dev/video0"""


@pytest.mark.parametrize("end", ["", "\n", "\n# the end\n", "  # c\n\n"])
def test_writing_changes_homographies_and_nothing_else(tmp_path, end):
    path = tmp_path / "rigs.yaml"
    path.write_text(RIGS + end)
    before = yaml.safe_load(RIGS)
    write_homographies(path, "gate", {"nir": 2 * HOMOGRAPHY, "tir": HOMOGRAPHY})
    write_homographies(path, "yard", {"nir": HOMOGRAPHY})
    after = yaml.safe_load(path.read_text())
    for rig, camera in ((1, "nir"), (1, "tir"), (0, "nir")):
        written = after["rigs"][rig]["cameras"][camera].pop("homography")
        np.testing.assert_allclose(written, HOMOGRAPHY, rtol=1e-9)
        before["rigs"][rig]["cameras"][camera].pop("homography", None)
    assert after == before
    for comment in ("# my site", "# no homography yet", "# the second", "# a guess"):
        assert comment in path.read_text()
    assert [rig.name for rig in load_rigs(path)] == ["yard", "gate"]  # the runtime reads it


def test_anchors_survive_by_value(tmp_path):
    path = tmp_path / "rigs.yaml"
    path.write_text(
        "h: &h [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\nrigs:\n- name: a\n  cameras:\n    rgb: {uri: a}\n"
        "    nir: {uri: b, homography: *h}\n    tir: {uri: c, homography: *h}\n"
    )
    write_homographies(path, "a", {"nir": HOMOGRAPHY})
    cameras = yaml.safe_load(path.read_text())["rigs"][0]["cameras"]
    np.testing.assert_allclose(cameras["nir"]["homography"], HOMOGRAPHY, rtol=1e-9)
    assert cameras["tir"]["homography"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "text", ["", "rigs: 5", "rigs: [{name: a}]", "rigs: [{name: a, cameras: {uv: {uri: x}}}]"]
)
def test_what_is_no_rigs_file_is_bad_input(tmp_path, text):
    (tmp_path / "rigs.yaml").write_text(text)
    with pytest.raises(InputError):
        read_rigs(tmp_path / "rigs.yaml")


# --- parallax ------------------------------------------------------------------------------------
def test_parallax_is_what_two_pinhole_cameras_show():
    focal, baseline, plane = focal_px(640, 60), 0.12, 10.0
    mounting = Mounting(baseline, plane, focal)
    for depth in (4.0, 9.0, 25.0):
        ours = focal * 1.0 / depth  # a point 1 m to the right
        theirs = focal * (1.0 - baseline) / depth
        at_plane = ours - focal * baseline / plane  # the homography of the plane is this shift
        assert mounting.error_px(depth) == pytest.approx(abs(theirs - at_plane))
    near, far = mounting.reach_m(3.0)
    assert mounting.error_px(near) == pytest.approx(3.0)
    assert mounting.error_px(far) == pytest.approx(3.0)
    assert Mounting(0.02, plane, focal).reach_m(3.0)[1] == float("inf")
    assert [depth for depth, _ in Mounting(baseline, 1.0, focal).table()] == [2, 3, 6, 11]


# --- the command ---------------------------------------------------------------------------------
@pytest.fixture
def site(tmp_path):
    for camera in ("rgb", "nir"):
        (tmp_path / camera).mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / camera / "0.png"), noise)
    (tmp_path / "rigs.yaml").write_text(
        "rigs:\n- name: gate\n  cameras:\n    rgb: {uri: rgb}\n    nir: {uri: nir}  # mine\n"
    )
    given = pairs()
    rows = [
        f"nir,{a:.2f},{b:.2f},{c:.2f},{d:.2f}"
        for (a, b), (c, d) in zip(given.reference, given.other, strict=True)
    ]
    header = "camera,reference_x,reference_y,x,y"
    (tmp_path / "points.csv").write_text("\n".join([header, *rows]))
    return tmp_path


def command(site, *more):
    return run(
        registration.main,
        ["--rigs", str(site / "rigs.yaml"), "--output", str(site / "out"), "--json", *more],
    )


def test_command_writes_file_picture_and_report(site, capsys):
    more = ("--baseline", "nir=0.12", "--distance", "10", "--fov", "60")
    assert command(site, "--points", str(site / "points.csv"), *more) == 0
    out = capsys.readouterr().out
    assert "parallax (0.12 m apart, registered at 10 m): 5 m" in out
    last = json.loads(out.splitlines()[-1])
    assert last["passed"]
    assert last["rigs"]["gate"]["written"]
    assert last["rigs"]["gate"]["cameras"]["nir"]["residual_px"] < 1.5
    (rig,) = load_rigs(site / "rigs.yaml")
    written = np.array(rig.cameras["nir"].homography)
    where = np.array([[100.0, 100], [500, 250]])
    assert np.abs(placed(written, where) - placed(HOMOGRAPHY, where)).max() < 1.5
    assert "# mine" in (site / "rigs.yaml").read_text()
    assert (site / "out" / "gate.png").stat().st_size > 1000
    assert json.loads((site / "out" / "report.json").read_text()) == last


def test_command_refuses_and_writes_nothing(site, capsys):
    before = (site / "rigs.yaml").read_text()
    rows = (site / "points.csv").read_text().splitlines()
    (site / "points.csv").write_text("\n".join(rows[:5]))
    assert command(site, "--points", str(site / "points.csv")) == 1
    assert "4 points, at least 6 are needed" in capsys.readouterr().err
    assert (site / "rigs.yaml").read_text() == before


def test_dry_run_writes_nothing(site):
    before = (site / "rigs.yaml").read_text()
    assert command(site, "--points", str(site / "points.csv"), "--dry-run") == 0
    assert (site / "rigs.yaml").read_text() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rig", "moon"], "has no rig moon; it has gate"),
        (["--clip", "tir=a.mp4"], "has the cameras rgb, nir"),
        (["--clip", "nir"], "--clip takes CAMERA=VALUE"),
        (["--board", "9"], "inner corners as COLUMNSxROWS"),
        (["--clip", "nir=none.mp4"], "there is no none.mp4"),
        (["--clip", "nir=gst:videotestsrc"], "record a clip"),
        (["--seconds", "0"], "--seconds must be over 0"),
    ],
)
def test_bad_usage_is_told(site, capsys, more, message):
    if "--board" not in more:
        more = [*more, "--points", str(site / "points.csv")]
    assert command(site, *more) == 2
    assert message in capsys.readouterr().err


def test_a_single_picture_says_nothing_about_motion(site, capsys):
    assert command(site) == 2
    assert "camera rgb: too few pictures" in capsys.readouterr().err


def test_a_damaged_clip_is_told_without_its_address(site, capsys):
    (site / "nir.mp4").write_bytes(b"no video")
    shutil.rmtree(site / "nir")
    with_points = ("--points", str(site / "points.csv"))
    assert command(site, "--clip", f"nir={site / 'nir.mp4'}", *with_points) == 2
    assert "camera nir: its pictures cannot be read" in capsys.readouterr().err
    assert command(site, "--clip", "nir=http://user:secret@127.0.0.1:9/x", *with_points) == 2
    assert "secret" not in capsys.readouterr().err
