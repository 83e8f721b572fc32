"""Sources of pictures, one a camera: read gives a frame, nothing yet, the end or a failure."""

from runtime.sources.file import FileSource, decoded, frame_time, open_video
from runtime.sources.opening import check_live, open_source
from runtime.sources.reading import (
    End,
    Failure,
    Frame,
    NothingYet,
    Reading,
    Source,
    SourceStatus,
    State,
    TimeSource,
)
from runtime.sources.uri import is_live, redact

__all__ = [
    "End",
    "Failure",
    "FileSource",
    "Frame",
    "NothingYet",
    "Reading",
    "Source",
    "SourceStatus",
    "State",
    "TimeSource",
    "check_live",
    "decoded",
    "frame_time",
    "is_live",
    "open_source",
    "open_video",
    "redact",
]
