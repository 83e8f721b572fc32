"""What can stand between a camera and us: a host that never answers, a proxy that flips bits."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading

WAIT_S = 0.1


class SilentServer:
    """Accepts every connection and says nothing."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=True)
        self._listener.settimeout(WAIT_S)
        self.port = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> SilentServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for each in (self._listener, *self.connections):
            each.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.connections.append(self._listener.accept()[0])


class Proxy:
    """Passes TCP on to ``upstream``; while ``harm`` is set, one bit of that share of chunks flips.

    With ``tls`` its clients speak TLS.
    """

    def __init__(self, upstream: int, tls: ssl.SSLContext | None = None, seed: int = 0) -> None:
        self.harm = 0.0
        self._upstream, self._tls, self._random = upstream, tls, random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self.port = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
                client.settimeout(5.0)  # for the handshake
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
            except (TimeoutError, ssl.SSLError, ConnectionError):
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream))
        except ConnectionError:
            client.close()
            return
        with client, server:
            back = threading.Thread(target=self._pump, args=(client, server, False))
            back.start()
            self._pump(server, client, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, harmful: bool) -> None:
        source.settimeout(WAIT_S)
        while not self._stop.is_set():
            try:
                data = bytearray(source.recv(2048))
                if not data:
                    break
                if harmful and self._random.random() < self.harm:
                    data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
                target.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
