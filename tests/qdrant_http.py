"""Stands in for a Qdrant server: its HTTP interface, as far as the gallery uses it, over the client
library's own in-memory engine; and it can be silent, busy, or ask for a key."""

import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from qdrant_client import QdrantClient
from qdrant_client.http import models

ROUTES = [  # method, path behind the collection, what answers
    ("GET", "/exists", lambda c, n, b: {"exists": c.collection_exists(n)}),
    ("PUT", "", lambda c, n, b: c.create_collection(n, models.CreateCollection(**b).vectors)),
    ("GET", "", lambda c, n, b: c.get_collection(n)),
    ("PUT", "/index", lambda c, n, b: _done()),
    ("PUT", "/points", lambda c, n, b: c.upsert(n, models.PointsList(**b).points)),
    ("POST", "/points", lambda c, n, b: _retrieve(c, n, models.PointRequest(**b))),
    ("POST", "/points/delete", lambda c, n, b: c.delete(n, models.PointIdsList(**b))),
    ("POST", "/points/scroll", lambda c, n, b: _scroll(c, n, models.ScrollRequest(**b))),
    ("POST", "/points/query", lambda c, n, b: _query(c, n, models.QueryRequest(**b))),
]


class FakeQdrant:
    """Listens on loopback until it is left; ``key`` is asked for, ``busy`` requests get a 503."""

    def __init__(self, key=None):
        self.engine, self.key, self.busy, self.silent_s = QdrantClient(":memory:"), key, 0, 0.0
        self.requests, self._lock = 0, threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, result = fake.answer(self.command, self.path, self.headers, self.rfile)
                text = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked has gone
                    self.wfile.write(text)

            do_PUT = do_POST = do_GET  # noqa: N815

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method, path, headers, body):
        time.sleep(self.silent_s)
        content = body.read(int(headers.get("Content-Length") or 0))
        with self._lock:
            self.requests += 1
            if self.key is not None and headers.get("api-key") != self.key:
                return 401, None
            if self.busy > 0:
                self.busy -= 1
                return 503, None
            name, rest = re.fullmatch(r"/collections/([^/?]+)([^?]*)(?:\?.*)?", path).groups()
            answer = next(a for m, p, a in ROUTES if (m, p) == (method, rest))
            return 200, _plain(answer(self.engine, name, json.loads(content or "{}")))


def _done():
    return models.UpdateResult(operation_id=0, status="completed")


def _retrieve(engine, name, request):
    return engine.retrieve(name, request.ids, True, bool(request.with_vector))


def _scroll(engine, name, request):
    points, offset = engine.scroll(
        name, limit=request.limit, offset=request.offset, with_vectors=bool(request.with_vector)
    )
    return {"points": [_plain(p) for p in points], "next_page_offset": offset}


def _query(engine, name, request):
    return engine.query_points(
        name, query=request.query, using=request.using, limit=request.limit,
        query_filter=request.filter, with_payload=True,
    )  # fmt: skip


def _plain(value):
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return json.loads(value.model_dump_json()) if hasattr(value, "model_dump_json") else value
