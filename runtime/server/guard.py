"""Who is let in: whoever knows the token or, without one, whoever comes by a loopback name."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import urlsplit

from runtime.server.answers import send_refusal
from runtime.server.asgi import App, Receive, Scope, Send
from runtime.server.door import is_loopback


class Guard:
    """Stands before the whole server, so that no route can be forgotten.

    Without a token the headers Host and Origin must be of loopback: a page in a browser of this
    machine can make its own name point here, but cannot change what the browser says of it.
    """

    def __init__(self, app: App, token: str | None, free: Collection[str]) -> None:
        """Guard ``app``; paths that are ``free`` need no token."""
        self._app, self._free = app, frozenset(free)
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets
        headers: dict[bytes, bytes] = dict(scope["headers"])
        scope.setdefault("state", {})["by"] = "loopback" if self._token is None else "token"
        if self._token is None:
            if all(is_loopback(name) for name in _names(headers)):
                await self._app(scope, receive, send)
            else:
                await send_refusal(send, 421, "without a token, only loopback names are served")
        elif scope["path"] in self._free or self._knows(headers.get(b"authorization", b"")):
            await self._app(scope, receive, send)
        else:
            words = "send the token: Authorization: Bearer TOKEN"
            await send_refusal(send, 401, words, {"www-authenticate": "Bearer"})

    def _knows(self, authorization: bytes) -> bool:
        assert self._token is not None
        scheme, _, given = authorization.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"


def _names(headers: Mapping[bytes, bytes]) -> Iterator[str]:
    """Yield the host that is asked and, of a page's request, the one that the page is from."""
    yield _host(b"//" + headers.get(b"host", b""))
    if b"origin" in headers:
        yield _host(headers[b"origin"])


def _host(address: bytes) -> str:
    try:
        return urlsplit(address.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
