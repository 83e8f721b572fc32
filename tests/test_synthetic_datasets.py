"""Synthetic datasets on disk: layouts, names, splits, determinism, refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import pytest

from mambapro.cli import InputError
from mambapro.synthetic import write_dataset
from mambapro.synthetic.__main__ import main
from mambapro.synthetic.datasets import appearance_rng
from mambapro.synthetic.output import STAMP
from mambapro.synthetic.people import sample_person

IDENTITIES, CAMERAS, IMAGES = (3, 2), 2, 2
SMALL = {"identities": IDENTITIES, "images_per_camera": IMAGES, "cameras": CAMERAS, "workers": 1}


def write(layout: str, root: Path, seed: int = 0) -> Path:
    size = (32, 16) if layout == "rgbnt201" else (16, 32)
    return write_dataset(layout, root, size=size, seed=seed, **SMALL)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.jpg")):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def test_rgbnt201_layout(tmp_path: Path) -> None:
    folder = write("rgbnt201", tmp_path)
    assert folder == tmp_path / "RGBNT201"
    identities = {}
    for split, count in (("train_171", IDENTITIES[0]), ("test", IDENTITIES[1])):
        found = [names(folder / split / modality) for modality in ("RGB", "NI", "TI")]
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == count * CAMERAS * IMAGES
        identities[split] = {int(name[:6]) for name in found[0]}
        assert len(identities[split]) == count
        assert {int(name.split("_")[1][3]) for name in found[0]} == {1, 2}
    assert not identities["train_171"] & identities["test"]
    picture = cv2.imread(str(next((folder / "test" / "TI").iterdir())))
    assert picture is not None
    assert picture.shape == (32, 16, 3)


def test_rgbnt100_layout(tmp_path: Path) -> None:
    folder = write("rgbnt100", tmp_path) / "rgbir"
    train, query, gallery = (
        names(folder / d) for d in ("bounding_box_train", "query", "bounding_box_test")
    )

    def parse(name: str) -> tuple[int, int]:
        identity, camera = name.split("_")[:2]
        assert camera[0] == "c"
        return int(identity), int(camera[1])

    assert {parse(name)[1] for name in train + query + gallery} == {1, 2}
    assert {parse(name)[0] for name in train} == {1, 2, 3}
    assert {parse(name)[0] for name in query} == {4, 5}
    assert {parse(name)[0] for name in gallery} == {-1, 4, 5}
    assert set(query) < set(gallery)
    picture = cv2.imread(str(folder / "query" / query[0]))
    assert picture is not None
    assert picture.shape == (16, 3 * 32, 3)


def test_msvr310_layout(tmp_path: Path) -> None:
    folder = write("msvr310", tmp_path)
    assert folder == tmp_path / "msvr310"
    found: dict[str, set[str]] = {}
    for split in ("bounding_box_train", "query3", "bounding_box_test"):
        found[split] = set()
        for identity in (folder / split).iterdir():
            per_modality = [names(identity / modality) for modality in ("vis", "ni", "th")]
            assert per_modality[0] == per_modality[1] == per_modality[2] != []
            for name in per_modality[0]:
                assert name[:4] == identity.name
                assert name[5] == "s"
                assert 1 <= int(name[6:9]) <= 3 * CAMERAS
                assert name[10] == "v"
                assert 0 <= int(name[11]) < CAMERAS
            found[split].add(identity.name)
    assert found["bounding_box_train"] == {"0001", "0002", "0003"}
    assert found["query3"] == found["bounding_box_test"] == {"0004", "0005"}


@pytest.mark.parametrize("layout", ["rgbnt201", "msvr310"])
def test_same_seed_same_bytes(layout: str, tmp_path: Path) -> None:
    first, second, other = (
        digest(write(layout, tmp_path / str(i), seed)) for i, seed in enumerate((7, 7, 8))
    )
    assert first == second != other


def test_worker_count_does_not_change_bytes(tmp_path: Path) -> None:
    many = {"identities": (4, 4), "images_per_camera": 4, "cameras": 2, "size": (16, 16)}
    one, two = (write_dataset("rgbnt201", tmp_path / str(n), workers=n, **many) for n in (1, 2))  # type: ignore[arg-type]
    assert digest(one) == digest(two)


def test_splits_and_scenes_never_share_an_appearance() -> None:
    people = {
        split: [sample_person(appearance_rng(split, "person", 0, n)) for n in range(50)]
        for split in ("train", "test", "scene")
    }
    everyone = [person for group in people.values() for person in group]
    assert len(set(everyone)) == len(everyone)


def test_complete_output_is_kept_and_other_settings_are_refused(tmp_path: Path) -> None:
    folder = write("rgbnt201", tmp_path)
    stamp = json.loads((folder / STAMP).read_text())
    assert stamp["identities"] == list(IDENTITIES)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert write("rgbnt201", tmp_path) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    with pytest.raises(InputError, match="seed"):
        write("rgbnt201", tmp_path, seed=1)


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mambapro.synthetic.datasets._save", fail)
    with pytest.raises(OSError, match="disk full"):
        write("rgbnt201", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": 9}, "cameras"),
        ({"identities": (0, 4)}, "identities"),
        ({"size": (4, 4)}, "size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_dataset("rgbnt201", tmp_path, **{**SMALL, **change})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="layout"):
        write_dataset("rgbnt", tmp_path)


def test_command_refuses_a_folder_with_other_contents(tmp_path: Path) -> None:
    (tmp_path / "RGBNT201").mkdir()
    (tmp_path / "RGBNT201" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="something else"):
        main(["--person", str(tmp_path)])
    with pytest.raises(InputError, match="nothing to do"):
        main([])


def test_command_writes_sheet_and_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [
        "--train-identities",
        "1",
        "--test-identities",
        "1",
        "--images-per-camera",
        "1",
        "--cameras",
        "1",
    ]
    data = [
        "--vehicle",
        str(tmp_path),
        "--vehicle-layout",
        "msvr310",
        "--size",
        "16x32",
        "--workers",
        "1",
    ]
    sheet = ["--sheet", str(tmp_path / "sheet.png"), "--rows", "1"]
    assert main([*few, *data, *sheet, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {"sheet", "vehicle"}
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.std() > 30
    assert (tmp_path / "msvr310" / "query3" / "0002").is_dir()
