"""How long a database is away. 1 GB for its next major version: the deploy's copy, beside pg_upgrade and beside dump and restore. And for
a minor version: one `pulumi up`, beside `docker stop` and `docker run` by hand.

python -m benchmarks.years        (`make bench-years`; prints Markdown; needs Docker and the stand-in base images of 16 and 18)
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.docker import docker
from tests.support.stack import Stack
from tests.years.conftest import Database, base_image

REPOSITORY = Path(__file__).parents[1]
SCALE = 70  # of pgbench: 1 GB
OLD, NEW = 16, 18


def build(major: int) -> str:
    """The id of the image of a major version."""
    words = ["--image", f"years-bench:{major}", "--base-image", base_image(major)]
    script = ["bash", str(REPOSITORY / "image" / "build-postgres-image.sh"), "--yes", *words]
    return subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def seconds(*words: str) -> float:
    """How long a docker command takes, which must succeed."""
    begin = time.monotonic()
    docker(*words)
    return time.monotonic() - begin


@contextlib.contextmanager
def outage(container: str, password: str) -> Iterator[list[float]]:
    """The longest time, in seconds, in which nobody could connect and ask; the list has it at the end."""
    stop, longest = threading.Event(), [0.0]

    def ask() -> None:
        last = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(psycopg.Error, AssertionError):
                address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
                with psycopg.connect(host=address, user="postgres", dbname="app", password=password, connect_timeout=1) as asked:
                    asked.execute("SELECT count(*) FROM kept")
                longest[0] = max(longest[0], time.monotonic() - last)
                last = time.monotonic()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield longest
        time.sleep(1)
    finally:
        stop.set()
        asking.join()


def minor_version() -> None:
    """The next minor version, as far as anybody can tell here: the same PostgreSQL in an image with another id."""
    base = base_image(OLD)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        next_base = f"years-bench-next:{OLD}"
        docker("build", "--quiet", "--tag", next_base, "-", stdin=f"FROM {base}\nLABEL minor=next\n")
        try:
            stack.init()
            stack.config |= {"baseImage": base, "databases": {"app": {"password": "first"}}}
            stack.up()
            stack.sql("CREATE TABLE kept AS SELECT g FROM generate_series(1, 1000000) AS g")
            container = f"{stack.name}-app"
            stack.config["baseImage"] = next_base
            begin = time.monotonic()
            with outage(container, "first") as ours:
                stack.up()
            whole = time.monotonic() - begin
            image, volume = docker("inspect", "--format", "{{.Image}} {{range .Mounts}}{{.Name}}{{end}}", container).split()
            with outage(container, "first") as theirs:
                docker("stop", "--time", "60", container)
                docker("rm", container)
                docker("run", "--detach", "--name", container, "--volume", f"{volume}:/var/lib/postgresql/data", image)
            print("| a minor version | away, s |\n|---|---|")
            print(f"| one `pulumi up` ({whole:.0f} s, with the build and the check) | {ours[0]:.1f} |")
            print(f"| `docker stop`, `docker rm`, `docker run` by hand | {theirs[0]:.1f} |")
        finally:
            stack.remove()
            docker("image", "rm", next_base, check=False)


def main() -> None:
    minor_version()
    images = {major: build(major) for major in (OLD, NEW)}
    database = Database(images.__getitem__, "years-bench")
    try:
        database.start(OLD)
        docker("exec", database.name, "pgbench", "-i", "-q", "-s", str(SCALE), "-U", "postgres", "-h", "/var/run/postgresql", "app")
        size = int(database.psql("SELECT pg_database_size('app')")) / 1e9

        begin = time.monotonic()
        done = database.deploy(NEW, mode="upgrade")
        assert done.returncode == 0, done.stderr
        ours = time.monotonic() - begin

        # Both of the others work on a stopped server's data in one container that has the programs of both versions.
        both = f"{database.name}-both"
        docker(
            "run",
            "--detach",
            "--name",
            both,
            "--network",
            "none",
            "--volume",
            f"{database.volume}:/old",
            "--entrypoint",
            "sleep",
            images[NEW],
            "100000",
        )
        docker("cp", "--archive", f"{database.name}:/usr/local", f"/tmp/{both}")  # PostgreSQL finds its files relative to itself
        docker("exec", both, "mkdir", "/opt")
        docker("cp", f"/tmp/{both}", f"{both}:/opt/old")
        subprocess.run(["rm", "-r", f"/tmp/{both}"], check=True)
        prepare = "mkdir /new && cp -a /old /copy && chown postgres /new && gosu postgres initdb -D /new -U postgres --no-data-checksums -A trust >/dev/null"
        docker("exec", both, "sh", "-c", prepare)
        upgrade = "cd /tmp && gosu postgres pg_upgrade -b /opt/old/bin -B /usr/local/bin -d /copy -D /new -U postgres -j 2"
        bare = seconds("exec", both, "sh", "-c", upgrade)
        restore = (
            "rm -rf /new /copy && cp -a /old /copy && mkdir /new && chown postgres /new && export PGHOST=/tmp PGUSER=postgres &&"
            "gosu postgres initdb -D /new -A trust -U postgres >/dev/null &&"
            "gosu postgres /opt/old/bin/pg_ctl -D /copy -w -o '-p 6000 -k /tmp' -l /tmp/old.log start >/dev/null &&"
            "gosu postgres pg_ctl -D /new -w -o '-k /tmp' -l /tmp/new.log start >/dev/null"
        )
        docker("exec", both, "sh", "-c", restore)
        pipe = "pg_dumpall -h /tmp -p 6000 -U postgres | psql -q -h /tmp -U postgres -d postgres >/dev/null 2>&1"
        piped = seconds("exec", both, "bash", "-c", pipe)
        print(f"| {OLD} to {NEW}, {size:.1f} GB | s |\n|---|---|")
        print(f"| deploy with `upgrade: true`: copy, statistics and proof | {ours:.0f} |")
        print(f"| `pg_upgrade --jobs 2` alone, copying files | {bare:.0f} |")
        print(f"| `pg_dumpall` piped into `psql` | {piped:.0f} |")
    finally:
        database.remove()
        for major in images:
            docker("image", "rm", f"years-bench:{major}", check=False)


if __name__ == "__main__":
    main()
