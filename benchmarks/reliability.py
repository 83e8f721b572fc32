"""The table of faults in docs/reliability.md, from what the fault tests measured.

``pytest tests`` appends to build/reliability.jsonl; ``python benchmarks/reliability.py`` prints the
table, ``--record`` writes it into the page. A fault that was tried several times shows its worst.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import markdown, replace_table
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.files import in_checkout

RECORDS: Final = in_checkout("build/reliability.jsonl")
PAGE: Final = in_checkout("docs/reliability.md")
FIGURES: Final = {
    "detection_s": "detected after",
    "recovery_s": "recovered after",
    "frames_lost": "frames lost",
    "events_lost": "events lost",
}
HEADER: Final = ("fault", "tries", *FIGURES.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; with ``--record`` write it into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--record", action="store_true", help="write the table into docs/reliability.md"
    )
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    if not RECORDS.exists():
        raise InputError(f"{RECORDS} is not there; run the fault tests first: make test")
    worst = worst_of(json.loads(line) for line in RECORDS.read_text().splitlines())
    rows = [(fault, *shown(figures)) for fault, figures in worst.items()]
    print(markdown(HEADER, rows))
    if arguments.record:
        replace_table(PAGE, "faults", HEADER, rows)
    if arguments.json:
        print_json_line({"faults": worst})
    return EXIT_DONE


def worst_of(lines: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each fault how often it was tried and the worst of each figure."""
    worst: dict[str, dict[str, Any]] = {}
    for line in lines:
        figures = worst.setdefault(line["fault"], {"tries": 0, **dict.fromkeys(FIGURES)})
        figures["tries"] += 1
        for name in FIGURES:
            known = [v for v in (figures[name], line[name]) if v is not None]
            figures[name] = max(known, default=None)
    return worst


def shown(figures: dict[str, Any]) -> list[str]:
    """Return the cells of one row."""
    cells = [str(figures["tries"])]
    for name in FIGURES:
        value = figures[name]
        unit = f"{value:.2f} s" if name.endswith("_s") and value is not None else str(value)
        cells.append("" if value is None else unit)
    return cells


if __name__ == "__main__":
    sys.exit(run(main))
