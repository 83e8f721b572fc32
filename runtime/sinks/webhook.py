"""Events to an HTTP receiver: one POST an event, in order, signed if there is a key."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from mambapro.cli import InputError
from runtime.config import WebhookConfig
from runtime.sinks.interface import Event, SendError
from runtime.sinks.refused import RefusedEvents

KEY: Final = "MAMBAPRO_WEBHOOK_KEY"
TOKEN: Final = "MAMBAPRO_WEBHOOK_TOKEN"
SIGNATURE: Final = "X-MambaPro-Signature-256"
FOR_EVER: Final = (400, 413, 422)
"""Answers that the same event will get again: bad request, too large, not processable."""
MOST_ANSWER_BYTES: Final = 1 << 16


class WebhookSender:
    """Posts events. One counts as sent when the answer is 2xx; redirects are not followed."""

    def __init__(self, config: WebhookConfig, refusals: RefusedEvents) -> None:
        """Prepare; InputError when the certificates cannot be read. Secrets are in KEY, TOKEN."""
        assert config.url is not None
        self._url, self._refusals = config.url, refusals
        self._receiver = urlsplit(config.url).netloc  # a path may hold a secret
        self._pool = urllib3.PoolManager(
            num_pools=1,
            retries=False,
            timeout=urllib3.Timeout(connect=config.timeout_s, read=config.timeout_s),
            ssl_context=_trusting(config.ca_file),
        )
        self.connected = True
        """Whether the last attempt was answered; true before the first."""
        self.refused = 0

    def connect(self) -> None:
        """Do nothing: there is nothing to connect to without an event."""

    def send(self, events: Sequence[Event]) -> int:
        """Post the first of ``events``; SendError when it has to be tried again."""
        event = events[0]
        status = self._post(json.dumps(event, allow_nan=False).encode())
        if status in FOR_EVER:
            self._refusals.add("webhook", f"HTTP {status}", event)
            self.refused += 1
        elif not 200 <= status < 300:
            raise SendError(f"{self._receiver} answered {status}")
        return 1

    def close(self) -> None:
        """Let go of the connection."""
        self._pool.clear()

    def _post(self, body: bytes) -> int:
        """Return the answer's status; SendError when there is none."""
        self.connected = False
        try:
            answer = self._pool.request(
                "POST", self._url, body=body, headers=_headers(body), redirect=False,
                preload_content=False,
            )  # fmt: skip
            _let_go(answer)
        except (HTTPError, OSError) as error:
            raise SendError(f"{self._receiver}: {type(error).__name__}: {error}") from error
        self.connected = True
        return int(answer.status)


def signature(key: str, body: bytes) -> str:
    """Return the header that proves that who knows ``key`` sent ``body``."""
    return f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def _headers(body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "mambapro"}
    if key := os.environ.get(KEY):
        headers[SIGNATURE] = signature(key, body)
    if token := os.environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _let_go(answer: urllib3.BaseHTTPResponse) -> None:
    """Read a short answer so that the connection can be used again; hang up on a long one."""
    answer.read(MOST_ANSWER_BYTES)
    if answer.read(1):
        answer.close()
    answer.release_conn()


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"sinks.webhook.ca_file: cannot use {ca_file}: {error}") from error
