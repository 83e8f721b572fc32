import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from mambapro.cli import InputError
from mambapro.contract import MODALITIES
from mambapro.datasets import drop_unreadable, load_triplet, read_dataset

COLOURS = {"rgb": (200, 30, 30), "nir": (30, 200, 30), "tir": (30, 30, 200)}
ENCODED = {}


def write_picture(path: Path, colours: list[tuple[int, int, int]]) -> None:
    """One panel of 8x4 px a colour, R, G, B."""
    key = tuple(colours)
    if key not in ENCODED:
        panels = np.hstack([np.full((8, 4, 3), colour, np.uint8) for colour in colours])
        ENCODED[key] = cv2.imencode(".png", panels[:, :, ::-1])[1].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ENCODED[key])


def write_parts(folder: Path, parts: tuple[str, str, str], name: str) -> None:
    for part, modality in zip(parts, MODALITIES, strict=True):
        write_picture(folder / part / name, [COLOURS[modality]])


def make_rgbnt201(root: Path) -> None:
    for split, identities in (("train_171", (1, 258)), ("test", (3,))):
        for identity in identities:
            for camera in (1, 4):
                name = f"{identity:06d}_cam{camera}_0_00.png"
                write_parts(root / "RGBNT201" / split, ("RGB", "NI", "TI"), name)


def make_rgbnt100(root: Path) -> None:
    for split, identity in (("bounding_box_train", 1), ("query", 2), ("bounding_box_test", 2)):
        for name in (f"{identity:04d}_c1_000.png", f"{identity:04d}_c8_001.png", "-1_c2_000.png"):
            path = root / "RGBNT100" / "rgbir" / split / name
            write_picture(path, [COLOURS[modality] for modality in MODALITIES])


def make_msvr310(root: Path) -> None:
    for split, identity in (("bounding_box_train", 1), ("query3", 2), ("bounding_box_test", 2)):
        for scene, camera in ((12, 0), (130, 7)):
            name = f"{identity:04d}_s{scene:03d}_v{camera}_000.png"
            write_parts(root / "msvr310" / split / f"{identity:04d}", ("vis", "ni", "th"), name)


MAKE = {"rgbnt201": make_rgbnt201, "rgbnt100": make_rgbnt100, "msvr310": make_msvr310}


@pytest.mark.parametrize("layout", MAKE)
def test_modalities_come_in_order_and_as_rgb(tmp_path, layout):
    MAKE[layout](tmp_path)
    triplet = load_triplet(read_dataset(layout, tmp_path).train.records[0])
    assert list(triplet) == list(MODALITIES)
    for modality, picture in triplet.items():
        assert picture.shape == (8, 4, 3)
        assert tuple(picture[0, 0]) == COLOURS[modality]


def test_rgbnt201_names(tmp_path):
    make_rgbnt201(tmp_path)
    dataset = read_dataset("rgbnt201", tmp_path)
    labels = dataset.train.labels()
    assert labels.identity.tolist() == [1, 1, 258, 258]
    assert labels.camera.tolist() == [0, 3, 0, 3]
    assert dataset.train.class_labels() == [0, 0, 1, 1]
    assert dataset.query is dataset.gallery
    assert dataset.query.identities == (3,)


def test_rgbnt100_names_and_junk(tmp_path):
    make_rgbnt100(tmp_path)
    dataset = read_dataset("rgbnt100", tmp_path)
    assert dataset.gallery.labels().identity.tolist() == [2, 2]
    assert dataset.gallery.labels().camera.tolist() == [0, 7]
    assert len(dataset.query) == 2


def test_msvr310_names(tmp_path):
    make_msvr310(tmp_path)
    labels = read_dataset("msvr310", tmp_path).gallery.labels()
    assert labels.identity.tolist() == [2, 2]
    assert labels.scene.tolist() == [12, 130]
    assert labels.camera.tolist() == [0, 7]


@pytest.mark.parametrize("layout", MAKE)
def test_synthetic_data_are_read(tmp_path, layout):
    synthetic = pytest.importorskip("mambapro.synthetic.datasets")
    synthetic.write_dataset(
        layout, tmp_path, identities=(2, 2), images_per_camera=1, cameras=2, size=(32, 16), seed=3
    )
    dataset = read_dataset(layout, tmp_path)
    assert len(dataset.train) == 4
    assert len(dataset.train.identities) == 2
    assert len(set(dataset.train.labels().camera.tolist())) == 2
    assert not set(dataset.train.identities) & set(dataset.gallery.identities)
    assert all(
        picture.shape == (32, 16, 3) for picture in load_triplet(dataset.query.records[0]).values()
    )


@pytest.mark.parametrize("layout", MAKE)
def test_missing_folder_is_named(tmp_path, layout):
    with pytest.raises(InputError, match=r"folder .* is missing; set data.root"):
        read_dataset(layout, tmp_path)


@pytest.mark.parametrize(
    ("layout", "folder"),
    [
        ("rgbnt201", "RGBNT201/test/TI"),
        ("rgbnt100", "RGBNT100/rgbir/query"),
        ("msvr310", "msvr310/query3"),
        ("msvr310", "msvr310/bounding_box_train/0001/th"),
    ],
)
def test_missing_part_is_named(tmp_path, layout, folder):
    MAKE[layout](tmp_path)
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{folder} is missing"):
        read_dataset(layout, tmp_path)


def test_half_empty_folder_tells_counts_and_first_names(tmp_path):
    make_rgbnt201(tmp_path)
    for path in (tmp_path / "RGBNT201/train_171/NI").glob("000258*"):
        path.unlink()
    with pytest.raises(InputError) as caught:
        read_dataset("rgbnt201", tmp_path)
    assert "train_171 is half-empty (RGB 4, NI 2, TI 4 files)" in str(caught.value)
    assert "000258_cam1_0_00.png is not in NI" in str(caught.value)


def test_empty_folder_is_named(tmp_path):
    make_rgbnt100(tmp_path)
    for path in (tmp_path / "RGBNT100/rgbir/query").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="query holds no pictures"):
        read_dataset("rgbnt100", tmp_path)


def test_unexpected_name_is_refused_and_other_files_are_not_seen(tmp_path):
    make_rgbnt100(tmp_path)
    folder = tmp_path / "RGBNT100/rgbir/query"
    (folder / "Thumbs.db").write_bytes(b"")
    read_dataset("rgbnt100", tmp_path)
    write_picture(folder / "holiday.jpg", [COLOURS["rgb"]])
    with pytest.raises(InputError, match=r"unexpected file name .*holiday.jpg"):
        read_dataset("rgbnt100", tmp_path)


def test_panels_must_be_of_equal_width(tmp_path):
    make_rgbnt100(tmp_path)
    record = read_dataset("rgbnt100", tmp_path).train.records[0]
    write_picture(Path(record.paths[0]), [COLOURS["rgb"]])
    with pytest.raises(InputError, match="3 panels of equal width, it is 4 px wide"):
        load_triplet(record)


def test_unreadable_pictures_are_named_counted_and_left_out(tmp_path, caplog):
    make_rgbnt201(tmp_path)
    broken = tmp_path / "RGBNT201/train_171/NI/000001_cam1_0_00.png"
    broken.write_bytes(b"not a picture")
    dataset = read_dataset("rgbnt201", tmp_path)
    kept = drop_unreadable(dataset, max_share=0.2)
    assert "1 of 6 triplets (16.7%) cannot be read" in caplog.text
    assert broken.name in caplog.text
    assert len(kept.train) == 3
    assert kept.query is kept.gallery
    with pytest.raises(InputError, match=r"max_unreadable_share allows 10.0%"):
        drop_unreadable(dataset, max_share=0.1)


def test_sound_dataset_is_kept_as_it_is(tmp_path):
    make_msvr310(tmp_path)
    dataset = read_dataset("msvr310", tmp_path)
    assert drop_unreadable(dataset, max_share=0) is dataset


def test_more_cameras_than_the_model_has_rows(tmp_path):
    make_rgbnt100(tmp_path)
    dataset = read_dataset("rgbnt100", tmp_path)
    dataset.check_cameras(8)
    with pytest.raises(
        InputError, match=r"has 8 cameras \(.*0001_c8_001\.png\), model\.cameras is 4"
    ):
        dataset.check_cameras(4)


def test_records_are_hashable_and_frozen(tmp_path):
    make_rgbnt201(tmp_path)
    record = read_dataset("rgbnt201", tmp_path).train.records[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.camera = 3
    assert record in {record}
