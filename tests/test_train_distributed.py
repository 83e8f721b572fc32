"""Two processes on the CPU against one: the same losses and figures; a process that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE, EXIT_INTERRUPTED
from mambapro.model.weights import load_checkpoint
from tests.tolerances import DISTRIBUTED_LOSS
from tests.training_runs import write_config, write_dataset
from train.distributed import World, joined, share_batch_norm
from train.engine import LAST
from train.experiment import RESULT
from train.journal import METRICS

ROOT = Path(__file__).parents[1]
STEPS = 20
SETTINGS = ("train.batch_size=8", "train.epochs=7", "train.eval_every=4", "train.instances=2")
CASES = {
    "one head": ("train.modality_dropout=0.3", "train.unknown_camera=0.3"),
    "shared head, two batches a step": (
        "model.direct=false", "train.accumulate=2", "train.epochs=14",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    write_dataset(folder, train=6, images=6)
    return write_config(folder / "tiny.yaml", folder)


def command(processes: int, config: Path, output: Path, *settings: str) -> list[str]:
    """Return the command line of a training by so many processes."""
    script = ["train/main.py", "--config", str(config), "--output", str(output), "--device", "cpu"]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, *script, *(part for s in (*SETTINGS, *settings) for part in ("--set", s))]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def run(processes: int, config: Path, output: Path, *settings: str, code: int = EXIT_DONE) -> str:
    done = subprocess.run(
        command(processes, config, output, *settings),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def metrics(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_two_processes_equal_one(config_file, tmp_path, settings):
    tables = [run(n, config_file, tmp_path / str(n), *settings) for n in (1, 2)]
    one, two = (metrics(tmp_path / str(n), "train") for n in (1, 2))
    assert len(one) == len(two) >= STEPS
    losses = [[line["loss"] for line in lines[:STEPS]] for lines in (one, two)]
    np.testing.assert_allclose(*losses, rtol=0, atol=DISTRIBUTED_LOSS)
    figures = [[line["map"] for line in metrics(tmp_path / str(n), "test")] for n in (1, 2)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    final = [json.loads((tmp_path / str(n) / RESULT).read_text())["subsets"] for n in (1, 2)]
    assert final[0] == pytest.approx(final[1], abs=1e-3)
    assert len(tables[1].splitlines()) == len(tables[0].splitlines())  # printed once


class Pair:
    """Two trainings that torchrun does not watch, so that each shows what it does by itself."""

    def __init__(self, config: Path, output: Path, port: int, *settings: str):
        self.processes = [
            subprocess.Popen(
                command(1, config, output, *settings), cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                ),
            )
            for rank in range(2)
        ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(path: Path, processes) -> None:
    deadline = time.monotonic() + 240
    while not path.is_file():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(processes) -> list[tuple[int, str]]:
    """Return exit code and stderr of each."""
    try:
        texts = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


def test_a_process_that_dies_ends_the_other(config_file, tmp_path):
    output = tmp_path / "run"
    pair = Pair(config_file, output, free_port(), "train.epochs=1000")
    wait_for(output / LAST, pair.processes)
    pair.processes[1].kill()
    (code, text), _ = end(pair.processes)
    assert code == EXIT_CHECK_FAILED
    (line,) = [x for x in text.splitlines() if x.startswith("error: ")]
    assert "another process of this run has ended" in line
    assert "go on with --resume" in line
    assert load_checkpoint(output / LAST).training["progress"]["epoch"] > 1


def test_a_request_to_end_reaches_both(config_file, tmp_path):
    """As a Ctrl-C under torchrun: one gets the signal first, both stop after the same step."""
    output = tmp_path / "run"
    pair = Pair(config_file, output, free_port(), "train.epochs=1000")
    wait_for(output / LAST, pair.processes)
    pair.processes[1].send_signal(signal.SIGTERM)
    ends = end(pair.processes)
    assert [code for code, _ in ends] == [EXIT_INTERRUPTED] * 2
    assert "interrupted; go on with --resume" in ends[0][1]
    load_checkpoint(output / LAST)


def normalise_halves(rank: int, folder: Path, port: int) -> None:
    """In one of two processes: batch normalisation of half of the rows, saved to ``folder``."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    with joined("cpu") as world:
        results = {}
        for name, norm, x, grad in norm_cases():
            share_batch_norm(norm)
            own = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
            part = x[own].clone().requires_grad_()
            y = norm(part)
            y.backward(grad[own])
            assert part.grad is not None
            results[name] = [y.detach(), part.grad, norm.running_mean, norm.running_var]
        rows = torch.tensor([float(rank)], requires_grad=True)
        gathered = world.gather(rows)
        (gathered * torch.tensor([2.0, 3.0])).sum().backward()
        results["gather"] = [gathered.detach(), rows.grad]
        torch.save(results, folder / f"{rank}.pt")


def norm_cases():
    """Yield (name, batch normalisation, input, gradient of the output)."""
    random = torch.Generator().manual_seed(0)
    for name, norm, shape in (
        ("1d", nn.BatchNorm1d(3), (8, 3)),
        ("2d", nn.BatchNorm2d(3), (4, 3, 5, 2)),
    ):
        nn.init.uniform_(norm.weight, generator=random)
        nn.init.uniform_(norm.bias, generator=random)
        yield name, norm, *(2 + 3 * torch.randn(shape, generator=random) for _ in range(2))


def test_shared_batch_norm_is_that_of_the_whole_batch(tmp_path):
    multiprocessing.spawn(normalise_halves, (tmp_path, free_port()), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, norm, x, grad in norm_cases():
        x.requires_grad_()
        y = norm(x)
        y.backward(grad)
        both = [torch.cat(parts) for parts in zip(*(h[name][:2] for h in halves), strict=True)]
        torch.testing.assert_close(both, [y.detach(), x.grad])
        for half in halves:
            torch.testing.assert_close(half[name][2:], [norm.running_mean, norm.running_var])
    for rank, half in enumerate(halves):
        gathered, gradient = half["gather"]
        assert gathered.tolist() == [0, 1]
        assert gradient.tolist() == [[2.0, 3.0][rank]]


def test_a_world_of_one_changes_nothing():
    world, rows = World(torch.device("cpu")), torch.ones(2, 3)
    assert world.leads
    assert world.gather(rows) is rows
    assert world.any(True)
    assert not world.any(False)
    assert world.leader_first(lambda: 3) == 3
    module = nn.Linear(2, 2)
    assert world.wrap(module) is module
