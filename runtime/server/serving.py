"""The server's thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

from runtime.config import ServerConfig
from runtime.operation.health import LiveView
from runtime.server.door import Door

STOP_S: Final = 0.5
"""Time for answers under way, s; as much again for the thread to end without them."""
HEALTH: Final = ("/metrics", "/healthz", "/readyz")

log = logging.getLogger(__name__)


@contextlib.contextmanager
def serving(
    door: Door, config: ServerConfig, view: LiveView, reload: Callable[[], list[str]]
) -> Iterator[None]:
    """Answer at ``door`` while the block runs; stopped within a second."""
    import uvicorn  # loaded when a door was opened, and only then

    from runtime.server.app import make_app
    from runtime.server.guard import Guard

    free = () if config.token_for_health else HEALTH
    app = Guard(make_app(view, reload, config.stuck_after_s), door.token, free)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False
        )
    )
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
