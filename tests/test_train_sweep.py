"""Sweeps: what is run, what is kept, how it is compared."""

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml

from mambapro import config as configs
from mambapro.cli import InputError, run
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED
from tests.training_runs import write_config, write_dataset
from train.journal import Journal
from train.main import main
from train.sweep import SweepConfig, plan

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_dataset(folder)
    return write_config(folder / "tiny.yaml", folder)


def write_sweep(path: Path, base: Path, **changes) -> Path:
    sweep = {
        "config": str(base),
        "seeds": [1, 2],
        "settings": {"train.epochs": 1},
        "rows": {"plain": {}, "without MA": {"model.ma": False}},
        **changes,
    }
    path.write_text(yaml.safe_dump(sweep))
    return path


def sweep(path: Path, *arguments) -> int:
    command = ["--sweep", path, "--output", path.parent / "out", *arguments]
    return run(main, [str(part) for part in command])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_plan_distinct_runs(path, tmp_path):
    shipped = configs.load(SweepConfig, path)
    runs = list(plan(shipped, [], tmp_path))
    assert len(runs) == len(shipped.rows) * len(shipped.seeds)
    assert len({run.folder for run in runs}) == len({run.config for run in runs}) == len(runs)


def test_ablation_switches_every_part():
    shipped = configs.load(SweepConfig, ROOT / "configs" / "sweeps" / "ablation.yaml")
    models = [run.config.model for run in plan(shipped, [], Path())]
    frozen = {(m.pfa, m.srp, m.ma) for m in models if m.frozen}
    assert len(frozen) == 8


def test_a_sweep_compares_rows_over_seeds(base, tmp_path, capsys):
    path = write_sweep(tmp_path / "sweep.yaml", base)
    assert sweep(path, "--json") == EXIT_DONE
    *lines, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)
    assert list(rows) == ["plain", "without MA"]
    for figures in rows.values():
        values = figures["map"]["values"]
        assert len(values) == 2
        assert figures["map"]["mean"] == pytest.approx(sum(values) / 2)
        assert set(figures["subsets"]) >= {"rgb", "rgb+nir+tir"}
    assert [line.split("  ")[0] for line in lines[:3]] == ["row", "plain", "without MA"]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == rows
    assert "| without MA | 2 |" in (tmp_path / "out" / "comparison.md").read_text()
    config = yaml.safe_load((tmp_path / "out/without_MA/seed2/config.yaml").read_text())
    assert (config["model"]["ma"], config["train"]["seed"]) == (False, 2)


def test_an_interrupted_sweep_goes_on(base, tmp_path, monkeypatch, caplog):
    path = write_sweep(tmp_path / "sweep.yaml", base, seeds=[1], settings={"train.epochs": 2})
    original, calls = Journal.step, []

    def step(self, *arguments):
        calls.append(self.folder.parent.name)
        if len(calls) == 10:  # in the second run: an epoch has three or four steps
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(Journal, "step", step)
    assert sweep(path) == EXIT_INTERRUPTED
    assert calls[-1] == "without_MA"
    done, before = calls.count("plain"), len(calls)
    assert sweep(path) == EXIT_DONE
    assert calls.count("plain") == done
    assert 0 < len(calls) - before < done
    assert sweep(path) == EXIT_DONE  # nothing is left to do


def test_runs_of_other_settings_are_refused(base, tmp_path, capsys):
    path = write_sweep(tmp_path / "sweep.yaml", base, seeds=[1])
    assert sweep(path) == EXIT_DONE
    write_sweep(tmp_path / "sweep.yaml", base, seeds=[1], settings={"train.epochs": 2})
    assert sweep(path) == EXIT_BAD_INPUT
    assert "holds a run of other settings (train.epochs 1 -> 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"x": {"train.epoch": 2}}}, "nearest known key is train.epochs"),
        ({"rows": {}}, "at least one row"),
        ({"rows": {"a b": {}, "a_b": {}}}, "rows need folders of their own"),
        ({"config": "nowhere.yaml"}, "cannot read config"),
        ({"lines": {}}, "unknown key lines"),
    ],
)
def test_bad_sweeps(base, tmp_path, changes, message):
    path = write_sweep(tmp_path / "sweep.yaml", base, **changes)
    with pytest.raises(InputError, match=message):
        main(["--sweep", str(path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [("--config", "x.yaml"), ("--resume",)])
def test_flags_that_a_sweep_does_not_take(base, tmp_path, flag):
    path = write_sweep(tmp_path / "sweep.yaml", base)
    with pytest.raises(InputError, match=f"leave out {flag[0]}"):
        main(["--sweep", str(path), *flag])
