"""Known identities of one subject: their embeddings and payload, in a Qdrant Edge shard on disk.

The shard's write-ahead log keeps what was put when the process is killed; closing flushes it.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    MatchAny,
    Point,
    Query,
    QueryRequest,
    ScrollRequest,
    UpdateOperation,
)

from mambapro.cli import InputError
from mambapro.files import write_json
from mambapro.spec import ModelSpec

Embedding = npt.NDArray[np.float32]

FACTS: Final = "mambapro.json"
VECTOR: Final = "embedding"
SEARCH_LIMIT: Final = 64
PAGE: Final = 256


@dataclass(frozen=True)
class Template:
    """One embedding of an identity, as it is kept."""

    point: str
    """Id of the point, a UUID."""
    identity: str
    """Whose it is."""
    score: float
    """Cosine similarity to the query."""
    payload: dict[str, Any]
    """identity, rig, track, time_s, mask, precision, embedding_space."""


@dataclass(frozen=True)
class Candidate:
    """An identity that resembles the query."""

    identity: str
    """Who."""
    score: float
    """Mean cosine similarity of the best templates."""
    template: Template
    """The most similar template."""


class Gallery:
    """Identities of one embedding space; it survives a restart."""

    def __init__(
        self, folder: Path, spec: ModelSpec, *, keep: bool, mix_precisions: bool, templates: int
    ) -> None:
        """Open or create the gallery in ``folder``; without ``keep`` an old one is removed.

        Raises InputError when the folder holds embeddings of another model, or of another
        precision and ``mix_precisions`` is off.
        """
        self._spec, self._templates = spec, templates
        if not keep:
            _remove(folder)
        if (folder / FACTS).exists():
            _check_facts(folder, spec, mix_precisions)
        self._shard = _open_shard(folder, spec)
        self._points = self._read_points()

    def __len__(self) -> int:
        """Return the number of identities."""
        return len(self._points)

    def candidates(
        self, embedding: Embedding, top: int, excluded: Collection[str] = ()
    ) -> list[Candidate]:
        """Return the identities most similar to ``embedding`` (E,), best first."""
        not_these: list[Any] = [FieldCondition("identity", match=MatchAny(list(excluded)))]
        found = self._shard.query(
            QueryRequest(
                SEARCH_LIMIT,
                query=Query.Nearest(embedding.tolist(), using=VECTOR),
                filter=Filter(must_not=not_these) if excluded else None,
                with_payload=True,
            )
        )
        templates: dict[str, list[Template]] = defaultdict(list)
        for point in found:
            payload = dict(point.payload or {})
            identity = str(payload["identity"])
            templates[identity].append(Template(str(point.id), identity, point.score, payload))
        candidates = [
            Candidate(name, float(np.mean([t.score for t in best[:top]])), best[0])
            for name, best in templates.items()
        ]
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def new_identity(self) -> str:
        """Return a name that nobody has, such as P12 for a person."""
        letter = self._spec.subject[0].upper()
        return f"{letter}{1 + max((int(name[1:]) for name in self._points), default=0)}"

    def put(
        self, identity: str, embedding: Embedding, payload: dict[str, Any], point: str | None = None
    ) -> str:
        """Keep a template of ``identity``; with ``point``, in place of that one. Returns its id."""
        point = point or str(uuid.uuid4())
        facts = {
            "identity": identity,
            "embedding_space": self._spec.embedding_space,
            "precision": self._spec.precision,
        }
        stored = Point(point, {VECTOR: embedding.tolist()}, {**payload, **facts})
        self._shard.update(UpdateOperation.upsert_points([stored]))
        self._remember(identity, point)
        return point

    def close(self) -> None:
        """Write everything to disk and let go of the folder."""
        self._shard.flush()
        self._shard.close()

    def _remember(self, identity: str, point: str) -> None:
        points = self._points.setdefault(identity, [])
        if point not in points:
            points.append(point)
        if len(points) > self._templates:
            self._shard.update(UpdateOperation.delete_points([points.pop(0)]))

    def _read_points(self) -> dict[str, list[str]]:
        """Return the ids of each identity's points, the oldest first."""
        records: list[Any] = []
        offset = None
        while True:
            page, offset = self._shard.scroll(
                ScrollRequest(offset=offset, limit=PAGE, with_payload=True)
            )
            records.extend(page)
            if offset is None:
                break
        points: dict[str, list[str]] = {}
        for record in sorted(records, key=lambda record: record.payload.get("time_s", 0.0)):
            points.setdefault(str(record.payload["identity"]), []).append(str(record.id))
        return points


def _open_shard(folder: Path, spec: ModelSpec) -> EdgeShard:
    params = EdgeVectorParams(spec.embedding_dim, Distance.Cosine)
    config = EdgeConfig({VECTOR: params}, max_search_threads=1)
    shard = folder / "shard"
    try:
        if (folder / FACTS).exists():
            return EdgeShard.load(str(shard), config)
        shard.mkdir(parents=True, exist_ok=True)
        opened = EdgeShard.create(str(shard), config)
    except OSError:
        raise
    except Exception as error:  # qdrant_edge 0.9 raises plain exceptions
        raise InputError(f"cannot open gallery {folder}: {' '.join(str(error).split())}") from error
    write_json(folder / FACTS, _facts(spec))
    return opened


def _facts(spec: ModelSpec) -> dict[str, Any]:
    return {
        "subject": spec.subject,
        "embedding_space": spec.embedding_space,
        "embedding_dim": spec.embedding_dim,
        "precision": spec.precision,
    }


def _check_facts(folder: Path, spec: ModelSpec, mix_precisions: bool) -> None:
    try:
        held = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        space, precision = held["embedding_space"], held["precision"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FACTS} is damaged ({error}); remove the gallery") from error
    if space != spec.embedding_space or held.get("subject") != spec.subject:
        raise InputError(
            f"gallery {folder} holds {held.get('subject')} embeddings of space {space[:12]}, the "
            f"model makes {spec.subject} embeddings of space {spec.embedding_space[:12]}; use the "
            "model that filled it, or another gallery.folder"
        )
    if precision != spec.precision and not mix_precisions:
        raise InputError(
            f"gallery {folder} was filled by a {precision} model, this one is {spec.precision}; "
            "set gallery.mix_precisions=true to allow it, or use another gallery.folder"
        )


def _remove(folder: Path) -> None:
    """Remove an old gallery, and nothing that is not one."""
    if (folder / FACTS).exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no gallery; name another gallery.folder")
