"""Options of training: each resumes to the last bit, and does what it says."""

import json
import signal

import pytest
import torch

from mambapro import config as configs
from mambapro.cli import InputError, run
from mambapro.config import ExperimentConfig, TrainConfig
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED
from mambapro.datasets import read_dataset
from mambapro.model.weights import load_checkpoint
from tests.training_runs import write_config, write_dataset
from train.distributed import World
from train.engine import BEST, LAST, Trainer
from train.experiment import build_trainer, make_deterministic
from train.journal import LOG, METRICS
from train.learner import Learner, amp_type
from train.main import main

CPU = torch.device("cpu")
OPTIONS = {
    "deterministic": ("train.deterministic=true",),
    "bfloat16": ("train.amp_type=bfloat16",),
    "float16": ("train.amp_type=float16",),
    "two batches a step": ("train.accumulate=2", "train.epochs=4"),
    "checkpointing": ("train.checkpointing=true",),
    "centred": ("model.centred=true",),
    "draws": (
        "train.modality_dropout=0.5", "train.unknown_camera=0.5", "data.shared_augmentation=true",
    ),
    "bidirectional": ("model.bidirectional=true",),
}  # fmt: skip
EVERYTHING = [
    setting
    for name in ("deterministic", "float16", "two batches a step", "checkpointing", "draws")
    for setting in OPTIONS[name]
] + ["data.workers=2"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    make_deterministic(False)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    write_dataset(folder)
    return write_config(folder / "tiny.yaml", folder)


def train(config, output, settings, *arguments) -> int:
    changes = [part for setting in settings for part in ("--set", setting)]
    command = ["--config", config, "--output", output, "--device", "cpu", *changes, *arguments]
    return run(main, [str(part) for part in command])


def trainer(config_file, output, *settings) -> Trainer:
    config = configs.load(ExperimentConfig, config_file, settings)
    dataset = read_dataset(config.data.layout, config.data.root)
    return build_trainer(config, dataset, output, World(CPU))


def batches(made: Trainer, count: int) -> list:
    made.learner.start_epoch(1)
    return [batch for batch, _ in zip(made.loader, range(count), strict=False)]


def gradients(made: Trainer) -> dict[str, torch.Tensor]:
    named = made.learner.network.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def losses(folder) -> list[float]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("settings", [*OPTIONS.values(), EVERYTHING], ids=[*OPTIONS, "everything"])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, config_file, settings):
    assert train(config_file, tmp_path / "whole", settings) == EXIT_DONE
    original, calls = Learner.step, []

    def interrupted(self, group):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", interrupted)
        assert train(config_file, tmp_path / "parts", settings) == EXIT_INTERRUPTED
    assert train(config_file, tmp_path / "parts", settings, "--resume") == EXIT_DONE
    whole, parts = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert len(losses(tmp_path / "whole")) == whole.training["progress"]["steps"] > 3
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for checkpoint in (whole, parts):
        del checkpoint.training["progress"]["seconds"]
    state = [
        {**c.training, "network": c.network.state_dict(), "heads": c.heads} for c in (whole, parts)
    ]
    torch.testing.assert_close(state[1], state[0], rtol=0, atol=0)
    best = [
        load_checkpoint(tmp_path / name / BEST).network.state_dict() for name in ("whole", "parts")
    ]
    torch.testing.assert_close(best[1], best[0], rtol=0, atol=0)


def test_a_step_of_two_batches_has_their_mean_gradient(config_file, tmp_path):
    made = trainer(config_file, tmp_path)
    group = batches(made, 2)
    single = []
    for batch in group:
        made.learner.optimiser.zero_grad()
        made.learner.loss(batch).backward()
        single.append(gradients(made))
    made.learner.step(group)
    for name, value in gradients(made).items():
        mean = (single[0][name] + single[1][name]) / 2
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_an_epoch_that_two_batches_do_not_divide(config_file, tmp_path):
    settings = ("train.accumulate=3", "train.epochs=1")
    assert train(config_file, tmp_path / "run", settings) == EXIT_DONE
    assert len(trainer(config_file, tmp_path).sampler.batches()) == 4
    assert len(losses(tmp_path / "run")) == 2


def test_checkpointing_gives_the_same_gradients(config_file, tmp_path):
    found = []
    for on in ("false", "true"):
        made = trainer(config_file, tmp_path, f"train.checkpointing={on}")
        made.learner.step(batches(made, 1))
        found.append(gradients(made))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_mixed_precision_changes_products_and_little_else(config_file, tmp_path, kind):
    exact, mixed = (
        trainer(config_file, tmp_path, f"train.amp_type={name}") for name in ("auto", kind)
    )
    (batch,) = batches(exact, 1)
    batches(mixed, 1)
    difference = abs(exact.learner.loss(batch).item() - mixed.learner.loss(batch).item())
    assert 0 < difference < 0.05
    assert mixed.learner.scaler.is_enabled() == (kind == "float16")
    assert {p.dtype for p in mixed.learner.network.parameters()} == {torch.float32}


def test_type_of_mixed_precision():
    assert amp_type(TrainConfig(), CPU) is None
    assert amp_type(TrainConfig(), torch.device("cuda")) is torch.float16
    assert amp_type(TrainConfig(amp=False, amp_type="bfloat16"), CPU) is None
    assert amp_type(TrainConfig(amp_type="bfloat16"), CPU) is torch.bfloat16


def test_deterministic_mode_is_switched_on_and_off(config_file, tmp_path):
    assert train(config_file, tmp_path / "a", ("train.deterministic=true", "train.epochs=1")) == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert train(config_file, tmp_path / "b", ("train.epochs=1",)) == EXIT_DONE
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_compiled_tower_trains_alike(config_file, tmp_path):
    plain = trainer(config_file, tmp_path, "model.depth=1")
    compiled = trainer(config_file, tmp_path, "model.depth=1", "train.compile=true")
    for made in (plain, compiled):
        made.learner.step(batches(made, 1))
    found = gradients(plain)
    assert list(found) == list(gradients(compiled))
    for name, value in gradients(compiled).items():
        torch.testing.assert_close(value, found[name], rtol=1e-3, atol=1e-5)
    compiled.save()
    assert list(load_checkpoint(tmp_path / LAST).network.state_dict()) == list(
        plain.learner.network.state_dict()
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.accumulate=0", "train.accumulate must be at least 1"),
        ("train.modality_dropout=1.5", "train.modality_dropout must be from 0 to 1"),
        ("data.flip=-1", "data.flip must be from 0 to 1"),
        ("train.amp_type=half", "train.amp_type must be one of auto, float16, bfloat16"),
    ],
)
def test_values_that_are_refused(config_file, setting, message):
    with pytest.raises(InputError, match=message):
        configs.load(ExperimentConfig, config_file, [setting])


def test_the_journal_of_a_run(config_file, tmp_path):
    output = tmp_path / "run"
    assert train(config_file, output, ()) == EXIT_DONE
    lines = [json.loads(line) for line in (output / METRICS).read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    assert {line["epoch"] for line in lines if line["kind"] == "test"} == {2, 3}
    assert all(0 <= line["map"] <= 1 for line in lines if line["kind"] == "test")
    assert (output / LOG).is_file()
    facts = json.loads((output / "environment.json").read_text())
    assert facts["processes"] == 1
    assert facts["torch_threads"] == 1


def test_a_cut_line_of_the_journal_is_dropped(config_file, tmp_path):
    output = tmp_path / "run"
    assert train(config_file, output, ("train.epochs=1",)) == EXIT_DONE
    before = losses(output)
    with open(output / METRICS, "a") as file:
        file.write('{"kind": "train", "st')
    assert train(config_file, output, ("train.epochs=2",), "--resume") == EXIT_DONE
    assert losses(output)[: len(before)] == before


def test_bad_input_has_its_exit_code(config_file, tmp_path):
    assert train(config_file, tmp_path / "run", ("train.epochs=0",)) == EXIT_BAD_INPUT
