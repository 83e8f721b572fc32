"""Folders of pictures, in the natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from mambapro.cli import InputError
from runtime.sources.read_ahead import ReadAhead
from runtime.sources.reading import Frame

SUFFIXES: Final = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"))
UNITS_OF_DIGITS: Final = {10: 1.0, 13: 1e3, 16: 1e6, 19: 1e9}
"""Ticks a second of Unix time, by how many digits it has: s, ms, us, ns."""

_PARTS = re.compile(r"(\d+)")
_SECONDS = re.compile(r"\d+\.\d+")


class FolderSource(ReadAhead):
    """Pictures of a folder. Names that are times are their times, else the rate is ``fps``.

    A name is a time when it is seconds with a fraction (``12.040.png``) or Unix time in s, ms, us
    or ns (``1700000000040.jpg``), and all names are.
    """

    def __init__(self, path: str, fps: float, queue_frames: int) -> None:
        """List ``path``; InputError when it holds no pictures."""
        self._paths = _pictures(Path(path))
        if not self._paths:
            raise InputError(
                f"cannot open folder {path}: it holds no picture ({', '.join(sorted(SUFFIXES))})"
            )
        self._fps = fps
        self._times_s = [_time_s(p.stem) for p in self._paths]
        super().__init__(path, self._decode(), queue_frames)

    def _decode(self) -> Iterator[Frame]:
        named = None not in self._times_s
        for index, (path, named_s) in enumerate(zip(self._paths, self._times_s, strict=True)):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                raise InputError(f"cannot decode picture {path}")
            rgb = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
            time_s = named_s if named and named_s is not None else index / self._fps
            yield Frame(rgb, time_s, "pts" if named else "frame_rate", index, arrival_s=time_s)


def _pictures(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which picture 2 comes before picture 10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in _PARTS.split(path.stem) if p]


def _time_s(stem: str) -> float | None:
    if _SECONDS.fullmatch(stem):
        return float(stem)
    unit = UNITS_OF_DIGITS.get(len(stem)) if stem.isascii() and stem.isdigit() else None
    return int(stem) / unit if unit else None
