"""Pedestrians by OpenCV 4's HOG detector, for benchmarks/pedestrians.py; OpenCV 5 has it no more.

Run by ``build/opencv4/bin/python`` (``make opencv4``), which has nothing but OpenCV and numpy:
``hog.py VIDEO EVERY SCALE`` prints a JSON object, {frame: [[x0, y0, x1, y1, score], ...]}.
"""

from __future__ import annotations

import json
import sys
from typing import Final

import cv2
import numpy as np

WINDOW_PADDING: Final = (0.17, 0.08)
"""Share of a window on each side that is not the person (Dalal and Triggs' training windows)."""


def main(video: str, every: int, scale: float) -> None:
    """Look at every ``every``-th frame, enlarged by ``scale``."""
    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    capture, found, number = cv2.VideoCapture(video), {}, 0
    while True:
        more, picture = capture.read()
        if not more:
            break
        if number % every == 0:
            found[number] = boxes(hog, picture, scale)
        number += 1
    print(json.dumps(found))


def boxes(hog: cv2.HOGDescriptor, picture: np.ndarray, scale: float) -> list[list[float]]:
    """Return x0, y0, x1, y1 and score of the persons in ``picture``, windows without their rim."""
    large = cv2.resize(picture, None, fx=scale, fy=scale)
    windows, weights = hog.detectMultiScale(large, hitThreshold=0.0, winStride=(8, 8), scale=1.05)
    return [
        [
            float(v)
            for v in (
                (x + WINDOW_PADDING[0] * w) / scale,
                (y + WINDOW_PADDING[1] * h) / scale,
                (x + w - WINDOW_PADDING[0] * w) / scale,
                (y + h - WINDOW_PADDING[1] * h) / scale,
                weight,
            )
        ]
        for (x, y, w, h), weight in zip(windows, np.ravel(weights), strict=True)
    ]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
