"""The record of a gallery: one SQLite file, which is the truth; searching is done elsewhere.

SQLite commits with a rollback journal and `synchronous=FULL`: what was committed is in the file
after `kill -9` and after a power cut, and a full disk is an error, not half a row. No write-ahead
log: a damaged one loses its last commits without a word. Deleted rows are overwritten with zeros.
"""

from __future__ import annotations

import contextlib
import errno
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mambapro.files import replacing
from runtime.gallery.backend import Facts
from runtime.gallery.records import Payload, Record

FILE: Final = "gallery.sqlite"
FORMAT: Final = 1
RECORDS: Final = "SELECT point, payload, embedding, checksum FROM records"
FACTS: Final = "SELECT key, value, checksum FROM facts"
SCHEMA: Final = f"""
PRAGMA page_size = 8192;
CREATE TABLE records (
    number INTEGER PRIMARY KEY, point TEXT UNIQUE NOT NULL, payload TEXT NOT NULL,
    embedding BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
PRAGMA user_version = {FORMAT};
"""


class DamageError(OSError):
    """The file cannot be trusted; the message says what is wrong with it."""


class Ledger:
    """Records and facts of one gallery."""

    def __init__(self, file: Path) -> None:
        """Open ``file``, which exists; DamageError when it is not whole."""
        # The gallery's lock lets one thread in at a time.
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._file = file
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def create(file: Path) -> None:
        """Make an empty ledger; it appears whole or not at all."""
        with replacing(file) as aside, contextlib.closing(sqlite3.connect(aside)) as db:
            db.executescript(SCHEMA)

    def facts(self) -> Facts:
        """Return all facts."""
        return dict(map(fact_of, self._rows(FACTS)))

    def payloads(self) -> Iterator[tuple[str, Payload]]:
        """Return point and payload of every record, in order of first writing."""
        for record in self.records():
            yield record.point, record.payload

    def records(self, points: Sequence[str] | None = None) -> Iterator[Record]:
        """Return all records, or those of ``points``; DamageError at one that is not intact."""
        if points is None:
            yield from map(record_of, self._rows(f"{RECORDS} ORDER BY number"))
        for point in points or ():
            yield from map(record_of, self._rows(f"{RECORDS} WHERE point = ?", (point,)))

    def write(
        self, upserts: Sequence[Record], deletes: Sequence[str], facts: Mapping[str, Any]
    ) -> None:
        """Do all of it, or raise OSError having done nothing."""
        with _as_os_error(self._file), self._transaction():
            self._db.executemany(
                "INSERT INTO records (point, payload, embedding, checksum) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (point) DO UPDATE SET payload = excluded.payload, "
                "embedding = excluded.embedding, checksum = excluded.checksum",
                map(_row, upserts),
            )
            self._db.executemany("DELETE FROM records WHERE point = ?", [(p,) for p in deletes])
            self._db.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", map(_fact_row, facts.items())
            )

    def copy(self, file: Path) -> None:
        """Write a copy to ``file``, whole or not at all."""
        with (
            _as_os_error(self._file),
            replacing(file) as aside,
            contextlib.closing(sqlite3.connect(aside)) as copied,
        ):
            self._db.backup(copied)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _prepare(self) -> None:
        for setting in (
            "journal_mode = TRUNCATE", "synchronous = FULL", "secure_delete = ON",
            "locking_mode = EXCLUSIVE",
        ):  # fmt: skip
            list(self._rows(f"PRAGMA {setting}"))
        version = next(iter(self._rows("PRAGMA user_version")))[0]
        if version != FORMAT:
            raise DamageError(f"its format is {version}, this software reads {FORMAT}")
        found = next(iter(self._rows("PRAGMA integrity_check(1)")))[0]
        if found != "ok":
            raise DamageError(" ".join(str(found).split()))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _rows(self, query: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(query, tuple(values))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise DamageError(str(error)) from error


@contextlib.contextmanager
def _as_os_error(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(code, f"cannot write: {error}", str(file)) from error


def _row(record: Record) -> tuple[str, str, bytes, int]:
    payload, embedding = json.dumps(record.payload), record.embedding.astype("<f4").tobytes()
    return record.point, payload, embedding, _checksum(record.point, payload, embedding)


def _fact_row(fact: tuple[str, Any]) -> tuple[str, str, int]:
    key, value = fact[0], json.dumps(fact[1])
    return key, value, _checksum(key, value, b"")


def record_of(row: tuple[Any, ...]) -> Record:
    """Return the record of a row of RECORDS; DamageError when it is not what was written."""
    try:
        point, payload, embedding, checksum = row
        intact = checksum == _checksum(point, payload, embedding)
    except (TypeError, AttributeError, UnicodeError) as error:
        raise DamageError(f"a record cannot be read ({error})") from error
    if not intact:
        raise DamageError(f"record {str(point)[:40]!r} is not what was written")
    return Record(point, np.frombuffer(embedding, "<f4").astype(np.float32), json.loads(payload))


def fact_of(row: tuple[Any, ...]) -> tuple[str, Any]:
    """Return key and value of a row of FACTS; DamageError when it cannot be read."""
    try:
        key, value, checksum = row
        if checksum == _checksum(key, value, b""):
            return key, json.loads(value)
    except (TypeError, AttributeError, UnicodeError):
        pass
    raise DamageError(f"the fact {str(row[0])[:40]!r} is not what was written")


def _checksum(point: str, payload: str, embedding: bytes) -> int:
    return zlib.crc32(embedding, zlib.crc32(f"{point}\n{payload}".encode()))
