"""The page to watch, and what it lives on: its files, server-sent events, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header, HTTPException, Query, Response

from runtime.operation.health import LiveView, rig_states
from runtime.server import mosaic
from runtime.server.live import Live
from runtime.server.streams import Stream

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No script but our files, no picture from elsewhere, nothing sent to anybody else."""


@dataclass(frozen=True)
class File:
    """A file of the page."""

    content: bytes
    media_type: str
    etag: str


def page_files() -> Mapping[str, File]:
    """Return the files of the page by the path that they are served at; they hold no secret."""
    paths = {f"/static/{p.name}": p for p in sorted(FOLDER.iterdir()) if p.suffix in TYPES}
    return {path: _read(file) for path, file in {"/": FOLDER / "index.html", **paths}.items()}


def page_routes(view: LiveView, live: Live, files: Mapping[str, File]) -> APIRouter:
    """Return the routes; the endless ones are left out of the OpenAPI description."""
    router = APIRouter(include_in_schema=False)

    def serve(path: str, file: File) -> None:
        def answer(if_none_match: Annotated[str, Header()] = "") -> Response:
            headers = {
                "content-security-policy": POLICY,
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "cache-control": "no-cache",
                "etag": file.etag,
            }
            if if_none_match == file.etag:
                return Response(status_code=304, headers=headers)
            return Response(file.content, media_type=file.media_type, headers=headers)

        router.get(path)(answer)

    for path, file in files.items():
        serve(path, file)

    @router.get("/api/live")
    async def events() -> Stream:
        """Tell how the run is, and every event within half a second."""
        return Stream(live.messages(), "text/event-stream", live.let_go)

    @router.get("/api/mosaic")
    async def pictures(rig: Annotated[list[str], Query()] = []) -> Stream:  # noqa: B006
        """Show rigs, all of them if none is named, five times a second."""
        known = [state.name for state in rig_states(view)]
        if unknown := [name for name in rig if name not in known]:
            raise HTTPException(404, f"no rig {unknown[0]}; there are {', '.join(known)}")
        chunks = mosaic.pictures(view.viewing, rig, live.closing)
        return Stream(chunks, mosaic.MEDIA_TYPE, live.let_go)

    return router


def _read(path: Path) -> File:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return File(content, TYPES[path.suffix], etag)
