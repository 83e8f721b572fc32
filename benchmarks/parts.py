"""What each part of the full network costs: ``python benchmarks/parts.py``.

The table of train/accounting.py, of one dataset's network. ``--record`` writes
benchmarks/results/parts.json and the table of docs/reproduce.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import markdown, replace_table
from mambapro import config as configs
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from train.accounting import DEFAULT_CONFIG, HEADER, account, result, table

RESULT: Final = in_checkout("benchmarks/results/parts.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print the table, and record it if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    parts = account(configs.load(ExperimentConfig, DEFAULT_CONFIG).model)
    rows = list(table(parts))
    print(markdown(HEADER, rows))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "parts": result(parts)})
        replace_table(in_checkout("docs/reproduce.md"), "parts", HEADER, rows)
    if arguments.json:
        print_json_line(result(parts))
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Count what each part of the network costs.")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/parts.json and docs/reproduce.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
