"""A gallery on a Qdrant server or cluster, which several boxes may share.

What a call wrote is durable when the server says so: it logs every operation ahead. Operations are
applied in order, each whole: what `kill -9` can leave behind of a call is a template too many.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import numpy as np

from mambapro.cli import InputError, MissingError
from runtime.config import GalleryConfig
from runtime.gallery.backend import Facts
from runtime.gallery.records import Embedding, Payload, Record, Template

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    raise MissingError(
        "gallery.url needs the package qdrant-client; install it with: pip install -e .[qdrant]"
    ) from error

VECTOR: Final = "embedding"
FACTS_POINT: Final = "00000000-0000-0000-0000-000000000000"
"""A point without an embedding, whose payload is the facts."""
PAGE: Final = 256
FIRST_WAIT_S: Final = 0.2
"""Wait before the second attempt, s; it doubles, and varies by half."""
BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP answers after which another attempt may succeed."""
REFUSED: Final = frozenset({401, 403})

T = TypeVar("T")
log = logging.getLogger(__name__)


class ServerBackend:
    """One collection of a server."""

    shared = True

    def __init__(self, client: QdrantClient, place: str, collection: str, retries: int) -> None:
        """Use ``collection`` through ``client``, which is owned; ``place`` names it in messages."""
        self.place = place
        self._client, self._collection, self._retries = client, collection, retries

    def prepare(self, embedding_dim: int) -> None:
        """Make the collection when there is none; InputError when it is of another kind."""
        if not self.exists():
            self._create(embedding_dim)
        self._check(embedding_dim)

    def exists(self) -> bool:
        """Return whether the server has the collection."""
        return self._ask(lambda: self._client.collection_exists(self._collection))

    def facts(self) -> Facts:
        """Return the facts of the gallery; empty when it is new."""
        found = self._ask(lambda: self._client.retrieve(self._collection, [FACTS_POINT]))
        return dict(found[0].payload or {}) if found else {}

    def payloads(self) -> Iterator[tuple[str, Payload]]:
        """Return point and payload of every record."""
        for point in self._scroll(with_vectors=False):
            yield str(point.id), dict(point.payload or {})

    def records(self, points: Sequence[str] | None = None) -> Iterator[Record]:
        """Return all records, or those of ``points``."""
        if points is None:
            yield from map(_record, self._scroll(with_vectors=True))
        for start in range(0, len(points or ()), PAGE):
            yield from self._retrieve(list((points or ())[start : start + PAGE]))

    def write(
        self,
        upserts: Sequence[Record],
        deletes: Sequence[str],
        facts: Mapping[str, Any],
        *,
        purge: bool = False,
    ) -> None:
        """Write and wait until it is done; how long copies are kept is up to the server."""
        if facts:
            payload = {**self.facts(), **facts}
            self._upsert([models.PointStruct(id=FACTS_POINT, vector={}, payload=payload)])
        for start in range(0, len(upserts), PAGE):
            self._upsert([_point(record) for record in upserts[start : start + PAGE]])
        if deletes:
            gone = models.PointIdsList(points=list(deletes))
            self._ask(lambda: self._client.delete(self._collection, gone, wait=True))

    def search(self, embedding: Embedding, limit: int, excluded: Collection[str]) -> list[Template]:
        """Return the most similar records whose identity is not ``excluded``, best first."""
        anybody = models.MatchAny(any=sorted(excluded))
        not_these = models.FieldCondition(key="identity", match=anybody)
        found = self._ask(
            lambda: self._client.query_points(
                self._collection,
                query=embedding.tolist(),
                using=VECTOR,
                limit=limit,
                query_filter=models.Filter(must_not=[not_these]) if excluded else None,
                with_payload=True,
            )
        )
        return [
            Template(str(point.id), str(payload["identity"]), point.score, payload)
            for point in found.points
            if (payload := dict(point.payload or {})).get("identity") is not None
        ]

    def spare(self) -> None:
        """Leave copies to the server."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _upsert(self, points: list[models.PointStruct]) -> None:
        self._ask(lambda: self._client.upsert(self._collection, points, wait=True))

    def _create(self, embedding_dim: int) -> None:
        params = models.VectorParams(size=embedding_dim, distance=models.Distance.COSINE)
        try:
            self._ask(lambda: self._client.create_collection(self._collection, {VECTOR: params}))
        except OSError:  # another box may have been faster
            if not self.exists():
                raise
        keyword = models.PayloadSchemaType.KEYWORD
        self._ask(lambda: self._client.create_payload_index(self._collection, "identity", keyword))

    def _check(self, embedding_dim: int) -> None:
        info = self._ask(lambda: self._client.get_collection(self._collection))
        vectors = info.config.params.vectors
        found = vectors.get(VECTOR) if isinstance(vectors, dict) else None
        if found is None or found.size != embedding_dim or found.distance != "Cosine":
            raise InputError(
                f"{self.place} holds no vectors {VECTOR!r} of {embedding_dim} channels compared by "
                "cosine; name another gallery.collection"
            )

    def _retrieve(self, points: list[str]) -> Iterator[Record]:
        found = self._ask(
            lambda: self._client.retrieve(
                self._collection, points, with_payload=True, with_vectors=True
            )
        )
        held = {str(point.id): _record(point) for point in found}
        return (held[point] for point in points if point in held)

    def _scroll(self, *, with_vectors: bool) -> Iterator[Any]:
        offset = None
        while True:
            ask = partial(
                self._client.scroll,
                self._collection,
                limit=PAGE,
                offset=offset,
                with_payload=True,
                with_vectors=with_vectors,
            )
            page, offset = self._ask(ask)
            yield from (point for point in page if str(point.id) != FACTS_POINT)
            if offset is None:
                return

    def _ask(self, call: Callable[[], T]) -> T:
        """Call the server, again while it is away or busy; OSError when it stays so."""
        wait_s = FIRST_WAIT_S
        for attempt in range(self._retries + 1):
            try:
                return call()
            except UnexpectedResponse as error:
                if error.status_code in REFUSED:
                    raise InputError(
                        f"{self.place} refused the API key ({error.status_code})"
                    ) from None
                reason = f"answered {error.status_code} {error.reason_phrase}"
                if error.status_code not in BUSY:
                    raise OSError(f"{self.place} {reason}") from error
            except ResponseHandlingException as error:
                reason = f"cannot be reached ({error.source or type(error).__name__})"
            if attempt < self._retries:
                log.warning("%s %s; attempt %d follows", self.place, reason, attempt + 2)
                time.sleep(wait_s * random.uniform(0.5, 1.5))
                wait_s *= 2
        raise OSError(f"{self.place} {reason}; tried {self._retries + 1} times")


def connect(config: GalleryConfig, subject: str) -> ServerBackend:
    """Return the collection of ``subject`` on the server of ``config.url``; it may not exist yet.

    The API key is read from the environment and goes nowhere but into the requests. Raises
    InputError when the address is none or holds credentials.
    """
    url = _checked(str(config.url))
    collection = f"{config.collection}-{subject}"
    key = os.environ.get(config.api_key_variable) or None
    timeout_s = max(1, math.ceil(config.timeout_s))
    client = QdrantClient(
        url=url, port=None, api_key=key, timeout=timeout_s, check_compatibility=False
    )
    place = f"Qdrant collection {collection} at {url}"
    return ServerBackend(client, place, collection, config.retries)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or ''}"
    if "@" in parts.netloc or parts.query:
        raise InputError(
            f"gallery.url {shown} must hold no credentials; put the API key into the environment "
            "variable that gallery.api_key_variable names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"gallery.url must look like https://host:6333, got {shown}")
    return url


def _point(record: Record) -> models.PointStruct:
    vector = {VECTOR: record.embedding.tolist()}
    return models.PointStruct(id=record.point, vector=vector, payload=record.payload)


def _record(point: Any) -> Record:
    embedding = np.asarray(point.vector[VECTOR], np.float32)
    return Record(str(point.id), embedding, dict(point.payload or {}))
