"""The commands that a document tells people to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = re.compile(
    r"(?:python3? |/python |\S+:\w+ \\?\n? *)(-m (?:mambapro|train|runtime)[\w.]*|\w+/\w+\.py)(.*)"
)


def shell_lines(text: str) -> list[str]:
    """Return the lines of the fenced shell blocks of a document, continued ones joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def commands(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Return each call of a program of ours: the program and its words."""
    found = []
    for line in lines:
        for part in line.split("&&"):
            if match := PROGRAM.search(part):
                words = match[2].split(" > ")[0].removesuffix("&")
                found.append((match[1], shlex.split(words, comments=True)))
    return found
