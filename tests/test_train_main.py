import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambapro import config as configs
from mambapro.cli import run
from mambapro.config import ExperimentConfig
from mambapro.contract import (
    EXIT_BAD_INPUT,
    EXIT_CHECK_FAILED,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
)
from mambapro.model.weights import load_checkpoint
from tests.training_runs import EPOCHS, write_config, write_dataset
from train.engine import BEST, LAST
from train.learner import Learner
from train.main import main

ROOT = Path(__file__).parents[1]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
CONFIGS = ("demo_person", "demo_vehicle", "rgbnt201", "rgbnt100", "msvr310")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """The network is too small for two threads, and runs are compared to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(config, output, *arguments: str) -> int:
    return run(main, ["--config", str(config), "--output", str(output), *arguments])


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory):
    """The dataset's root; tests do not change it."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root)
    return root


@pytest.fixture
def config_file(tmp_path, dataset_root):
    return write_config(tmp_path / "tiny.yaml", dataset_root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, dataset_root):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder / "tiny.yaml", dataset_root)
    assert train(config, folder / "run") == EXIT_DONE
    return folder / "run"


def interrupt_in_step(monkeypatch, number: int) -> None:
    """Send SIGINT while training step ``number`` runs, counted from 1."""
    original, calls = Learner.step, []

    def step(self, batch):
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(Learner, "step", step)


def assert_same_run(folder: Path, other: Path) -> None:
    first, second = load_checkpoint(folder / LAST), load_checkpoint(other / LAST)
    for name in ("epoch_losses", "steps", "best_map", "untrained_map"):
        assert first.training["progress"][name] == second.training["progress"][name], name
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], value, rtol=0, atol=0)


def test_the_centre_is_the_mean_that_the_neck_has_seen(tmp_path, config_file):
    assert train(config_file, tmp_path / "run", "--set", "model.centred=true") == EXIT_DONE
    checkpoint = load_checkpoint(tmp_path / "run" / LAST)
    mean = checkpoint.heads["fused.bottleneck.running_mean"]
    assert mean.abs().max() > 0
    torch.testing.assert_close(checkpoint.network.centre, mean, rtol=0, atol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_config_loads(name):
    config = configs.load(ExperimentConfig, ROOT / "configs" / f"{name}.yaml")
    assert (config.data.synthetic is not None) == name.startswith("demo_")


@pytest.mark.parametrize(
    ("name", "size", "epochs", "warmup", "batch", "instances", "direct"),
    [
        ("rgbnt201", (256, 128), 60, 10, 64, 4, True),
        ("rgbnt100", (128, 256), 30, 5, 128, 16, False),
        ("msvr310", (128, 256), 60, 10, 64, 4, False),
    ],
)
def test_configs_of_the_paper(name, size, epochs, warmup, batch, instances, direct):
    config = configs.load(ExperimentConfig, ROOT / "configs" / f"{name}.yaml")
    assert (config.model.image_size, config.model.direct) == (size, direct)
    assert (config.train.epochs, config.train.warmup_epochs) == (epochs, warmup)
    assert (config.train.batch_size, config.train.instances) == (batch, instances)
    assert config.model.frozen
    assert config.data.layout == name


def test_a_run_from_the_command_line(tmp_path, config_file):
    output = tmp_path / "run"
    command = [sys.executable, "train/main.py", "--config", config_file, "--output", output]
    done = subprocess.run(
        [*command, "--json", "--device", "cpu"],
        cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == EXIT_DONE, done.stderr
    *lines, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result.keys() >= {
        "map", "r1", "r5", "r10", "minp", "subsets", "untrained_map", "seconds",
        "incomplete_map", "unknown_camera_map",
    }  # fmt: skip
    assert set(result["subsets"]) == {
        "rgb", "nir", "tir", "rgb+nir", "rgb+tir", "nir+tir", "rgb+nir+tir",
    }  # fmt: skip
    assert result["subsets"]["rgb+nir+tir"] == result["map"]
    assert len([line for line in lines if "+" in line or line[:3] in ("rgb", "nir", "tir")]) == 8
    assert json.loads((output / "metrics.json").read_text()) == result
    assert "loss=" in done.stderr
    assert any((output / "tensorboard").iterdir())
    assert "versions" in json.loads((output / "environment.json").read_text())
    config = configs.load(ExperimentConfig, output / "config.yaml")
    assert config == load_checkpoint(output / BEST).config


def test_settings_can_be_changed(tmp_path, config_file):
    assert train(config_file, tmp_path / "run", "--set", "train.epochs=1") == EXIT_DONE
    assert load_checkpoint(tmp_path / "run" / LAST).config.train.epochs == 1


def test_synthetic_data_are_made_when_absent(tmp_path, config_file, caplog):
    root = tmp_path / "made"
    settings = "{train_identities: 3, test_identities: 2, cameras: 2, images_per_camera: 1}"
    arguments = ("--set", f"data.root={root}", "--set", f"data.synthetic={settings}")
    with caplog.at_level("INFO"):
        assert train(config_file, tmp_path / "run", *arguments) == EXIT_DONE
    assert f"no rgbnt201 data in {root}: rendering 3 training and 2 test" in caplog.text
    assert len(list((root / "RGBNT201" / "test" / "TI").iterdir())) == 4


def test_worker_processes_change_nothing(tmp_path, config_file, finished):
    settings = ("--set", "data.cache_mb=0", "--set", "data.workers=2")
    assert train(config_file, tmp_path / "run", *settings) == EXIT_DONE
    assert_same_run(tmp_path / "run", finished)


# The first epoch's first, a later epoch's first, the last of all; an epoch has 3 or 4 batches.
@pytest.mark.parametrize("number", [1, 3, 5, 6])
def test_resumed_run_equals_the_uninterrupted(
    tmp_path,
    monkeypatch,
    config_file,
    finished,
    number,
):
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, number)
        assert train(config_file, tmp_path / "run") == EXIT_INTERRUPTED
    saved = load_checkpoint(tmp_path / "run" / LAST).training["progress"]
    assert saved["steps"] == number
    assert saved["epoch"] <= EPOCHS
    assert train(config_file, tmp_path / "run", "--resume") == EXIT_DONE
    assert_same_run(tmp_path / "run", finished)


def test_a_finished_run_can_be_resumed_and_stays(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "run")
    assert run(main, ["--resume", str(tmp_path / "run" / LAST)]) == EXIT_DONE
    assert_same_run(tmp_path / "run", finished)


def test_resume_with_other_settings_is_announced(tmp_path, finished, caplog):
    shutil.copytree(finished, tmp_path / "run")
    arguments = ["--resume", str(tmp_path / "run" / LAST), "--set", "train.epochs=4"]
    assert run(main, arguments) == EXIT_DONE
    assert "train.epochs 3 -> 4" in caplog.text
    progress = load_checkpoint(tmp_path / "run" / LAST).training["progress"]
    assert len(progress["epoch_losses"]) == 4


def refused(capsys, code, *arguments) -> str:
    """Run and return the one line of error."""
    assert run(main, [str(a) for a in arguments]) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_resume_of_another_architecture(capsys, finished):
    line = refused(
        capsys, EXIT_BAD_INPUT, "--resume", finished / LAST, "--set", "model.output_dim=24"
    )
    assert "another architecture: model.output_dim 16 -> 24" in line


def test_resume_with_other_identities(tmp_path, capsys, finished):
    write_dataset(tmp_path / "other", train=5)
    shutil.copytree(finished, tmp_path / "run")
    arguments = ("--resume", tmp_path / "run" / LAST, "--set", f"data.root={tmp_path / 'other'}")
    assert "was trained on 4 identities, the data have 5" in refused(
        capsys, EXIT_BAD_INPUT, *arguments
    )


def test_resume_from_a_checkpoint_without_training_state(capsys, finished):
    line = refused(capsys, EXIT_BAD_INPUT, "--resume", finished / BEST)
    assert "holds no training state" in line


def test_resume_from_nothing(tmp_path, capsys):
    line = refused(capsys, EXIT_BAD_INPUT, "--resume", tmp_path / "none.pt")
    assert "none.pt" in line


def test_resume_elsewhere(tmp_path, capsys, finished):
    line = refused(capsys, EXIT_BAD_INPUT, "--resume", finished / LAST, "--output", tmp_path)
    assert "leave out --output" in line


def test_missing_data(tmp_path, capsys, config_file):
    arguments = ("--config", config_file, "--set", f"data.root={tmp_path / 'nowhere'}")
    assert "nowhere" in refused(capsys, EXIT_BAD_INPUT, *arguments)


def test_unreadable_pictures_stop_training(tmp_path, capsys, config_file):
    write_dataset(tmp_path / "data")
    broken = next((tmp_path / "data/RGBNT201/train_171/TI").iterdir())
    broken.write_bytes(b"")
    arguments = ("--config", config_file, "--set", f"data.root={tmp_path / 'data'}")
    line = refused(capsys, EXIT_BAD_INPUT, *arguments)
    assert broken.name in line
    assert "1 of 28 triplets" in line


def test_cuda_that_is_not_there(capsys, config_file):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    line = refused(capsys, EXIT_MISSING, "--config", config_file, "--device", "cuda")
    assert "finds no CUDA device" in line


def test_loss_that_is_not_finite(tmp_path, capsys, config_file):
    arguments = ("--config", config_file, "--output", tmp_path, "--set", "train.lr=1e30")
    assert "lower train.lr" in refused(capsys, EXIT_CHECK_FAILED, *arguments)


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path, finished):
    """A limit on file size stands in for the full disk; a process cannot lift it again."""
    shutil.copytree(finished, tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (LAST, BEST)}
    script = (
        "import resource, sys; from mambapro.cli import run; from train.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)); "
        "sys.exit(run(main, sys.argv[1:]))"
    )
    arguments = ["--resume", str(tmp_path / "run" / LAST), "--set", "train.epochs=4"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == EXIT_BAD_INPUT, done.stderr
    assert "is the disk full?" in done.stderr
    after = {name: (tmp_path / "run" / name).read_bytes() for name in (LAST, BEST)}
    assert after == before
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
