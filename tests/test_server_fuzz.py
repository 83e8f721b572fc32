"""Requests from the server's own description: every answer is as described, none is an error."""

import pytest

from benchmarks.fuzz_api import fuzz
from runtime.config import ServerConfig
from runtime.server.door import VARIABLE
from tests.served import Served

TOKEN = "a-token-of-thirty-two-characters"


@pytest.mark.parametrize("token", [None, TOKEN])
def test_no_request_is_too_odd(tmp_path, monkeypatch, token):
    monkeypatch.delenv(VARIABLE, raising=False)
    if token is not None:
        monkeypatch.setenv(VARIABLE, token)
    config = ServerConfig(port=0, searches_per_s=1000.0, search_burst=1000)
    served = Served(tmp_path / "out", monkeypatch, config=config)
    try:
        for colour in range(3):
            served.know((colour * 60, 200, 30), (colour * 60, 190, 30))
        headers = None if token is None else {"Authorization": f"Bearer {token}"}
        outcome = fuzz(served.door.url, 150, headers)
        assert outcome.server_errors == []
        assert outcome.violations == []
        assert outcome.requests >= 150
        assert outcome.statuses[200] > 20
        assert served.run._thread.is_alive()
    finally:
        served.close()
