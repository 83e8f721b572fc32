"""Log records as JSON and as text, without credentials."""

import io
import json
import logging
from datetime import datetime

import pytest

from runtime.operation.logs import shape_logs


@pytest.fixture
def written(monkeypatch):
    """A root logger of its own; returns what it wrote as lines."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    def lines(shape):
        shape_logs(shape)
        log = logging.getLogger("runtime.sources.live")
        log.warning(
            "%s: cannot reach rtsp://me:secret@host/1?token=geheim", "gate", extra={"rig": "gate"}
        )
        try:
            raise OSError("Connection refused: 'rtsp://me:secret@host/1'")
        except OSError:
            log.exception("a surprise\nof two lines")
        return output.getvalue()

    return lines


def test_one_object_a_line(written):
    first, second = (json.loads(line) for line in written("json").splitlines())
    assert datetime.fromisoformat(first.pop("time").replace("Z", "+00:00"))
    assert first == {
        "level": "warning", "logger": "runtime.sources.live", "rig": "gate",
        "message": "gate: cannot reach rtsp://***@host/1?token=***",
    }  # fmt: skip
    assert second["message"] == "a surprise\nof two lines"
    assert second["level"] == "error"
    assert "Connection refused: 'rtsp://***@host/1'" in second["exception"]


@pytest.mark.parametrize("shape", ["json", "text"])
def test_no_credentials(written, shape):
    text = written(shape)
    assert "secret" not in text
    assert "geheim" not in text
    assert "***@host" in text


def test_text_stays_text(written):
    assert written("text").splitlines()[0].startswith("WARNING gate: cannot reach")
