"""The calibration set: balanced, seeded, written down, and read back from what the stream kept."""

import json

import cv2
import numpy as np
import pytest

from calibration.images import (
    MIN_TRIPLETS,
    SUBSETS,
    Triplet,
    choose,
    from_recorded,
    from_records,
)
from mambapro.cli import InputError
from mambapro.contract import MODALITIES
from mambapro.datasets import read_dataset
from runtime.identity.recording import CropRecorder
from runtime.watching.crops import Sample
from tests.export_samples import write_dataset


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """Two of three views of each identity and camera are dark; identity 0 has most."""
    folder, random = tmp_path_factory.mktemp("triplets"), np.random.default_rng(3)
    found = []
    for identity, count in enumerate((40, 6, 6, 6)):
        for index in range(count):
            paths = []
            for modality in MODALITIES:
                level = 12 if index % 3 else 150
                picture = random.normal(level, 5, (16, 8, 3)).clip(0, 255).astype(np.uint8)
                paths.append(str(folder / f"{identity}_{index}_{modality}.png"))
                cv2.imwrite(paths[-1], picture)
            found.append(Triplet(tuple(paths), MODALITIES, str(identity), camera=index % 2))
    return found


def test_every_kind_has_its_share(triplets):
    balance = choose(triplets, 28, 0, "test").balance()
    assert balance["camera"] == {"0": 14, "1": 14}
    assert balance["light"] == {"day": 14, "night": 14}
    assert set(balance["modalities"].values()) == {4}
    assert len(balance["modalities"]) == len(SUBSETS) == 7
    # the others are used up, though 40 of the 58 triplets are identity 0's
    assert balance["identity"] == {"0": 10, "1": 6, "2": 6, "3": 6}


def test_a_seed_is_a_list(triplets):
    first, again, other = (choose(triplets, 20, seed, "test") for seed in (0, 0, 1))
    assert first == again
    assert first.list_hash == again.list_hash != other.list_hash
    assert len({chosen.triplet for chosen in first.chosen}) == 20


def test_the_hash_follows_files_and_what_is_shown(triplets):
    before = choose(triplets, 20, 0, "test").list_hash
    path = triplets[0].paths[0]
    with open(path, "rb") as file:
        kept = file.read()
    everything = choose(triplets, len(triplets), 0, "test").list_hash
    cv2.imwrite(path, np.full((16, 8, 3), 150, np.uint8))
    changed = choose(triplets, len(triplets), 0, "test").list_hash
    with open(path, "wb") as file:
        file.write(kept)
    assert everything != changed
    assert choose(triplets, 20, 0, "test").list_hash == before


def test_manifest_holds_a_hash_for_every_file(triplets):
    manifest = json.loads(json.dumps(choose(triplets, 20, 0, "somewhere").manifest()))
    assert manifest["source"] == "somewhere"
    assert len(manifest["images"]) == 20
    assert all(len(image["sha256"]) == len(image["files"]) == 3 for image in manifest["images"])


def test_masked_modalities_reach_the_model_as_missing(triplets):
    for chosen in choose(triplets, 21, 0, "test").chosen:
        images, mask, camera = chosen.batch((32, 16))
        assert (images.shape, images.dtype) == ((1, 3, 32, 16, 3), np.uint8)
        assert [m for m, on in zip(MODALITIES, mask[0], strict=True) if on] == list(chosen.shown)
        assert not images[0, mask[0] == 0].any()
        assert camera.tolist() == [chosen.triplet.camera]


def test_too_few_are_refused(triplets):
    with pytest.raises(InputError, match=f"at least {MIN_TRIPLETS} triplets, 128 are wanted and 9"):
        choose(triplets[:9], 128, 0, "test")
    with pytest.raises(InputError, match="3 are wanted"):
        choose(triplets, 3, 0, "test")


def test_panels_are_read_too(tmp_path):
    write_dataset(tmp_path)
    records = read_dataset("rgbnt201", tmp_path).train.records
    (whole,) = from_records(records[:1])
    panels = np.concatenate([cv2.imread(path) for path in whole.paths], axis=1)
    cv2.imwrite(str(tmp_path / "panels.png"), panels)
    joined = Triplet((str(tmp_path / "panels.png"),), MODALITIES, "0", 0)
    for modality in MODALITIES:
        np.testing.assert_array_equal(joined.pictures()[modality], whole.pictures()[modality])


def record(folder, count=20, subject="person", modalities=MODALITIES):
    recorder, random = CropRecorder(folder), np.random.default_rng(0)
    crops = []
    for number in range(count):
        pictures = {m: random.integers(0, 256, (20, 10, 3), np.uint8) for m in modalities}
        crops.append(pictures)
        recorder.write(Sample("gate", number // 4, number / 10, pictures, 1.0), subject, number % 5)
    recorder.close()
    return crops


def test_what_the_stream_recorded_is_read_back(tmp_path):
    crops = record(tmp_path / "crops")
    found = from_recorded(tmp_path / "crops", "person", cameras=4)
    assert [triplet.camera for triplet in found[:5]] == [0, 1, 2, 3, -1]  # the model has 4 rows
    assert {triplet.identity for triplet in found} == {f"gate/{track}" for track in range(5)}
    for triplet, pictures in zip(found, crops, strict=True):
        for modality, picture in triplet.pictures().items():
            np.testing.assert_array_equal(picture, pictures[modality])


def test_a_missing_modality_is_never_shown(tmp_path):
    record(tmp_path / "crops", modalities=("nir", "tir"))
    chosen = choose(from_recorded(tmp_path / "crops", "person", 4), 20, 0, "test").chosen
    assert {c.shown for c in chosen} == {("nir", "tir"), ("nir",), ("tir",)}
    assert all(c.night for c in chosen)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "crops.jsonl").unlink(), "holds no crops.jsonl"),
        (lambda folder: (folder / "crops.jsonl").write_text('{"rig": 1}\n'), "line 1 is damaged"),
        (lambda folder: (folder / "crops.jsonl").write_text("{\n"), "line 1 is damaged"),
        (lambda folder: (folder / "crops.jsonl").write_text(""), "shows no person"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path, damage, message):
    record(tmp_path / "crops")
    damage(tmp_path / "crops")
    with pytest.raises(InputError, match=message):
        from_recorded(tmp_path / "crops", "person", 4)


def test_vehicles_do_not_calibrate_a_model_of_persons(tmp_path):
    record(tmp_path / "crops", subject="vehicle")
    with pytest.raises(InputError, match="shows no person, in 20 triplets"):
        from_recorded(tmp_path / "crops", "person", 4)


def test_a_recording_never_mixes_with_another(tmp_path):
    record(tmp_path / "crops")
    with pytest.raises(InputError, match="not empty"):
        CropRecorder(tmp_path / "crops")
