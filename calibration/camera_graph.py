"""Suggest travel times between rigs: ``python calibration/camera_graph.py events.jsonl``.

Reads who was seen where from the events of a stream that knows no travel times yet, and prints the
setting ``match.graph`` for a look and a copy. docs/camera-graph.md says how it is used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE

DEFAULT_LEAST: Final = 20
KEPT: Final = 0.8
"""The window is the shortest that holds this share: a fifth of the matches may be wrong."""
MARGIN: Final = 0.5
"""It grows by this share of its length on both sides: the rest of the right ones lies there."""
LEAST_S: Final = 0.1
"""Least time between two rigs that do not share a view, s."""

Passage = tuple[str, str]
"""The rig that somebody left, and the one that they entered."""


@dataclass(frozen=True)
class Suggestion:
    """Travel times of one passage."""

    leaves: str
    enters: str
    count: int
    """Times that somebody took it."""
    quantiles_s: tuple[float, float, float]
    """5 %, 50 % and 95 % of the times, s."""
    min_s: float
    """Least time to allow, s."""
    max_s: float
    """Most that is usual, s."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the suggestion as YAML, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    times = passages(event for path in arguments.events for event in read_events(path))
    found = [suggest(pair, gaps) for pair, gaps in times.items() if len(gaps) >= arguments.least]
    few = {pair: len(gaps) for pair, gaps in times.items() if len(gaps) < arguments.least}
    print(as_yaml(found, few, arguments.least))
    if arguments.json:
        graph = [vars(suggestion) for suggestion in found]
        print_json_line({"graph": graph, "too_few": [[*pair, n] for pair, n in few.items()]})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Suggest travel times between rigs from events.")
    parser.add_argument(
        "events", nargs="+", type=Path, metavar="FILE",
        help="events.jsonl of a stream, and its older parts (events.jsonl.1 and so on)",
    )  # fmt: skip
    parser.add_argument(
        "--least", type=int, default=DEFAULT_LEAST, metavar="N",
        help="passages that a suggestion needs, at least 5; fewer are only counted (default: "
        f"{DEFAULT_LEAST})",
    )  # fmt: skip
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.least < 5:
        raise InputError(f"--least must be at least 5, got {arguments.least}")
    return arguments


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the ends of tracks with an identity; InputError names the line that is no event."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read events {path}: {error.strerror}") from error
    ends = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if event["event"] == "track_end" and event["identity"] is not None:
                ends.append({k: event[k] for k in ("identity", "rig", "start_s", "end_s")})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is no event ({error!r})") from error
    return ends


def passages(ends: Iterable[Mapping[str, Any]]) -> dict[Passage, list[float]]:
    """Return by passage how long each took, s: from the end of a track to the start of the next.

    Each of an identity's tracks counts with the next one, if that is at another rig.
    """
    tracks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for end in ends:
        tracks[end["identity"]].append(end)
    times: dict[Passage, list[float]] = defaultdict(list)
    for own in tracks.values():
        own.sort(key=lambda end: float(end["start_s"]))
        for before, after in itertools.pairwise(own):
            if before["rig"] != after["rig"]:
                gap_s = float(after["start_s"]) - float(before["end_s"])
                times[before["rig"], after["rig"]].append(gap_s)
    return dict(sorted(times.items()))


def suggest(passage: Passage, gaps_s: Sequence[float]) -> Suggestion:
    """Return the travel times that ``gaps_s``, some of them of wrong matches, speak for.

    Right matches lie close together and wrong ones anywhere, so the shortest window with KEPT of
    all holds the right ones' bulk (the shorth: Andrews et al., 1972).
    """
    gaps = np.sort(np.asarray(gaps_s, np.float64))
    held = math.ceil(KEPT * len(gaps))
    lengths = gaps[held - 1 :] - gaps[: len(gaps) - held + 1]
    first = int(lengths.argmin())
    low, high = float(gaps[first]), float(gaps[first + held - 1])
    margin = MARGIN * (high - low)
    quantiles = tuple(round(float(q), 1) for q in np.quantile(gaps, (0.05, 0.5, 0.95)))
    # 0 would say that both rigs may see somebody at once: only where they did.
    min_s = max(0.0 if low < 0 else LEAST_S, math.floor(10 * (low - margin)) / 10)
    max_s = max(min_s + 0.1, math.ceil(10 * (high + margin)) / 10)
    return Suggestion(*passage, len(gaps), quantiles, min_s, max_s)  # type: ignore[arg-type]


def as_yaml(
    suggestions: Sequence[Suggestion], few: Mapping[Passage, int], least: int = DEFAULT_LEAST
) -> str:
    """Return the settings, and as comments what they rest on."""
    lines = ["match:", "  graph:" if suggestions else "  graph: []"]
    for found in suggestions:
        low, middle, high = found.quantiles_s
        leaves, enters = json.dumps(found.leaves), json.dumps(found.enters)
        lines += [
            f"    # {found.count} passages: 5 % under {low} s, half under {middle} s, 95 % under "
            f"{high} s",
            f"    - {{leaves: {leaves}, enters: {enters}, min_s: {found.min_s}, "
            f"max_s: {found.max_s}}}",
        ]
    lines += [
        f"  # {leaves} to {enters}: {count} passages, {least} are needed"
        for (leaves, enters), count in few.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main))
