"""What gradient checkpointing saves and costs: ``python benchmarks/checkpointing.py``.

Training steps of the full network on random pixels, each setting in a process of its own: the
highest resident memory of the process in a step, weights, gradients and optimiser included, and the
seconds it takes. ``--record`` writes benchmarks/results/checkpointing.json and the table of
docs/reproduce.md.
"""

# ruff: noqa: E402 (the import path comes first)

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train/main.py

import torch

from benchmarks.readme import markdown, replace_table
from benchmarks.training_step import Setting, training_step
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import write_json
from mambapro.model.clip import VisualTower

RESULT: Final = ROOT / "benchmarks" / "results" / "checkpointing.json"
HEADER: Final = (
    "triplets a batch", "checkpointing", "peak, MB", "step, s",
)  # fmt: skip
STEPS: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and record it if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    if not Path("/proc/self/clear_refs").exists():
        raise InputError("peaks of resident memory are read from /proc, which only Linux has")
    results = [measure_apart(n, on) for n in arguments.triplets for on in (False, True)]
    print(markdown(HEADER, list(table(results))))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "steps": results})
        replace_table(ROOT / "docs" / "reproduce.md", "checkpointing", HEADER, list(table(results)))
    if arguments.json:
        print_json_line({"steps": results})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure gradient checkpointing at full size.")
    parser.add_argument(
        "--triplets", type=int, nargs="+", default=(4, 8), metavar="N",
        help="triplets of a batch, multiples of 4 (default: 4 8)",
    )  # fmt: skip
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/checkpointing.json and docs/reproduce.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def measure_apart(triplets: int, checkpointing: bool) -> dict[str, Any]:
    """Measure in a new process: freed memory does not always return to the system."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, triplets, checkpointing).result()


def measure(triplets: int, checkpointing: bool) -> dict[str, Any]:
    """Return peak memory and the time of a step."""
    VisualTower.checkpointing = checkpointing
    step = training_step(Setting("full network", "rgbnt201.yaml", triplets, STEPS))
    step()  # allocates gradients and the optimiser's state
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = time.perf_counter() - start
    return {
        "triplets": triplets,
        "checkpointing": checkpointing,
        "peak_mb": peak_mb(),
        "step_s": seconds / STEPS,
        "threads": torch.get_num_threads(),
    }


def peak_mb() -> float:
    """Return the highest resident memory of this process since it was last forgotten."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def table(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a line a setting."""
    for r in results:
        yield (
            str(r["triplets"]),
            "on" if r["checkpointing"] else "off",
            f"{r['peak_mb']:.0f}",
            f"{r['step_s']:.1f}",
        )


if __name__ == "__main__":
    sys.exit(run(main))
