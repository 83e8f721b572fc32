"""Encode a camera's frames as H.264 with time stamps of their own."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mambapro.synthetic.buffers import Bytes
from mambapro.synthetic.clips import Painter
from mambapro.synthetic.rigs import FRAMES_PER_S

TICKS_PER_S = 90_000


def write_clip(
    path: Path, times: list[tuple[float, float]], painter: Painter
) -> Iterator[dict[str, Any]]:
    """Encode the clip frame by frame as H.264 and yield the truth of each frame."""
    size = painter.camera.size
    # movie_timescale: with the default of 1000 the edit list rounds the first time stamp to 1 ms.
    options = {"movie_timescale": str(TICKS_PER_S), "video_track_timescale": str(TICKS_PER_S)}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        stream.options = {"preset": "ultrafast", "crf": "22", "g": "50"}
        stream.codec_context.thread_count = 1
        for number, (captured, shown) in enumerate(times):
            frame = painter.paint(captured)
            ticks = round(shown * TICKS_PER_S)
            container.mux(stream.encode(_video_frame(frame.picture, ticks)))
            yield {
                "rig": painter.rig.name,
                "modality": painter.camera.modality,
                "frame": number,
                "pts_s": round(ticks / TICKS_PER_S, 6),
                "time_s": round(captured, 6),
                "subjects": frame.subjects,
            }
        container.mux(stream.encode(None))


def _video_frame(picture: Bytes, ticks: int) -> av.VideoFrame:
    if picture.ndim == 3:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    else:
        frame = av.VideoFrame.from_ndarray(_grey_planes(picture), format="yuv420p")
    frame.pts = ticks
    frame.time_base = Fraction(1, TICKS_PER_S)
    return frame


def _grey_planes(picture: Bytes) -> Bytes:
    """Return (1.5 H, W) planes of video-range grey: 0..255 becomes 16..235."""
    height, width = picture.shape
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = cv2.convertScaleAbs(picture, alpha=219 / 255, beta=16)
    return planes
