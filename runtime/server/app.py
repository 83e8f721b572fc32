"""The routes: what the server answers. FastAPI calls them in threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Response
from prometheus_client.exposition import choose_encoder

from mambapro import __version__
from mambapro.cli import InputError
from runtime.operation.health import Health, LiveView, RigState, alive, ready, rig_states
from runtime.operation.metrics import registry_of
from runtime.sources import redact

UNWELL: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "Not well; the body says why."}
}


@dataclass(frozen=True)
class Reloaded:
    """What a reload asked for."""

    rigs: list[str]
    """Names of the rigs that are watched from now on."""


def make_app(view: LiveView, reload: Callable[[], list[str]], stuck_after_s: float) -> FastAPI:
    """Answer about ``view``; ``reload`` reads the rigs anew and returns their names."""
    app = FastAPI(title="MambaPro", version=__version__, docs_url=None, redoc_url=None)
    registry = registry_of(view)

    @app.get("/metrics", response_class=Response)
    def metrics(accept: Annotated[str, Header()] = "") -> Response:
        """Return all metrics in Prometheus's text format, or OpenMetrics if asked for."""
        encode, content_type = choose_encoder(accept)
        return Response(encode(registry), headers={"content-type": content_type})

    @app.get("/healthz", responses=UNWELL)
    def healthz(response: Response) -> Health:
        """Say whether the process works; if not, it should be restarted."""
        return _told(alive(view, stuck_after_s), response)

    @app.get("/readyz", responses=UNWELL)
    def readyz(response: Response) -> Health:
        """Say whether every rig is watched by all its cameras, or what is missing."""
        return _told(ready(view, stuck_after_s), response)

    @app.get("/api/rigs")
    def rigs() -> list[RigState]:
        """Return how all rigs and their cameras are."""
        return rig_states(view)

    @app.post("/api/rigs/reload", status_code=202, responses={422: {"description": "Refused."}})
    def reload_rigs() -> Reloaded:
        """Read the rigs file anew, as SIGHUP does; rigs that stay the same are not disturbed."""
        try:
            return Reloaded(reload())
        except InputError as error:
            words = f"the rigs stay as they are: {redact(str(error))}"
            raise HTTPException(422, words) from error

    return app


def _told(health: Health, response: Response) -> Health:
    response.status_code = 200 if health.ok else 503
    return health
