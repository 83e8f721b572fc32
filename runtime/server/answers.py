"""How the server says no: one JSON object whatever went wrong, and never an error of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mambapro.cli import InputError, NotThereError
from runtime.identity.errands import BusyError
from runtime.server.asgi import Send
from runtime.sources import redact

log = logging.getLogger(__name__)

Responses = dict[int | str, dict[str, Any]]


@dataclass(frozen=True)
class Refusal:
    """Why a request was refused or failed."""

    detail: str
    """What was given, what is legal, what to do; for people."""


MEANINGS = {
    400: "The body cannot be read as what it says it is.",
    401: "The token is missing or wrong.",
    404: "Nothing is called that.",
    408: "The body did not come in time.",
    409: "It is there already, or there are too many.",
    413: "The body is too long.",
    415: "A picture is neither JPEG nor PNG.",
    421: "Without a token, only names of loopback are served.",
    422: "Something given is not legal; nothing was changed.",
    429: "Too many searches; try again after the seconds in Retry-After.",
    503: "The run has no time for it, or a disk or server refuses; nothing was changed.",
}


def refusals(*statuses: int) -> Responses:
    """Return how a route describes the ``statuses`` with which it refuses."""
    return {s: {"model": Refusal, "description": MEANINGS[s]} for s in statuses}


def refuse(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer that says no; credentials of cameras are taken out of ``words``."""
    return JSONResponse({"detail": redact(words)}, status, headers)


async def send_refusal(
    send: Send, status: int, words: str, headers: dict[str, str] | None = None
) -> None:
    """Say no before FastAPI is asked."""
    answer = refuse(status, words, headers)
    start = {"type": "http.response.start", "status": status, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


def answer_errors(app: FastAPI) -> None:
    """Let ``app`` answer our errors, and FastAPI's own, with a `Refusal`."""

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        return refuse(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def illegal(_: Request, error: RequestValidationError) -> JSONResponse:
        return refuse(422, "; ".join(_told(error.errors())))

    @app.exception_handler(NotThereError)
    def not_there(_: Request, error: NotThereError) -> JSONResponse:
        return refuse(404, str(error))

    @app.exception_handler(InputError)
    def bad_input(_: Request, error: InputError) -> JSONResponse:
        return refuse(422, str(error))

    @app.exception_handler(BusyError)
    def busy(_: Request, error: BusyError) -> JSONResponse:
        return refuse(503, str(error), {"retry-after": "1"})

    @app.exception_handler(OSError)
    def failed(request: Request, error: OSError) -> JSONResponse:
        log.error("%s %s failed: %s", request.method, request.url.path, redact(str(error)))
        return refuse(503, f"it failed and changed nothing: {error}")


def _told(errors: Iterable[Any]) -> Iterable[str]:
    for error in errors:
        where = ".".join(str(part) for part in error["loc"])
        yield f"{where}: {error['msg']}"
