"""A gallery on the disk of this machine: the ledger keeps it, Qdrant Edge searches it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from mambapro.cli import InputError
from runtime.gallery.backend import Facts
from runtime.gallery.index import Index, require_space
from runtime.gallery.ledger import FILE, DamageError, Ledger
from runtime.gallery.records import Embedding, Payload, Record, Template
from runtime.gallery.salvage import SPARE, salvage

INDEX: Final = "index"
LOCK: Final = "lock"
EARLIER: Final = "mambapro.json"
"""What a folder held before there was a ledger."""
SPARE_S: Final = 86_400.0
"""The spare copy of a gallery that stays open is at most this old, s."""

log = logging.getLogger(__name__)


class DamagedGalleryError(InputError):
    """A folder that cannot be trusted, and what to do about it."""

    def __init__(self, folder: Path, damage: DamageError) -> None:
        """Name ``folder`` and what is wrong there."""
        super().__init__(
            f"gallery {folder} is damaged: {damage}. Put back a copy of {FILE}, or set "
            "gallery.on_damage=salvage to set it aside and go on with what can be read of it"
        )


class EdgeBackend:
    """One folder, one process: `gallery.sqlite`, and `index`, which is made at each opening."""

    def __init__(self, folder: Path, embedding_dim: int, *, salvage_damaged: bool) -> None:
        """Open or create ``folder``.

        Raises InputError when another process has it open or when it is damaged; with
        ``salvage_damaged`` a damaged one is set aside and what can be read of it is kept.
        """
        self.place, self.shared = str(folder), False
        self._folder, self._dim = folder, embedding_dim
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            opened.enter_context(_locked(folder))
            try:
                self._ledger, self._index = self._open(opened)
            except DamageError as damage:
                if not salvage_damaged:
                    raise DamagedGalleryError(folder, damage) from damage
                aside = salvage(folder)
                log.error(
                    "gallery %s is damaged (%s): set aside as %s, going on with what was readable",
                    folder, damage, aside,
                )  # fmt: skip
                self._ledger, self._index = self._open(opened)
            self._opened = opened.pop_all()

    def facts(self) -> Facts:
        """Return the facts of the gallery; empty when it is new."""
        return self._ledger.facts()

    def payloads(self) -> Iterator[tuple[str, Payload]]:
        """Return point and payload of every record, the oldest first."""
        return self._ledger.payloads()

    def records(self, points: Sequence[str] | None = None) -> Iterator[Record]:
        """Return all records, or those of ``points``."""
        return self._ledger.records(points)

    def write(
        self,
        upserts: Sequence[Record],
        deletes: Sequence[str],
        facts: Mapping[str, Any],
        *,
        purge: bool = False,
    ) -> None:
        """Write to disk, then to the index."""
        if upserts:
            require_space(self._folder, sum(2 * r.embedding.nbytes for r in upserts))
        if purge:
            (self._folder / SPARE).unlink(missing_ok=True)
        self._ledger.write(upserts, deletes, facts)
        try:
            self._index.update(upserts, deletes)
        except Exception as error:  # qdrant_edge 0.9 raises plain exceptions
            log.error("%s: the search index failed (%s); making it anew", self.place, error)
            self._index = Index(self._folder / INDEX, self._dim, self._ledger.records())

    def search(self, embedding: Embedding, limit: int, excluded: Collection[str]) -> list[Template]:
        """Return the most similar records whose identity is not ``excluded``, best first."""
        return self._index.search(embedding, limit, excluded)

    def spare(self) -> None:
        """Copy the ledger when there is no copy of the last day."""
        file = self._folder / SPARE
        if not file.exists() or time.time() - file.stat().st_mtime > SPARE_S:
            self._copy()

    def close(self) -> None:
        """Let go of the folder."""
        self._index.close()
        self._copy()
        self._opened.close()

    def _copy(self) -> None:
        try:
            self._ledger.copy(self._folder / SPARE)
        except OSError as error:
            log.warning("%s: no spare copy could be made (%s)", self.place, error)

    def _open(self, opened: contextlib.ExitStack) -> tuple[Ledger, Index]:
        file = self._folder / FILE
        if not file.exists():
            if (self._folder / EARLIER).exists():
                raise InputError(
                    f"gallery {self._folder} was written by an earlier version, which kept it in "
                    f"{EARLIER} and shard; name another gallery.folder, or remove it"
                )
            if any((self._folder / name).exists() for name in (INDEX, SPARE)):
                raise DamageError(f"{FILE} is missing")
            Ledger.create(file)
        ledger = Ledger(file)
        opened.callback(ledger.close)
        return ledger, Index(self._folder / INDEX, self._dim, ledger.records())


def read_facts(folder: Path) -> Facts:
    """Return the facts of the gallery in ``folder``, which nobody else has open."""
    try:
        with _locked(folder), contextlib.closing(Ledger(folder / FILE)) as ledger:
            return ledger.facts()
    except DamageError as damage:
        raise DamagedGalleryError(folder, damage) from damage


def salvage_folder(folder: Path) -> Path | None:
    """Salvage ``folder`` if it is damaged; return where the damaged files are then."""
    if not (folder / LOCK).exists():
        raise InputError(f"{folder} holds no gallery; name the folder of one subject's gallery")
    with _locked(folder):
        try:
            with contextlib.closing(Ledger(folder / FILE)) as ledger:
                ledger.facts()
                for _ in ledger.records():
                    pass
        except DamageError:
            return salvage(folder)
    return None


def remove(folder: Path) -> None:
    """Remove an old gallery, and nothing that is not one."""
    if any((folder / name).exists() for name in (FILE, SPARE, INDEX, EARLIER)):
        with _locked(folder):
            shutil.rmtree(folder)
    elif folder.exists() and {path.name for path in folder.iterdir()} - {LOCK}:
        raise InputError(f"{folder} is not empty and holds no gallery; name another gallery.folder")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """Hold the folder for this process; the system lets go when the process ends in any way."""
    with (folder / LOCK).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"gallery {folder} is open in another process; stop that one, or name another "
                "gallery.folder"
            ) from error
        yield lock
