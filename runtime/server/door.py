"""Where the server listens, and who may come in."""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mambapro.cli import InputError, MissingError
from mambapro.files import in_checkout
from runtime.config import ServerConfig

VARIABLE: Final = "MAMBAPRO_TOKEN"
MIN_TOKEN: Final = 16
BACKLOG: Final = 64


@dataclass(frozen=True)
class Door:
    """A socket that listens, and the token it asks for."""

    listener: socket.socket
    token: str | None = field(repr=False)
    """None lets in all that come by a name of this machine's own loopback."""

    @property
    def url(self) -> str:
        """The server's address."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def open_door(config: ServerConfig) -> Iterator[Door]:
    """Listen; nothing is answered before the server runs.

    InputError when the address is taken, or can be reached from elsewhere and no token is set;
    MissingError when a library is missing. It is loaded here, before any camera waits for it.
    """
    _load_libraries()
    token = _token(config)
    if token is None and not is_loopback(config.host):
        raise InputError(
            f"server.host {config.host} can be reached from other machines, so a token is needed: "
            f"set {VARIABLE} or server.token_file, or keep to 127.0.0.1"
        )
    with _listener(config) as listener:
        yield Door(listener, token)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a name or address of this machine for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _load_libraries() -> None:
    try:
        for name in ("uvicorn", "python_multipart", "runtime.server.app"):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"the server needs {error.name}: pip install -e '.[runtime]', or switch it off with "
            "--set server.enabled=false"
        ) from error


def _listener(config: ServerConfig) -> socket.socket:
    where = f"server.host {config.host}, server.port {config.port}"
    try:
        family, *_, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio sets it only where the protocol is named, which
        # create_server does not; then a body waits 40 ms for the client to acknowledge its header.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise InputError(
            f"cannot serve at {where}: {error.strerror or error}; choose another port, or switch "
            "the server off with server.enabled=false"
        ) from error


def _token(config: ServerConfig) -> str | None:
    given = os.environ.get(VARIABLE) or None
    if config.token_file is None:
        return None if given is None else _checked(given, VARIABLE)
    if given is not None:
        raise InputError(f"there are two tokens, {VARIABLE} and server.token_file: set one of them")
    file = in_checkout(config.token_file)
    try:
        return _checked(Path(file).read_text("utf-8").strip(), f"server.token_file {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"server.token_file {file} cannot be read: {error}") from error


def _checked(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{where}: a token has at least {MIN_TOKEN} ASCII characters and no spaces, got "
            f"{len(token)} characters; make one with: openssl rand -hex 32"
        )
    return token
