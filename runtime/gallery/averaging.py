"""The moving average of an identity's templates, kept as one more point."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import numpy as np

from runtime.gallery.records import AVERAGE, Record

NAMESPACE: Final = uuid.UUID("6f1f2f5e-3b0b-4c56-9f0e-0d3a5f7c9a11")


def average_point(identity: str) -> str:
    """Return the id of the point that holds the average of ``identity``."""
    return str(uuid.uuid5(NAMESPACE, identity))


def average_of(identity: str, templates: Sequence[Record], newest: float) -> Record:
    """Return the exponential moving average over ``templates``, the oldest first, of unit length.

    ``newest`` is the weight of each newer template against all before it, 0 to 1.
    """
    mean = templates[0].embedding.astype(np.float64)
    for template in templates[1:]:
        mean += newest * (template.embedding - mean)
    mean /= max(float(np.linalg.norm(mean)), 1e-12)
    payload = {**templates[-1].payload, AVERAGE: True}
    return Record(average_point(identity), mean.astype(np.float32), payload)
