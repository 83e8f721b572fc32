"""The whole server: which routes there are. FastAPI calls them in threads of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Response
from fastapi.security import HTTPBearer
from prometheus_client.exposition import choose_encoder

from mambapro import __version__
from runtime.config import ServerConfig
from runtime.operation.health import Health, LiveView, alive, ready
from runtime.operation.metrics import registry_of
from runtime.server.answers import answer_errors, refusals
from runtime.server.audit import Audit
from runtime.server.events import event_routes
from runtime.server.identities import identity_routes
from runtime.server.limits import Turnstile
from runtime.server.live import Live
from runtime.server.page import File, page_routes
from runtime.server.rigs import rig_routes
from runtime.server.search import search_routes

UNWELL: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "Not well; the body says why."}
}


def make_app(
    view: LiveView,
    reload: Callable[[], list[str]],
    config: ServerConfig,
    audit: Audit,
    live: Live,
    files: Mapping[str, File],
    *,
    token: bool,
) -> FastAPI:
    """Answer about ``view``, and change what it shows.

    ``reload`` reads the rigs anew and returns their names, ``audit`` notes who did what, ``live``
    tells it to the page, which is ``files``; with
    ``token`` the description says that one is needed, which whoever guards the app sees to.
    """
    app = FastAPI(
        title="MambaPro",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=live.running,
        responses=refusals(401 if token else 421),
        dependencies=[Depends(HTTPBearer(auto_error=False))] if token else None,
    )
    answer_errors(app)
    _health_routes(app, view, config.stuck_after_s)
    app.include_router(rig_routes(view, reload, audit))
    app.include_router(identity_routes(view, audit))
    turnstile = Turnstile(config.searches_per_s, config.search_burst)
    app.include_router(search_routes(view, audit, turnstile))
    app.include_router(event_routes(view))
    app.include_router(page_routes(view, live, files))
    return app


def _health_routes(app: FastAPI, view: LiveView, stuck_after_s: float) -> None:
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


def _told(health: Health, response: Response) -> Health:
    response.status_code = 200 if health.ok else 503
    return health
