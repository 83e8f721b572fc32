"""Choose the backend: Qdrant Edge in a folder, or a Qdrant server by its address."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery.backend import Backend
from runtime.gallery.edge import EdgeBackend, remove
from runtime.gallery.gallery import Gallery
from runtime.gallery.keeper import OnPurge


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


def _open_backend(folder: Path, spec: ModelSpec, config: GalleryConfig) -> Backend:
    if config.url is not None:
        from runtime.gallery.server import connect  # a box that has no server needs no client

        return connect(config, spec.subject, spec.embedding_dim)
    if not config.keep:
        remove(folder)
    return EdgeBackend(folder, spec.embedding_dim, salvage_damaged=config.on_damage == "salvage")
