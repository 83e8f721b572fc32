"""What to do with a damaged ledger: set it aside, and go on with what can be read of it."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from runtime.gallery.backend import FIRST, Facts
from runtime.gallery.ledger import FACTS, FILE, RECORDS, DamageError, Ledger, fact_of, record_of
from runtime.gallery.records import Record

SPARE: Final = "spare.sqlite"
"""A copy of the ledger, made when a gallery is closed and from time to time."""
MOST_MISSING: Final = 100_000
"""Rows that are looked for, one by one, between those that can be read from either end."""

Row = tuple[Any, ...]

log = logging.getLogger(__name__)


def salvage(folder: Path) -> Path:
    """Move the ledger of ``folder`` into a folder of its own there, which is returned.

    A new one gets its intact records, and those that only the spare copy has. When the numbers
    of identities cannot be read, they go on from the present second: no name is given twice.
    """
    aside = _new_folder(folder)
    for name in (FILE, f"{FILE}-journal"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    spare, spare_facts = _readable(folder / SPARE)
    records, facts = _readable(aside / FILE)
    if not facts:
        facts = {**spare_facts, FIRST: int(time.time())}
    saved = {**spare, **records} if facts.keys() - {FIRST} else {}
    Ledger.create(folder / FILE)
    with contextlib.closing(Ledger(folder / FILE)) as ledger:
        ledger.write(list(saved.values()), [], facts)
    log.warning(
        "%s: %d templates saved, %d of them from the spare copy alone",
        folder, len(saved), len(saved.keys() - records.keys()),
    )  # fmt: skip
    return aside


def _new_folder(folder: Path) -> Path:
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("damaged-%Y%m%dT%H%M%SZ")
    names = [stamp, *(f"{stamp}-{count}" for count in range(2, 1000))]
    aside = next(folder / name for name in names if not (folder / name).exists())
    aside.mkdir()
    return aside


def _readable(file: Path) -> tuple[dict[str, Record], Facts]:
    """Return what is intact in ``file``."""
    records: dict[str, Record] = {}
    facts: Facts = {}
    if file.exists():
        with contextlib.closing(sqlite3.connect(file)) as db:
            for row in _rows(db, RECORDS):
                with contextlib.suppress(DamageError):
                    record = record_of(row)
                    records[record.point] = record
            for row in _rows(db, FACTS):
                with contextlib.suppress(DamageError):
                    key, facts[key] = fact_of(row)
    return records, facts


def _rows(db: sqlite3.Connection, query: str) -> Iterator[Row]:
    """Return the rows of a table that can be read: from both ends, then those between."""
    numbered = query.replace("SELECT ", "SELECT rowid, ")
    last, first = 0, 0
    for number, *row in _read(db, f"{numbered} ORDER BY rowid"):
        last = int(number)
        yield tuple(row)
    for number, *row in _read(db, f"{numbered} WHERE rowid > {last} ORDER BY rowid DESC"):
        first = int(number)
        yield tuple(row)
    for number in range(last + 1, min(first, last + MOST_MISSING)):
        yield from _read(db, f"{query} WHERE rowid = {number}")


def _read(db: sqlite3.Connection, query: str) -> Iterator[Row]:
    """Return the rows of a query up to the first that cannot be read."""
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        # SQLite reads a file that is shorter than it says with this setting alone.
        db.execute("PRAGMA writable_schema = ON")
        yield from db.execute(query)
