"""Pictures of sightings: the crop of each modality as a JPEG, named by event id.

``snapshots/<identity>/<event id>_<modality>.jpg``, where ``identity`` is the name that the event
gives. What is renamed or merged in the gallery stays where it is: events tell the path.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

import cv2

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.sinks.deletions import Deletion

DAY_S: Final = 86400.0

log = logging.getLogger(__name__)


class SnapshotStore:
    """A bounded folder of JPEGs. Losing a picture to a full disk never stops an event."""

    def __init__(self, folder: Path, *, quality: int, keep_s: float, max_bytes: int) -> None:
        """Keep pictures in ``folder`` for ``keep_s``, and never more than about ``max_bytes``."""
        self._folder, self._quality = folder, quality
        self._keep_s, self._max_bytes = keep_s, max_bytes
        self.failed = 0
        """Snapshots that could not be written."""

    def save(
        self, identity: str, identifier: str, crops: Mapping[Modality, Picture]
    ) -> dict[Modality, str] | None:
        """Write ``crops`` (H, W, 3) uint8 R, G, B; return paths in the folder, None on failure."""
        folder = self._folder_of(identity)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = {m: folder / f"{identifier}_{m}.jpg" for m in crops}
            for modality, path in paths.items():
                self._write(path, crops[modality])
        except OSError as error:
            self.failed += 1
            log.error("no snapshot of %s: %s", identifier, error)
            return None
        return {m: str(path.relative_to(self._folder)) for m, path in paths.items()}

    def forget(self, deletion: Deletion) -> None:
        """Delete all pictures that show one of its identities, or belong to one of its events."""
        for folder in filter(Path.is_dir, map(self._folder_of, deletion.identities)):
            shutil.rmtree(folder)
        for identifier in deletion.events:
            for path in self._folder.glob(f"*/{escape(identifier)}_*.jpg"):
                path.unlink(missing_ok=True)

    def expire(self, now_s: float) -> int:
        """Delete what is too old at ``now_s`` (Unix), and the oldest of too much; say how many."""
        found = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self._folder.glob("*/*"))
        excess = sum(size for _, size, _ in found) - self._max_bytes
        deleted = 0
        for written_s, size, path in found:
            if now_s - written_s <= self._keep_s and excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            deleted += 1
            with contextlib.suppress(OSError):  # there are others in it
                path.parent.rmdir()
        return deleted

    def _write(self, path: Path, picture: Picture) -> None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], quality)
        aside = path.with_suffix(".part")
        try:
            aside.write_bytes(encoded.tobytes())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def _folder_of(self, identity: str) -> Path:
        return self._folder / quote(identity, safe="").replace(".", "%2E")
