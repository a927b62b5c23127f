"""A TCP proxy on loopback that breaks as networks do: it freezes (no byte passes, nothing is closed), it cuts, it is slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Forwards to a port on loopback while it is used as a context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        """Connections so far."""
        self.held = 0
        """Pieces of data so far that met a freeze."""
        self.rate: float | None = None
        """Bytes a second from the server to each client."""
        self.most: int | None = None
        """Bytes from the server after which a connection is cut."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        self.thaw()

    def freeze(self) -> None:
        """From now on bytes go nowhere, in new connections too."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What was held back goes on its way."""
        self._flowing.set()

    def cut(self) -> int:
        """Close every connection, on both sides, whatever is under way; returns how many ends there were."""
        ends = list(self._sockets)
        for one in ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        return len(ends)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return  # closed
            self.accepted += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        try:
            to_client = source.getpeername()[1] == self.target
        except OSError:
            to_client = False  # it is gone already: nothing will come
        if to_client and self.rate is not None:
            source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        try:
            while data := source.recv(65536 if not to_client or self.rate is None else max(1, int(self.rate / 20))):
                if to_client and self.rate is not None:
                    time.sleep(len(data) / self.rate)
                passed += len(data)
                if to_client and self.most is not None and passed > self.most:
                    break
                if not self._flowing.is_set():
                    self.held += 1
                    self._flowing.wait()
                sink.sendall(data)
        except OSError:
            pass  # the other direction ended it
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()
