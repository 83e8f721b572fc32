"""Known identities of one subject: their embeddings and where these come from."""

from runtime.gallery.gallery import Gallery, OnPurge
from runtime.gallery.opening import open_gallery
from runtime.gallery.records import Candidate, Embedding, Identity, Purged, Record, Template

__all__ = [
    "Candidate",
    "Embedding",
    "Gallery",
    "Identity",
    "OnPurge",
    "Purged",
    "Record",
    "Template",
    "open_gallery",
]
