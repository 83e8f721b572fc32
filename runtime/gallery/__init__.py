"""Known identities of one subject: their embeddings and where these come from."""

from runtime.gallery.gallery import SEARCH_LIMIT, Gallery
from runtime.gallery.keeper import OnPurge
from runtime.gallery.opening import open_gallery
from runtime.gallery.portable import export_gallery, import_gallery
from runtime.gallery.records import Candidate, Embedding, Identity, Purged, Record, Template

__all__ = [
    "SEARCH_LIMIT",
    "Candidate",
    "Embedding",
    "Gallery",
    "Identity",
    "OnPurge",
    "Purged",
    "Record",
    "Template",
    "export_gallery",
    "import_gallery",
    "open_gallery",
]
