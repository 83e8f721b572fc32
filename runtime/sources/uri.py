"""URIs of cameras: what they mean, and how they are shown without their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from mambapro.cli import InputError
from runtime.config import is_path

NETWORK: Final = ("rtsp", "rtsps", "http", "https")
SCHEMES: Final = (*NETWORK, "v4l2", "usb", "gst", "file", "pattern")
MOST_PX: Final = 8192
"""Longest side of a picture that may be asked for."""
HARMLESS: Final = frozenset(("transport", "size", "fps", "channel", "subtype", "stream"))
"""Keys of a query whose values may be shown."""

_LOGIN = re.compile(r"(?<=://)[^\s'\"<>]*@")
_VALUE = re.compile(r"([?&;]([^=&;\s'\"]+)=)([^&;#\s'\"]*)")
_SECRET = re.compile(
    r"((?:user|pass|pwd|pw|token|key|secret|auth|session|sig|login)[\w-]*=)[^\s&;/'\",]+", re.I
)


@dataclass(frozen=True)
class Uri:
    """A camera's address, taken apart."""

    scheme: str
    """One of SCHEMES; a path without a scheme is a "file", "usb" has become "v4l2"."""
    target: str = field(repr=False)
    """What is opened: address, path, device or pipeline; without our own options."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Our own options, which the camera does not see."""
    shown: str = ""
    """The URI without its secrets."""


def parse(uri: str) -> Uri:
    """Take ``uri`` apart; InputError when its scheme is not one of SCHEMES."""
    shown = redact(uri)
    if is_path(uri):
        return Uri("file", uri, {}, shown)
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    if scheme in NETWORK:
        return _network(uri, scheme, shown)
    if scheme == "usb":
        return Uri("v4l2", _device(rest.removeprefix("//"), shown), {}, shown)
    if scheme == "gst":
        return Uri(scheme, rest.removeprefix("//").strip(), {}, shown)
    if scheme not in SCHEMES:
        raise InputError(
            f"cannot open {shown}: {scheme}: is not known; a source is a path or one of "
            f"{', '.join(f'{known}:' for known in SCHEMES)}"
        )
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    legal = () if scheme == "file" else ("size", "fps")
    if unknown := sorted(set(options) - set(legal)):
        raise InputError(
            f"cannot open {shown}: {scheme}: has no option {unknown[0]}; "
            f"it has {' and '.join(legal) or 'none'}"
        )
    return Uri(scheme, unquote(parts.netloc + parts.path), options, shown)


def redact(text: str) -> str:
    """Return ``text``, a URI or a line that holds some, without logins, tokens and passwords.

    It hides rather too much than too little: all before an "@", and the values of all keys of a
    query but HARMLESS ones.
    """
    text = _LOGIN.sub("***@", text)
    text = _VALUE.sub(lambda m: m[0] if m[2].lower() in HARMLESS else f"{m[1]}***", text)
    return _SECRET.sub(r"\1***", text)


def is_live(uri: str) -> bool:
    """Return whether ``uri`` names what goes on by itself; files and folders have an end."""
    return parse(uri).scheme != "file"


def size_option(uri: Uri) -> tuple[int, int] | None:
    """Return width and height of the option ``size``, px."""
    given = uri.options.get("size")
    if given is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", given)
    if match is None:
        raise InputError(f"cannot open {uri.shown}: size must be WIDTHxHEIGHT, got {given!r}")
    size = int(match[1]), int(match[2])
    if max(size) > MOST_PX:
        raise InputError(f"cannot open {uri.shown}: size may be {MOST_PX} either way, got {given}")
    return size


def fps_option(uri: Uri) -> float | None:
    """Return the option ``fps``, frames a second."""
    given = uri.options.get("fps")
    if given is None:
        return None
    try:
        fps = float(given)
    except ValueError:
        fps = 0.0
    if not 0.0 < fps <= 1000.0:
        raise InputError(f"cannot open {uri.shown}: fps must be over 0, up to 1000, got {given!r}")
    return fps


def _network(uri: str, scheme: str, shown: str) -> Uri:
    """Take our own option out of the query; the rest of the URI stays as it was, to the byte."""
    try:
        host = urlsplit(uri).hostname
    except ValueError:
        host = None
    if not host:
        raise InputError(f"cannot open {shown}: it names no host, as in {scheme}://camera/stream")
    address, mark, query = uri.partition("?")
    fields = query.split("&") if mark else []
    ours = [f for f in fields if f.partition("=")[0] == "transport"]
    theirs = [f for f in fields if f not in ours]
    target = f"{address}?{'&'.join(theirs)}" if theirs else address
    return Uri(scheme, target, dict(parse_qsl("&".join(ours))), shown)


def _device(name: str, shown: str) -> str:
    if not name.isdigit():
        raise InputError(f"cannot open {shown}: usb: takes a number, as in usb:0 for /dev/video0")
    return f"/dev/video{name}"
