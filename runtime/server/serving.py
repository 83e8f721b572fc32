"""The server's thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runtime.config import ServerConfig
from runtime.operation.health import LiveView
from runtime.server.audit import Audit
from runtime.server.door import Door

if TYPE_CHECKING:
    import uvicorn

    from runtime.server.asgi import App
    from runtime.server.live import Live

STOP_S: Final = 0.5
"""Time for answers under way, s; as much again for the thread to end without them."""
HOW: Final[dict[str, Any]] = {
    "log_config": None,
    "access_log": False,
    "lifespan": "on",
    "ws": "none",
    "server_header": False,
    "proxy_headers": False,  # the audit log tells who is really connected
    "limit_concurrency": 200,
}
HEALTH: Final = ("/metrics", "/healthz", "/readyz")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def serving(
    door: Door, config: ServerConfig, view: LiveView, reload: Callable[[], list[str]]
) -> Iterator[None]:
    """Answer at ``door`` while the block runs; stopped within a second."""
    import uvicorn  # loaded when a door was opened, and only then

    from runtime.server.live import Live

    with contextlib.ExitStack() as owner:
        audit = owner.enter_context(contextlib.closing(Audit(Path(view.config.output))))
        live = Live(view, config.stuck_after_s)
        app = guarded_app(door, config, view, reload, audit, live)
        owner.enter_context(_thread(door, uvicorn.Server(uvicorn.Config(app, **HOW))))
        owner.callback(live.close)  # or the server would wait for answers without an end
        yield


def guarded_app(
    door: Door,
    config: ServerConfig,
    view: LiveView,
    reload: Callable[[], list[str]],
    audit: Audit,
    live: Live,
) -> App:
    """Return what answers at ``door``: the routes, behind who asks and how much they send."""
    from runtime.server.app import make_app
    from runtime.server.guard import Guard
    from runtime.server.limits import BodyLimit
    from runtime.server.page import page_files
    from runtime.server.search import BODY_BYTES, PATH

    files = page_files()
    routes = make_app(view, reload, config, audit, live, files, token=door.token is not None)
    free = (*files, *(() if config.token_for_health else HEALTH))
    return Guard(BodyLimit(routes, {PATH: BODY_BYTES}), door.token, free)


@contextlib.contextmanager
def _thread(door: Door, server: uvicorn.Server) -> Iterator[None]:
    """Run ``server`` in a thread while the block runs."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    thread = threading.Thread(
        target=server.run, args=([door.listener],), name="server", daemon=True
    )
    thread.start()
    log.info("serving %s", door.url)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(STOP_S)
        server.force_exit = True
        thread.join(STOP_S)
        if thread.is_alive():
            log.warning("the server has not ended; left behind")
