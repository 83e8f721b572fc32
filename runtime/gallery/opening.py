"""Choose the backend: Qdrant Edge in a folder, or a Qdrant server by its address."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mambapro.cli import InputError
from mambapro.contract import Subject
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery.backend import Backend
from runtime.gallery.edge import EdgeBackend, read_facts, remove
from runtime.gallery.facts import spec_of
from runtime.gallery.gallery import Gallery
from runtime.gallery.keeper import OnPurge
from runtime.gallery.ledger import FILE


def open_gallery(
    folder: Path, spec: ModelSpec, config: GalleryConfig, on_purge: OnPurge | None = None
) -> Gallery:
    """Open or create the gallery of one subject, in ``folder`` unless ``config.url`` is set.

    Without ``config.keep`` an old gallery in ``folder`` is removed first; one on a server never is.
    Raises InputError when it holds embeddings of another model, or is damaged or in use.
    """
    with contextlib.ExitStack() as owner:
        backend = _open_backend(folder, spec, config)
        owner.callback(backend.close)
        gallery = Gallery(backend, spec, config, on_purge)
        owner.pop_all()
    return gallery


def stored_spec(folder: Path, config: GalleryConfig, subject: Subject) -> ModelSpec:
    """Return for which embeddings a gallery was made; InputError when there is no gallery."""
    if config.url is not None:
        from runtime.gallery.qdrant_server import connect

        with contextlib.closing(connect(config, subject)) as server:
            return spec_of(server.place, server.facts() if server.exists() else {})
    if not (folder / FILE).exists():
        raise InputError(f"{folder} holds no {FILE}; name the folder of one subject's gallery")
    return spec_of(str(folder), read_facts(folder))


def _open_backend(folder: Path, spec: ModelSpec, config: GalleryConfig) -> Backend:
    if config.url is not None:
        from runtime.gallery.qdrant_server import (
            connect,  # a box that has no server needs no client
        )

        server = connect(config, spec.subject)
        with contextlib.ExitStack() as owner:
            owner.callback(server.close)
            server.prepare(spec.embedding_dim)
            owner.pop_all()
        return server
    if not config.keep:
        remove(folder)
    return EdgeBackend(folder, spec.embedding_dim, salvage_damaged=config.on_damage == "salvage")
