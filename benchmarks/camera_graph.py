"""What travel times between rigs are worth: ``python benchmarks/camera_graph.py``.

Runs the stream on scenes that nothing was tuned on, without and with ``match.graph``. The travel
times of a scene are those that ``calibration/camera_graph.py`` suggests from the events of the
others. ``--record`` writes benchmarks/results/camera_graph.json and the table of
docs/camera-graph.md.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import replace_table
from benchmarks.scenes import KINDS, parse, pool, shown, watch
from calibration.camera_graph import Passage, passages, read_events, suggest
from mambapro.cli import print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json

RESULT: Final = in_checkout("benchmarks/results/camera_graph.json")
LEAST: Final = 10
"""Passages that travel times are taken from: three minutes of footage hold no more."""
HEADER: Final = ("travel times", *KINDS.values(), "vetoes that changed a decision")


def main(argv: Sequence[str] | None = None) -> int:
    """Run every scene twice; print one table."""
    arguments = parse(
        argv,
        "Run the stream without and with travel times.",
        "benchmarks/results/camera_graph.json and the table of docs/camera-graph.md",
    )
    start_logging(arguments.verbose)
    folder: Path = arguments.folder
    without = {seed: watched(seed, folder, "without") for seed in arguments.seeds}
    graphs = {seed: learnt(folder, [s for s in arguments.seeds if s != seed]) for seed in without}
    known = {
        seed: watched(seed, folder, "with", f"match.graph={json.dumps(graph)}")
        for seed, graph in graphs.items()
    }
    rows = [
        (name, *(shown(pool(list(reports.values()))[kind]) for kind in KINDS),
         str(sum(vetoes(folder / f"{output}{seed}") for seed in reports)))
        for name, output, reports in (("none", "without", without), ("learnt", "with", known))
    ]  # fmt: skip
    for row in (HEADER, *rows):
        print("  ".join(c.rjust(max(8, len(n))) for n, c in zip(HEADER, row, strict=True)))
    result = {
        "graphs": {str(seed): graph for seed, graph in graphs.items()},
        "without": pool(list(without.values())),
        "with": pool(list(known.values())),
        "vetoes": sum(vetoes(folder / f"with{seed}") for seed in known),
    }
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(in_checkout("docs/camera-graph.md"), "graph", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def watched(seed: int, folder: Path, name: str, *settings: str) -> dict[str, Any]:
    """Return the report of the scene ``seed``, of an earlier run if there is one."""
    report = folder / f"{name}{seed}" / "report.json"
    if not report.is_file():
        return watch(seed, folder, name, *settings)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def learnt(folder: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the setting ``match.graph`` that the events of these scenes speak for."""
    times: dict[Passage, list[float]] = defaultdict(list)
    for seed in seeds:
        for passage, gaps in passages(read_events(folder / f"without{seed}/events.jsonl")).items():
            times[passage] += gaps
    found = [suggest(passage, gaps) for passage, gaps in times.items() if len(gaps) >= LEAST]
    return [
        {"leaves": s.leaves, "enters": s.enters, "min_s": s.min_s, "max_s": s.max_s} for s in found
    ]


def vetoes(output: Path) -> int:
    """Return how many sightings a veto gave another identity."""
    lines = (output / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line).get("veto") is not None for line in lines)


if __name__ == "__main__":
    sys.exit(run(main))
