"""Pictures of sightings: the crop of each modality as a JPEG, named by event id.

``snapshots/<identity>/<event id>_<modality>.jpg``. A folder an identity makes deletion of all that
shows somebody one step, and lets a rename or merge in the gallery be followed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import cv2

from mambapro.contract import Modality
from mambapro.preprocess import Picture

DAY_S: Final = 86400.0

log = logging.getLogger(__name__)


class SnapshotStore:
    """A bounded folder of JPEGs. Losing a picture to a full disk never stops an event."""

    def __init__(self, folder: Path, *, quality: int, keep_s: float, max_bytes: int) -> None:
        """Keep pictures in ``folder`` for ``keep_s``, and never more than about ``max_bytes``."""
        folder.mkdir(parents=True, exist_ok=True)
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
            folder.mkdir(exist_ok=True)
            paths = {m: folder / f"{identifier}_{m}.jpg" for m in crops}
            for modality, path in paths.items():
                self._write(path, crops[modality])
        except OSError as error:
            self.failed += 1
            log.error("no snapshot of %s: %s", identifier, error)
            return None
        return {m: str(path.relative_to(self._folder)) for m, path in paths.items()}

    def delete(self, identity: str) -> int:
        """Delete all pictures of ``identity``; return how many there were."""
        folder = self._folder_of(identity)
        count = sum(1 for _ in folder.glob("*.jpg"))
        shutil.rmtree(folder, ignore_errors=not folder.exists())
        return count

    def move(self, identity: str, to: str) -> None:
        """Follow the gallery: ``identity`` was renamed to, or merged into, ``to``."""
        source, target = self._folder_of(identity), self._folder_of(to)
        if source.exists():
            target.mkdir(exist_ok=True)
            for path in source.iterdir():
                path.replace(target / path.name)
            source.rmdir()

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
