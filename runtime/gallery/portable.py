"""A gallery as one file, to move it to another machine or between a folder and a server.

The file is an .npz of `header` (version, count, facts) and `records` (point and payload of each) as
JSON, and of `embeddings` (N, E) float32; ZIP's checksums guard each.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.files import replacing
from mambapro.spec import ModelSpec
from runtime.gallery.backend import Facts
from runtime.gallery.facts import check_facts
from runtime.gallery.gallery import Gallery
from runtime.gallery.records import Record

VERSION: Final = 1


def export_gallery(gallery: Gallery, file: Path) -> int:
    """Write all templates of ``gallery`` to ``file``, whole or not at all; return their number."""
    facts, records = gallery.contents()
    header = {"version": VERSION, "count": len(records), "facts": facts}
    dim = int(facts["embedding_dim"])
    with replacing(file) as aside, aside.open("wb") as opened:
        np.savez(
            opened,
            header=_bytes(header),
            records=_bytes([[record.point, record.payload] for record in records]),
            embeddings=np.array([r.embedding for r in records], "<f4").reshape(-1, dim),
        )
    return len(records)


def import_gallery(gallery: Gallery, file: Path, spec: ModelSpec, *, mix_precisions: bool) -> int:
    """Add the templates of ``file`` that ``gallery`` has not; return their number.

    Raises InputError when the file is damaged, of another model, or of another precision and
    ``mix_precisions`` is off, and for what ``Gallery.admit`` refuses. It is added whole or not.
    """
    facts, records = read_export(file)
    check_facts(str(file), facts, spec, mix_precisions)
    return gallery.admit(facts, records)


def read_export(file: Path) -> tuple[Facts, list[Record]]:
    """Return what ``export_gallery`` wrote; InputError when that is not what is there."""
    try:
        with np.load(file, allow_pickle=False) as held:
            header = json.loads(held["header"].tobytes())
            version = header["version"]
            if version != VERSION:
                raise InputError(f"{file} has version {version}, this software reads {VERSION}")
            described = json.loads(held["records"].tobytes())
            embeddings = held["embeddings"].astype(np.float32)
            facts, shape = header["facts"], (header["count"], header["facts"]["embedding_dim"])
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise InputError(f"{file} is no export of a gallery, or is damaged: {e}") from e
    if embeddings.shape != shape or len(described) != shape[0] or not np.isfinite(embeddings).all():
        raise InputError(
            f"{file} is damaged: it announces {shape[0]} embeddings of {shape[1]} channels and "
            f"holds {embeddings.shape} and {len(described)} descriptions"
        )
    pairs = zip(described, embeddings, strict=True)
    return facts, [Record(point, embedding, payload) for (point, payload), embedding in pairs]


def _bytes(value: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)
