"""What was told, and the pictures that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from mambapro.cli import InputError, NotThereError
from mambapro.contract import SUBJECTS
from runtime.operation.health import LiveView
from runtime.server.answers import refusals
from runtime.sinks.ids import is_live
from runtime.sinks.opening import EVENTS_FILE
from runtime.sinks.past import Wanted, read_back

LONGEST: Final = 200

Kind = Literal["glimpse", "sighting", "track_end", "camera_lost", "camera_back", "drift"]
Name = Annotated[str | None, Query(max_length=LONGEST)]
Time = Annotated[float | None, Query(allow_inf_nan=False, description="Unix seconds.")]


def event_routes(view: LiveView) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api")
    output = Path(view.config.output)
    events, snapshots = output / EVENTS_FILE, output / view.config.sinks.snapshots.folder

    @router.get("/events", responses=refusals(422, 503))
    def read_events(
        request: Request,
        response: Response,
        since: Time = None,
        until: Time = None,
        rig: Name = None,
        identity: Name = None,
        kind: Kind | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[str | None, Query(max_length=LONGEST)] = None,
    ) -> list[dict[str, Any]]:
        """Return what was told, the newest first; docs/events.md describes the fields.

        When there may be more, the header Link names the address that goes on (rel="next"); an
        answer may have fewer events than asked for, or none, and yet be followed by more.
        """
        if before is not None and not is_live(before):
            raise InputError(f"before must be the id of an event, got {before!r}")
        names = None if identity is None else _names(view, identity)
        found = read_back(events, Wanted(since, until, rig, names, kind, before), limit)
        if found.before is not None:
            url = request.url.include_query_params(before=found.before)
            response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
        return found.events

    @router.get(
        "/snapshots/{name:path}",
        response_class=Response,
        responses={**refusals(404, 422), 200: {"content": {"image/jpeg": {}}}},
    )
    def snapshot(name: Annotated[str, InPath(max_length=2 * LONGEST)]) -> Response:
        """Return a picture that an event names."""
        headers = {"cache-control": "private, max-age=3600", "x-content-type-options": "nosniff"}
        return Response(_picture(snapshots, name), media_type="image/jpeg", headers=headers)

    return router


def _names(view: LiveView, identity: str) -> frozenset[str]:
    """Return all names that events give to who is called ``identity`` now."""
    for subject in SUBJECTS:
        for known in view.curator.identities(subject):
            if identity == known.identity:
                return frozenset((identity, *known.aliases))
    return frozenset((identity,))


def _picture(folder: Path, name: str) -> bytes:
    """Return the file ``name`` in ``folder``, and nothing from elsewhere."""
    parts = name.split("/")
    if len(parts) == 2 and name.isprintable() and name.endswith(".jpg") and ".." not in parts:
        path = folder / name
        try:
            if path.resolve().is_relative_to(folder.resolve()):
                return path.read_bytes()
        except OSError:  # it is gone, or no file
            pass
    raise NotThereError(f"there is no snapshot {name!r}; events name those that there are")
