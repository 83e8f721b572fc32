"""Keep the crops that the stream samples, as a calibration set for INT8.

The folder holds PNG files and ``crops.jsonl`` with a line a triplet: ``{"rig", "track", "camera",
"subject", "time_s", "crops": {"rgb": "000000_rgb.png", ...}}``. A missing modality is left out.
``calibration/images.py`` reads it back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2

from mambapro.cli import InputError
from mambapro.contract import Subject
from runtime.sinks import JsonLinesSink
from runtime.watching.crops import Sample

INDEX: Final = "crops.jsonl"


class CropRecorder:
    """Writes samples into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Start in ``folder``, which is made; InputError when it holds something already."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(
                f"{folder} is not empty; give a new folder, so that tracks are not confused"
            )
        self._folder, self._index = folder, JsonLinesSink(folder / INDEX)

    def write(self, sample: Sample, subject: Subject, camera: int) -> None:
        """Write the crops of ``sample``, then its line, so that no line names an absent file."""
        crops = {m: f"{self._index.count:06d}_{m}.png" for m in sample.crops}
        for modality, picture in sample.crops.items():
            _, encoded = cv2.imencode(".png", picture[:, :, ::-1])
            (self._folder / crops[modality]).write_bytes(encoded.tobytes())
        self._index.write(
            {
                "rig": sample.rig,
                "track": sample.track,
                "camera": camera,
                "subject": subject,
                "time_s": round(sample.time_s, 3),
                "crops": crops,
            }
        )

    def close(self) -> None:
        """Close the index."""
        self._index.close()
