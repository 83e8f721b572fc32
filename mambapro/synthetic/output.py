"""Where results land: written aside, stamped with their settings, kept when asked for again."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mambapro.cli import InputError
from mambapro.files import write_json

STAMP = "synthetic.json"
RENDERER_VERSION = 1
"""Raise when the same settings give other pictures, so that old output is not taken for new."""


def is_complete(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether ``folder`` already holds the output of ``settings``; refuse other contents."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    stamp = folder / STAMP
    if not stamp.is_file():
        raise InputError(
            f"{folder} holds something else (no {STAMP}): choose another folder or remove it"
        )
    found = _read(stamp)
    wanted = json.loads(json.dumps(stamped(settings)))
    if found != wanted:
        differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        raise InputError(
            f"{folder} was made with other settings ({', '.join(differing)}): "
            "remove it or choose another folder"
        )
    return True


@contextlib.contextmanager
def new_folder(folder: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder; if the block succeeds, stamp it and move it to ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield aside
        write_json(aside / STAMP, stamped(settings))
        aside.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def stamped(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the stamp of ``settings`` says."""
    return {**settings, "renderer_version": RENDERER_VERSION}


def _read(stamp: Path) -> dict[str, Any]:
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{stamp} is not a stamp of this program: choose another folder")
    return found
