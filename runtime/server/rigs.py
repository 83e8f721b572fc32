"""Rigs that come and go while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Body, HTTPException, Path

from mambapro.cli import InputError
from mambapro.config import from_dict
from runtime.config import RigConfig, SourceConfig
from runtime.operation.health import LiveView, RigState, rig_states
from runtime.server.answers import refusals
from runtime.server.audit import Audit
from runtime.server.visitors import Visitor
from runtime.sources import check_live, redact

MOST_RIGS: Final = 64
LONGEST_NAME: Final = 100
EXAMPLE: Final = {"name": "gate", "cameras": {"rgb": {"uri": "pattern://?size=640x360&fps=5"}}}

Name = Annotated[str, Path(max_length=LONGEST_NAME, description="Its name in the rigs file.")]


@dataclass(frozen=True)
class Watched:
    """What was asked for; `GET /api/rigs` tells how it goes."""

    rigs: list[str]
    """Names of the rigs that are watched from now on."""


def rig_routes(view: LiveView, reload: Callable[[], list[str]], audit: Audit) -> APIRouter:
    """Return the routes; ``reload`` reads the rigs file anew and returns the names."""
    router = APIRouter(prefix="/api/rigs")
    feed = view.feed

    @router.get("")
    def rigs() -> list[RigState]:
        """Return how all rigs and their cameras are."""
        return rig_states(view)

    @router.post("/reload", status_code=202, responses=refusals(422))
    def reload_rigs() -> Watched:
        """Read the rigs file anew, as SIGHUP does; rigs that stay the same are not disturbed."""
        try:
            return Watched(reload())
        except InputError as error:
            words = f"the rigs stay as they are: {redact(str(error))}"
            raise HTTPException(422, words) from error

    @router.post("", status_code=202, responses=refusals(400, 408, 409, 413, 422, 503))
    def add(who: Visitor, rig: Annotated[dict[str, Any], Body(examples=[EXAMPLE])]) -> Watched:
        """Watch one rig more, described as in the rigs file, until the next reload or restart."""
        added = checked(rig, view.config.source)
        with audit.noted(who, "add rig", rig=added.name):
            if len(feed.wanted()) >= MOST_RIGS or not feed.add(added):
                words = f"there is a rig {added.name!r}, or there are {MOST_RIGS}; remove one first"
                raise HTTPException(409, words)
            return Watched(list(feed.wanted()))

    @router.delete("/{name}", status_code=202, responses=refusals(404, 422, 503))
    def remove(who: Visitor, name: Name) -> Watched:
        """Watch a rig no more, until the next reload or restart."""
        with audit.noted(who, "remove rig", rig=name):
            _found(feed.remove(name), name)
            return Watched(list(feed.wanted()))

    @router.post("/{name}/restart", status_code=202, responses=refusals(404, 422, 503))
    def restart(who: Visitor, name: Name) -> Watched:
        """Connect to a rig's cameras anew, and look at the empty scene first."""
        with audit.noted(who, "restart rig", rig=name):
            _found(feed.restart(name), name)
            return Watched(list(feed.wanted()))

    return router


def checked(values: dict[str, Any], source: SourceConfig) -> RigConfig:
    """Return the rig that ``values`` describe; InputError unless it can be watched."""
    rig = from_dict(RigConfig, values)
    if not 0 < len(rig.name) <= LONGEST_NAME or not rig.name.isprintable() or "/" in rig.name:
        raise InputError(
            f"name must have 1 to {LONGEST_NAME} printable characters and no /, got {rig.name!r}"
        )
    for modality, camera in rig.cameras.items():
        if camera.uri.lower().startswith("gst:"):
            raise InputError("gst: runs any pipeline, so it is for the rigs file alone")
        check_live(camera.uri, source)
        numbers = np.array([*np.ravel(camera.homography or np.eye(3)), camera.offset_s])
        if not np.isfinite(numbers).all() or np.linalg.matrix_rank(numbers[:9].reshape(3, 3)) < 3:
            raise InputError(
                f"{modality}: offset_s must be finite and homography an invertible matrix"
            )
    return rig


def _found(there: bool, name: str) -> None:
    if not there:
        raise HTTPException(404, f"there is no rig {name!r}; GET /api/rigs names all")
