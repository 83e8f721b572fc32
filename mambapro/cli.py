"""What all commands share: errors with exit codes, logging to stderr, the last JSON line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mambapro.contract import (
    EXIT_BAD_INPUT,
    EXIT_CHECK_FAILED,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
)


class CommandError(Exception):
    """An error a user can act on: one line says what was given, what is legal, what to do."""

    exit_code = EXIT_BAD_INPUT


class InputError(CommandError):
    """Bad input or usage (exit code 2)."""

    exit_code = EXIT_BAD_INPUT


class NotThereError(InputError):
    """Nothing is called what was named (exit code 2)."""


class CheckError(CommandError):
    """A check that the command exists for did not hold (exit code 1)."""

    exit_code = EXIT_CHECK_FAILED


class MissingError(CommandError):
    """A device or library that the command needs is not there (exit code 3)."""

    exit_code = EXIT_MISSING


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags every command has: ``--json`` and ``--verbose``."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as one JSON object on the last line of stdout (default: off)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="log debug messages to stderr (default: off)"
    )


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag of every command that reads settings: ``--set``, a list of overrides."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting; may be given again (default: none)",
    )


def start_logging(verbose: bool) -> None:
    """Send log records to stderr, so that stdout holds results only."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    for noisy in ("matplotlib", "PIL", "onnxscript", "onnx_ir", "torch.onnx", "libav", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def print_json_line(result: dict[str, Any]) -> None:
    """Print ``result`` as one line of JSON on stdout; NaN is refused rather than printed."""
    print(json.dumps(result, allow_nan=False, sort_keys=True), flush=True)


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main`` and turn the errors a user can cause into one line on stderr and an exit code.

    ``CommandError`` gives its own exit code; ``OSError`` (a full disk, a folder that cannot be
    written) gives 2; an interrupt gives 130. Anything else is our own bug and keeps its traceback.
    """
    try:
        return main(argv)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
