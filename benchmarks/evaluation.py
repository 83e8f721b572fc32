"""Evaluation and re-ranking beside a straightforward version: ``python benchmarks/evaluation.py``.

Embeddings are random, clustered around identities. Every measurement is a process of its own,
embeddings included in its peak memory; the versions take turns, and the shortest time of each
counts. ``--record`` writes benchmarks/results/evaluation.json and the table of docs/evaluation.md.
"""
# ruff: noqa: E402 (the import path comes first)

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import numpy as np

from benchmarks.readme import markdown, replace_table
from benchmarks.straightforward import evaluate_by_matrix, evaluate_one_by_one, rerank_by_matrix
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.environment import environment
from mambapro.files import write_json
from mambapro.metrics import Floats, Labels, evaluate, evaluate_embeddings
from mambapro.reranking import rerank

RESULT = ROOT / "benchmarks" / "results" / "evaluation.json"
PAGE = ROOT / "docs" / "evaluation.md"

CHANNELS: Final = 1536
PER_IDENTITY: Final = 24
"""Embeddings of an identity, queries and gallery together."""
NOISE: Final = 3.3
"""Deviation around an identity in terms of the deviation between identities."""

LEAST_SPEEDUP: Final = 10.0
MOST_BYTES: Final = 2e9
SAME_MAP: Final = 1e-5
"""Products that are added up in another order may swap two entries of a list."""

Pair = tuple[Floats, Floats]
LabelPair = tuple[Labels, Labels]


def _ours(embeddings: Pair, labels: LabelPair) -> float:
    return evaluate_embeddings(embeddings, *labels, "camera").map


def _one_by_one(embeddings: Pair, labels: LabelPair) -> float:
    return evaluate_one_by_one(*embeddings, labels).map


def _by_matrix(embeddings: Pair, labels: LabelPair) -> float:
    return evaluate_by_matrix(*embeddings, labels).map


def _rerank(embeddings: Pair, labels: LabelPair) -> float:
    return evaluate(rerank(*embeddings), *labels, "camera").map


def _rerank_by_matrix(embeddings: Pair, labels: LabelPair) -> float:
    return evaluate(rerank_by_matrix(*embeddings), *labels, "camera").map


VERSIONS: Final[dict[str, Callable[[Pair, LabelPair], float]]] = {
    "evaluation": _ours,
    "evaluation, a query at a time": _one_by_one,
    "evaluation, by matrix": _by_matrix,
    "re-ranking": _rerank,
    "re-ranking, by matrix": _rerank_by_matrix,
}


@dataclass(frozen=True)
class Setting:
    """Versions that are compared on embeddings of one size; the first is ours."""

    queries: int
    gallery: int
    versions: tuple[str, ...]
    rounds: int


SETTINGS: Final = (
    Setting(
        4000,
        20000,
        ("evaluation", "evaluation, a query at a time", "evaluation, by matrix"),
        rounds=2,
    ),
    Setting(600, 3000, ("re-ranking", "re-ranking, by matrix"), rounds=2),
    Setting(4000, 20000, ("re-ranking",), rounds=1),
)
HEADER: Final = ("what", "queries x gallery", "s", "peak memory, MB", "time over ours", "mAP")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, record it if asked to, return 1 when a bound is missed."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    if arguments.measure:
        print_json_line(measure_here(arguments.measure, arguments.queries, arguments.gallery))
        return EXIT_DONE
    results = [row for setting in SETTINGS for row in compare(setting)]
    print(markdown(HEADER, list(table(results))))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "rows": results})
        replace_table(PAGE, "evaluation", HEADER, list(table(results)))
    if arguments.json:
        print_json_line({"rows": results})
    missed = problems(results)
    for problem in missed:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_CHECK_FAILED if missed else EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure evaluation and re-ranking.")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/evaluation.json and docs/evaluation.md (default: off)",
    )
    parser.add_argument(
        "--measure",
        choices=tuple(VERSIONS),
        help="run one version in this process and print its figures (default: compare all)",
    )
    parser.add_argument(
        "--queries", type=int, default=4000, help="queries of --measure (default: 4000)"
    )
    parser.add_argument(
        "--gallery", type=int, default=20000, help="gallery of --measure (default: 20000)"
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def compare(setting: Setting) -> list[dict[str, Any]]:
    """Return the figures of each version, the least of what the rounds took."""
    rounds = [
        [measure_apart(version, setting) for version in setting.versions]
        for _ in range(setting.rounds)
    ]
    rows = [min(runs, key=lambda run: run["seconds"]) for runs in zip(*rounds, strict=True)]
    return [{**row, "time_over_ours": row["seconds"] / rows[0]["seconds"]} for row in rows]


def measure_apart(version: str, setting: Setting) -> dict[str, Any]:
    """Run one version in a process of its own."""
    command = [sys.executable, __file__, "--measure", version]
    command += ["--queries", str(setting.queries), "--gallery", str(setting.gallery)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def measure_here(version: str, queries: int, gallery: int) -> dict[str, Any]:
    """Return seconds, peak memory of this process, and mAP."""
    embeddings, labels = clustered(queries, gallery)
    started = time.perf_counter()
    value = VERSIONS[version](embeddings, labels)
    return {
        "name": version,
        "queries": queries,
        "gallery": gallery,
        "seconds": time.perf_counter() - started,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "map": value,
    }


def clustered(queries: int, gallery: int) -> tuple[Pair, LabelPair]:
    """Return embeddings scattered around identities, seen by eight cameras."""
    random = np.random.default_rng(0)
    n = queries + gallery
    identity = random.permutation(np.arange(n) // PER_IDENTITY)
    centres = random.standard_normal((n // PER_IDENTITY + 1, CHANNELS), np.float32)
    embeddings = random.standard_normal((n, CHANNELS), np.float32)
    embeddings *= NOISE
    for row, centre in zip(embeddings, identity, strict=True):
        row += centres[centre]
    labels = Labels(identity, random.integers(0, 8, n), np.zeros(n, np.int64))
    parts = np.arange(queries), np.arange(queries, n)
    return (embeddings[:queries], embeddings[queries:]), (
        labels.take(parts[0]),
        labels.take(parts[1]),
    )


def problems(results: Sequence[dict[str, Any]]) -> list[str]:
    """Say which bound is missed."""
    found = []
    ours, loop, matrix, *_ = results
    if loop["time_over_ours"] < LEAST_SPEEDUP:
        found.append(f"evaluation is {loop['time_over_ours']:.1f} times as fast, not 10")
    found += [
        f"{row['name']} takes {row['peak_bytes'] / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}"
        for row in results
        if row["name"] in ("evaluation", "re-ranking") and row["peak_bytes"] > MOST_BYTES
    ]
    if max(abs(row["map"] - ours["map"]) for row in (loop, matrix)) > SAME_MAP:
        found.append("the versions disagree about mAP")
    return found


def table(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each line."""
    for row in results:
        yield (
            row["name"],
            f"{row['queries']} x {row['gallery']}",
            f"{row['seconds']:.3g}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['time_over_ours']:.1f} x",
            f"{100 * row['map']:.3f} %",
        )


if __name__ == "__main__":
    sys.exit(run(main))
