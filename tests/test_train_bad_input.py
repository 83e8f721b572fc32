"""What training refuses: the error names the file or the setting, before the first step."""

import pytest

from mambapro.cli import run
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE
from tests.training_runs import write_config, write_dataset
from train.main import main


@pytest.fixture
def root(tmp_path):
    write_dataset(tmp_path / "data")
    return tmp_path / "data"


def train(root, *settings: str) -> int:
    config = write_config(root.parent / "tiny.yaml", root)
    changes = [part for setting in settings for part in ("--set", setting)]
    return run(main, ["--config", str(config), "--output", str(root.parent / "run"), *changes])


def refused(root, capsys, *settings: str) -> str:
    """Train, expect exit code 2 and no run's folder, return the one line of error."""
    assert train(root, *settings) == EXIT_BAD_INPUT
    assert not (root.parent / "run").exists()
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_modalities_of_unequal_numbers_of_files(root, capsys):
    gone = sorted((root / "RGBNT201/train_171/TI").iterdir())[3]
    gone.unlink()
    line = refused(root, capsys)
    assert f"{gone.name} is not in TI" in line
    assert "RGB 16, NI 16, TI 15 files" in line


def leave_one(root, identity: str) -> str:
    """Delete all triplets of a training identity but the first; return its file name."""
    first, *others = sorted(p.name for p in (root / "RGBNT201/train_171/RGB").glob(f"{identity}*"))
    for name in others:
        for folder in ("RGB", "NI", "TI"):
            (root / "RGBNT201/train_171" / folder / name).unlink()
    return first


def test_an_identity_with_one_triplet(root, capsys):
    name = leave_one(root, "000002")
    line = refused(root, capsys)
    assert "1 of 4 training identities" in line
    assert name in line
    assert "data.allow_single=true" in line


def test_an_identity_with_one_triplet_can_be_allowed(root):
    leave_one(root, "000002")
    assert train(root, "data.allow_single=true", "train.epochs=1") == EXIT_DONE


def test_a_camera_outside_the_table(root, capsys):
    line = refused(root, capsys, "model.cameras=1")
    assert "cam2" in line
    assert "set model.cameras to at least 2" in line


def test_a_camera_before_the_first(root, capsys):
    for folder in ("RGB", "NI", "TI"):
        path = root / "RGBNT201/test" / folder / "000100_cam1_0_00.png"
        path.rename(path.with_name("000100_cam0_0_00.png"))
    assert "000100_cam0_0_00.png names a camera below the first" in refused(root, capsys)


def test_fewer_identities_than_a_batch_needs(root, capsys):
    line = refused(root, capsys, "train.batch_size=16")
    assert "needs 8 identities, the training split has 4; lower train.batch_size" in line


def test_pretrained_weights_that_are_not_there(root, capsys):
    assert "no weights file" in refused(root, capsys, "train.pretrained=nowhere.pt")
