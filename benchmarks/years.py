"""How long 1 GB is away for its next major version: the deploy's copy, beside pg_upgrade and beside dump and restore.

python benchmarks/years.py        (`make bench-years`; prints Markdown; needs Docker and the stand-in base images of 16 and 18)
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.support.docker import docker
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


def main() -> None:
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
