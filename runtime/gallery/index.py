"""A Qdrant Edge shard that searches the records of a gallery; it is made anew at each opening."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    MatchAny,
    PayloadSchemaType,
    Point,
    Query,
    QueryRequest,
    UpdateOperation,
)

from runtime.gallery.records import Embedding, Record, Template

VECTOR: Final = "embedding"
BATCH: Final = 256
MIB: Final = 1 << 20
CHUNK_BYTES: Final = 32 * MIB
"""qdrant_edge 0.9 grows its memory-mapped files by this much."""
RESERVE_BYTES: Final = 2 * CHUNK_BYTES
"""Space that must be free before anything is added: a full disk under a memory map ends the process
with SIGBUS, which nothing can catch."""


class Index:
    """Searches records by cosine similarity."""

    def __init__(self, folder: Path, embedding_dim: int, records: Iterable[Record]) -> None:
        """Replace what is in ``folder`` by an index of ``records``."""
        shutil.rmtree(folder, ignore_errors=True)
        require_space(folder.parent, 0)
        folder.mkdir(parents=True)
        self._folder = folder
        params = EdgeVectorParams(embedding_dim, Distance.Cosine)
        config = EdgeConfig({VECTOR: params}, max_search_threads=1, wal_enabled=False)
        self._shard = EdgeShard.create(str(folder), config)
        by_identity = UpdateOperation.create_field_index("identity", PayloadSchemaType.Keyword)
        self._shard.update(by_identity)
        remaining = iter(records)
        while batch := list(islice(remaining, BATCH)):
            self.update(batch, ())
        _allocate(folder)

    def update(self, upserts: Sequence[Record], deletes: Sequence[str]) -> None:
        """Add or replace ``upserts`` and forget ``deletes``; the space is there."""
        for start in range(0, len(upserts), BATCH):
            require_space(self._folder, 0)
            points = [
                Point(r.point, {VECTOR: r.embedding.tolist()}, r.payload)
                for r in upserts[start : start + BATCH]
            ]
            self._shard.update(UpdateOperation.upsert_points(points))
        if deletes:
            self._shard.update(UpdateOperation.delete_points(list(deletes)))

    def search(self, embedding: Embedding, limit: int, excluded: Collection[str]) -> list[Template]:
        """Return the most similar records whose identity is not ``excluded``, best first."""
        not_these: list[Any] = [FieldCondition("identity", match=MatchAny(sorted(excluded)))]
        found = self._shard.query(
            QueryRequest(
                limit,
                query=Query.Nearest(embedding.tolist(), using=VECTOR),
                filter=Filter(must_not=not_these) if excluded else None,
                with_payload=True,
            )
        )
        payloads = [dict(point.payload or {}) for point in found]
        return [
            Template(str(point.id), str(payload["identity"]), point.score, payload)
            for point, payload in zip(found, payloads, strict=True)
        ]

    def close(self) -> None:
        """Remove it: the embeddings of a deleted identity do not outlive the process in it."""
        self._shard.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def require_space(folder: Path, more_bytes: int) -> None:
    """Raise OSError unless the disk has room for ``more_bytes`` and a chunk of the index."""
    free, needed = shutil.disk_usage(folder).free, RESERVE_BYTES + more_bytes
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{free // MIB} MiB are free, the gallery needs {needed // MIB} MiB to grow; make room",
            str(folder),
        )


def _allocate(folder: Path) -> None:
    """Give the holes of all files their blocks, so that writing to them cannot fail."""
    for file in folder.rglob("*"):
        if file.is_file() and (size := file.stat().st_size):
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, size)
