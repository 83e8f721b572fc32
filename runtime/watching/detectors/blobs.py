"""From a mask of what changed to boxes: parts of one body are joined, bodies are not."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from runtime.config import DetectConfig

NARROWEST_PX: Final = 4
"""Narrowest subject, reduced px; what is narrower is an edge that shook."""
SLIMMEST: Final = 4.5
"""Height over width of the slimmest body."""

Box = tuple[int, int, int, int]
Mask = npt.NDArray[np.uint8]


def bodies(mask: Mask, config: DetectConfig) -> list[Box]:
    """Return a box for each body in ``mask`` (h, w), 0 or 255, in its pixels."""
    opened: Mask = np.asarray(
        cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(_closed(opened, config.close_px))
    parts = [
        (x, y, x + w, y + h)
        for x, y, w, h, area in stats[1:].tolist()
        if area >= config.min_area * mask.size / 4
    ]
    return [box for box in join_parts(parts) if _plausible(box, opened, config)]


def join_parts(parts: list[Box]) -> list[Box]:
    """Join boxes that stand above each other with a small gap: head and legs of one body."""
    parts = sorted(parts, key=lambda box: box[1])
    joined = True
    while joined:
        joined = False
        for i, upper in enumerate(parts):
            j = next((j for j in range(i + 1, len(parts)) if _one_body(upper, parts[j])), None)
            if j is not None:
                parts[i] = _union(upper, parts.pop(j))
                joined = True
                break
    return parts


def _plausible(box: Box, mask: Mask, config: DetectConfig) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    big = width * height >= config.min_area * mask.size and width >= NARROWEST_PX
    return big and _fill(mask, box) >= config.min_fill


def _one_body(a: Box, b: Box) -> bool:
    union = _union(a, b)
    gap = max(a[1], b[1]) - min(a[3], b[3])
    near = gap <= 0.25 * max(a[3] - a[1], b[3] - b[1])
    if union[3] - union[1] > SLIMMEST * (union[2] - union[0]) or not near:
        return False
    if _upright(a) and _upright(b):  # two persons, unless exactly above each other
        wide = max(a[2] - a[0], b[2] - b[0])
        return abs((a[0] + a[2]) - (b[0] + b[2])) / 2 <= 0.3 * wide
    overlap = min(a[2], b[2]) - max(a[0], b[0])
    return overlap >= 0.6 * min(a[2] - a[0], b[2] - b[0])


def _closed(mask: Mask, size: tuple[int, int]) -> Mask:
    """Join what is less than ``size`` = (width, height) apart, but not with the border."""
    width, height = size
    framed = cv2.copyMakeBorder(mask, height, height, width, width, cv2.BORDER_CONSTANT, value=0)
    joined = cv2.morphologyEx(framed, cv2.MORPH_CLOSE, np.ones((height, width), np.uint8))
    return np.ascontiguousarray(joined[height:-height, width:-width], np.uint8)


def _upright(box: Box) -> bool:
    return box[3] - box[1] >= 1.5 * (box[2] - box[0])


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _fill(mask: Mask, box: Box) -> float:
    return float(np.count_nonzero(mask[box[1] : box[3], box[0] : box[2]])) / max(
        1, (box[2] - box[0]) * (box[3] - box[1])
    )
