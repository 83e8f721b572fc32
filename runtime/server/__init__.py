"""The operator's server: metrics, health, the rigs. FastAPI is loaded by `open_door` alone."""

from runtime.server.door import Door, open_door
from runtime.server.serving import serving

__all__ = ["Door", "open_door", "serving"]
