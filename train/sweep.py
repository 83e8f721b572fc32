"""Several runs one after the other, and the table that compares them: ``--sweep FILE``.

A sweep is a YAML file that names a base config and what each row changes::

    config: configs/demo_person.yaml
    seeds: [1, 2, 3]
    settings: {train.epochs: 12}     # for every row
    rows:
      plain: {}
      shared augmentation: {data.shared_augmentation: true}

Each run has a folder of its own, ``<sweep>/<row>/seed<n>``. Started again, a sweep skips the runs
that are finished, resumes the one that was interrupted, and refuses runs of other settings.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mambapro import config as configs
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig
from mambapro.files import in_checkout, write_json, write_text
from mambapro.model.weights import load_checkpoint
from train.distributed import World
from train.engine import LAST
from train.experiment import RESULT, differences, run_experiment

FIGURES: Final = {"map": "mAP", "r1": "R-1", "minp": "mINP", "incomplete_map": "mAP, incomplete"}
"""Keys of metrics.json -> columns of the table, in percent."""

_log = logging.getLogger("train")


@dataclass(frozen=True)
class SweepConfig:
    """Which runs, relative to one base config."""

    config: str
    """YAML of the base run; a relative path starts at the checkout."""
    rows: dict[str, dict[str, Any]]
    """What each row changes: section.key -> value. The first row is what others are compared to."""
    seeds: tuple[int, ...] = (1,)
    """Values of train.seed; each row is run with every one."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What every row changes: section.key -> value."""

    def __post_init__(self) -> None:
        if not self.rows or not self.seeds:
            raise InputError("a sweep needs at least one row and one seed")
        if len({_folder(name) for name in self.rows}) < len(self.rows):
            raise InputError(f"rows need folders of their own, got {', '.join(self.rows)}")


@dataclass(frozen=True)
class Run:
    """One training of a sweep."""

    row: str
    folder: Path
    config: ExperimentConfig


def run_sweep(path: Path, overrides: Sequence[str], output: Path, world: World) -> dict[str, Any]:
    """Finish the sweep of the YAML file ``path``; return its rows' figures.

    ``overrides`` are ``--set`` arguments for every run. Writes comparison.json and comparison.md
    into ``output`` after each run.
    """
    sweep = configs.load(SweepConfig, path)
    runs = list(plan(sweep, overrides, output))  # every config is checked before the first run
    for run in runs:
        refuse_other_settings(run)
    for number, run in enumerate(runs, start=1):
        _log.info("run %d of %d: %s", number, len(runs), run.folder)
        finish(run, world)
        if world.leads:
            write_comparison(output, sweep, runs)
    return compare(sweep, runs)


def plan(sweep: SweepConfig, overrides: Sequence[str], output: Path) -> Iterator[Run]:
    """Yield the runs, rows first to last, seeds within."""
    for row, changes in sweep.rows.items():
        for seed in sweep.seeds:
            values = {**sweep.settings, **changes, "train.seed": seed}
            settings = [f"{key}={json.dumps(value)}" for key, value in values.items()]
            config = configs.load(
                ExperimentConfig, in_checkout(sweep.config), [*settings, *overrides]
            )
            yield Run(row, output / _folder(row) / f"seed{seed}", config)


def refuse_other_settings(run: Run) -> None:
    """Raise InputError when the run's folder holds one of other settings."""
    path = run.folder / "config.yaml"
    if path.is_file():
        changed = differences(configs.load(ExperimentConfig, path), run.config)
        if changed:
            raise InputError(
                f"{run.folder} holds a run of other settings ({', '.join(changed)}); remove it or "
                "choose another --output"
            )


def finish(run: Run, world: World) -> None:
    """Train, go on training, or do nothing, as far as the run has come."""
    if (run.folder / RESULT).is_file():
        return
    last = run.folder / LAST
    resumed = (load_checkpoint(last), str(last)) if last.is_file() else None
    run_experiment(run.config, run.folder, world, resumed)


def compare(sweep: SweepConfig, runs: Sequence[Run]) -> dict[str, Any]:
    """Return mean, deviation and values over seeds of each row's figures, shares from 0 to 1."""
    rows: dict[str, Any] = {}
    for row in sweep.rows:
        paths = [run.folder / RESULT for run in runs if run.row == row]
        results = [json.loads(p.read_text(encoding="utf-8")) for p in paths if p.is_file()]
        if results:
            rows[row] = {key: _spread([result[key] for result in results]) for key in FIGURES}
            rows[row]["subsets"] = {
                name: _spread([result["subsets"][name] for result in results])
                for name in results[0]["subsets"]
            }
            rows[row]["train_seconds"] = _spread([result["train_seconds"] for result in results])
    return rows


def write_comparison(output: Path, sweep: SweepConfig, runs: Sequence[Run]) -> None:
    """Write the figures there are so far, as JSON and as a table."""
    rows = compare(sweep, runs)
    write_json(output / "comparison.json", rows)
    write_text(output / "comparison.md", "\n".join(table(rows, _markdown)) + "\n")


def table(rows: dict[str, Any], line: Callable[[Sequence[str]], str]) -> list[str]:
    """Return the rows' figures in percent, each line made by ``line`` of its cells."""
    header = ["row", "runs", *FIGURES.values(), "training, s"]
    lines = [header] if line is not _markdown else [header, ["---"] * len(header)]
    for row, figures in rows.items():
        cells = [_cell(figures[key], 100) for key in FIGURES]
        seconds = _cell(figures["train_seconds"], 1)
        lines.append([row, str(len(figures["map"]["values"])), *cells, seconds])
    return [line(cells) for cells in lines]


def plain(cells: Sequence[str]) -> str:
    """Return a line of a table for a terminal."""
    first, *others = cells
    return f"{first:<24}" + "".join(f"{cell:>18}" for cell in others)


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(spread: dict[str, Any], scale: float) -> str:
    mean = f"{scale * spread['mean']:.1f}"
    return mean if len(spread["values"]) < 2 else f"{mean} ± {scale * spread['deviation']:.1f}"


def _spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def _folder(row: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", row)
