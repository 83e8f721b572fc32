"""Write a table of figures between two markers of README.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mambapro.cli import InputError
from mambapro.environment import environment
from mambapro.files import write_text


def replace_table(
    path: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->`` by a table.

    The device and the versions follow in one line. Raises InputError when the markers are missing.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"{path} has no markers {begin} and {end}")
    block = f"{begin}\n{markdown(header, rows)}\n\n{measured_on()}\n{end}"
    write_text(path, pattern.sub(lambda _: block, text))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured_on() -> str:
    """Return the device and the versions as one sentence."""
    facts = environment()
    versions = facts["versions"]
    return (
        f"Measured on {facts['device']}, Python {facts['python']}, torch {versions.get('torch')}, "
        f"ONNX Runtime {versions.get('onnxruntime')}."
    )
