"""The real pgbouncer, in front of a cluster, on a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg

from tests.support.needs import program
from tests.support.postgres import Cluster


class PgBouncer:
    """Runs while it is used as a context manager; mode: session or transaction."""

    def __init__(self, cluster: Cluster, mode: str) -> None:
        self.cluster = cluster
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.folder.chmod(0o755)
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = 3\n"
        )
        self._command = [program("pgbouncer"), str(settings)]

    def __enter__(self) -> PgBouncer:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, user=self.cluster.user, cwd="/", stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(self.cluster.url(port=self.port)).close()
                return self
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self.folder)
