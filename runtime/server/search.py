"""Search the gallery by the pictures of one subject."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, File, Form, HTTPException, UploadFile

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA, Modality, Subject
from mambapro.preprocess import Picture
from runtime.identity.curation import Match
from runtime.operation.health import LiveView
from runtime.server.answers import refusals
from runtime.server.audit import Audit
from runtime.server.limits import Turnstile
from runtime.server.uploads import MOST_BYTES, picture_of
from runtime.server.visitors import Visitor

PATH: Final = "/api/search"
BODY_BYTES: Final = len(MODALITIES) * MOST_BYTES + (1 << 16)
"""Longest body of a search."""


@dataclass(frozen=True)
class Found:
    """Somebody who resembles the pictures."""

    identity: str
    """Who, such as P12."""
    name: str | None
    """What people call them."""
    score: float
    """Cosine similarity."""
    threshold: float
    """From this score on it is somebody known."""
    accepted: bool
    """Whether the score reaches it."""
    template: str
    """The most similar template."""
    seen_at: str | None
    """Rig that took it."""
    seen_s: float | None
    """When, Unix seconds."""


def search_routes(view: LiveView, audit: Audit, turnstile: Turnstile) -> APIRouter:
    """Return the route; ``turnstile`` says how often it may be used, ``audit`` notes by whom."""
    router = APIRouter()

    @router.post(PATH, responses=refusals(400, 404, 408, 413, 415, 422, 429, 503))
    def search(
        who: Visitor,
        subject: Annotated[Subject, Form(description="Whose model and gallery.")],
        rgb: Annotated[UploadFile | None, File(description="JPEG or PNG, a crop.")] = None,
        nir: Annotated[UploadFile | None, File(description="The same in near infrared.")] = None,
        tir: Annotated[UploadFile | None, File(description="The same in thermal.")] = None,
        limit: Annotated[int, Form(ge=1, le=100, description="Most answers.")] = 10,
        rig: Annotated[str | None, Form(description="Rig whose cameras took them.")] = None,
    ) -> list[Found]:
        """Return whom crops of one subject resemble, best first; nothing is kept of them.

        A modality that is not sent is masked, as the stream does with a camera that is away.
        """
        _pass(turnstile)
        camera = _camera(view, rig)
        crops = _pictures({"rgb": rgb, "nir": nir, "tir": tir})
        matches = view.curator.search(subject, crops, limit, camera)
        audit.note(
            who, "search", "done",
            {"subject": subject, "modalities": list(crops), "found": len(matches)},
        )  # fmt: skip
        return [_found(match) for match in matches]

    return router


def _pass(turnstile: Turnstile) -> None:
    if wait_s := turnstile.wait_s():
        after = str(math.ceil(wait_s))
        raise HTTPException(429, "too many searches; see Retry-After", {"Retry-After": after})


def _camera(view: LiveView, rig: str | None) -> int:
    if rig is None:
        return UNKNOWN_CAMERA
    rigs = view.feed.wanted()
    if rig not in rigs:
        raise InputError(f"there is no rig {rig!r}; GET /api/rigs names all")
    return rigs[rig].camera


def _pictures(uploads: dict[Modality, UploadFile | None]) -> dict[Modality, Picture]:
    crops: dict[Modality, Picture] = {
        modality: picture_of(modality, upload.file.read(MOST_BYTES + 1))
        for modality, upload in uploads.items()
        if upload is not None
    }
    if not crops:
        raise InputError(f"send at least one picture: {', '.join(MODALITIES)}")
    return crops


def _found(match: Match) -> Found:
    payload = match.template.payload
    return Found(
        identity=match.identity.identity,
        name=match.identity.name,
        score=round(match.score, 4),
        threshold=round(match.threshold, 4),
        accepted=match.accepted,
        template=match.template.point,
        seen_at=payload.get("rig"),
        seen_s=payload.get("time_s"),
    )
