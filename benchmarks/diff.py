"""What differences cost beside a schema of GitLab's size: the first picture, each change, and memory.

python benchmarks/diff.py        (half a minute; prints Markdown)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from measure import Aim, Report, say

from schema_changes.diff import Reader
from tests.support.big_schema import make_big_schema
from tests.support.postgres import Cluster

CHANGES = {
    "ALTER TABLE … ADD COLUMN": ("ALTER TABLE t5 ADD qty integer NOT NULL DEFAULT 0", "ALTER TABLE t5 DROP qty"),
    "CREATE and DROP TABLE": ("CREATE TABLE new (id integer PRIMARY KEY, a text)", "DROP TABLE new"),
    "CREATE and DROP INDEX": ("CREATE INDEX i ON t5 (c3)", "DROP INDEX i"),
    "GRANT and REVOKE": ("GRANT SELECT ON t5 TO PUBLIC", "REVOKE SELECT ON t5 FROM PUBLIC"),
    "RENAME COLUMN": ("ALTER TABLE t5 RENAME c0 TO renamed", "ALTER TABLE t5 RENAME renamed TO c0"),
}
ROUNDS = 20

_MEMORY = """
import json, resource, sys, psycopg
from pathlib import Path
from schema_changes.diff import Reader

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

reader = Reader(psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=0))
before = resident()
reader.refresh()
print(json.dumps([len(reader.picture.objects), resident() - before]))
"""


def run() -> Report:
    say("Differences: a schema of 2,000 tables")
    report = Report()
    with Cluster() as cluster:
        url = cluster.create_database("big")
        with psycopg.connect(url, autocommit=True) as user:
            make_big_schema(user)
            user.execute("VACUUM ANALYZE")
            with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
                firsts = []
                reader = Reader(connection)
                for _ in range(5):
                    reader = Reader(connection)
                    started = time.perf_counter()
                    reader.refresh()
                    firsts.append(time.perf_counter() - started)
                bare: list[float] = []
                found: dict[str, list[float]] = {name: [] for name in ("nothing has changed", *CHANGES)}
                for _ in range(ROUNDS):
                    for name, commands in (("nothing has changed", ("SELECT 1", "SELECT 1")), *CHANGES.items()):
                        for command in commands:
                            user.execute(command)
                            started = time.perf_counter()
                            connection.execute("SELECT 1")
                            bare.append(time.perf_counter() - started)
                            started = time.perf_counter()
                            reader.refresh()
                            found[name].append(time.perf_counter() - started)
        root = Path(__file__).parent.parent
        done = subprocess.run([sys.executable, "-c", _MEMORY, url], cwd=root, check=True, stdout=subprocess.PIPE)
        objects, megabytes = json.loads(done.stdout)
    rows = [("a bare query", f"{1000 * statistics.median(bare):.2f}"), ("the first picture", f"{1000 * min(firsts):.0f}")]
    rows += [
        (name if name != "nothing" else "nothing has changed", f"{1000 * statistics.median(of):.1f}") for name, of in found.items()
    ]
    report.section(
        "What has changed in 2,000 tables",
        f"Reading the picture of a schema with 2,000 tables, 20,000 columns and {objects:,} objects in all, and then what "
        f"each command changed. The picture takes {megabytes:.0f} MB of the listener's memory. Medians of {2 * ROUNDS}; of the "
        "first picture the best of 5.",
        ["", "ms"],
        rows,
    )
    slowest = max(statistics.median(of) for of in found.values())
    report.aims.append(Aim("The first picture of 2,000 tables", min(firsts), 3, "s"))
    report.aims.append(Aim("The differences of a change in 2,000 tables", 1000 * slowest, 20, "ms"))
    return report


if __name__ == "__main__":
    print(run())
