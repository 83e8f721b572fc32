"""Who asks, for the audit log."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request

from runtime.server.audit import Who

LONGEST: Final = 200


def _visitor(request: Request) -> Who:
    client = request.client
    return {
        "by": request.state.by,
        "address": None if client is None else client.host,
        "forwarded_for": (request.headers.get("x-forwarded-for") or "")[:LONGEST] or None,
    }


Visitor = Annotated[Who, Depends(_visitor)]
