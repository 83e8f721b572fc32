"""How log records look: text for people or JSON for machines, in both without credentials."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, Final, Literal

from runtime.sources import redact

LogFormat = Literal["text", "json"]
PLACES: Final = ("rig", "modality", "camera")
"""What a record may know about where it comes from, by the ``extra`` of a log call."""


def shape_logs(shape: LogFormat) -> None:
    """Give all handlers of the root logger that shape, and take credentials out of all records."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Redaction())
        if shape == "json":
            handler.setFormatter(JsonFormatter())


class Redaction(logging.Filter):
    """Takes logins, passwords and tokens out of messages and tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change ``record``; it is always kept."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, message, and what else is known."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: getattr(record, key) for key in PLACES if hasattr(record, key)}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, ensure_ascii=False, default=str)
