"""A schema of GitLab's size: the first picture within 3 seconds, the differences of a change within 20 milliseconds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psycopg

from schema_changes.diff import Reader
from tests.diff.conftest import Connect
from tests.support.big_schema import make_big_schema


def spent(connection: psycopg.Connection) -> float:
    """Seconds of processor time that this process and the session's server process have taken: a busy machine is no matter."""
    *_, stat = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rpartition(")")
    ticks = sum(map(int, stat.split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def test_a_schema_of_2000_tables(connect: Connect, user: psycopg.Connection) -> None:
    make_big_schema(user)
    user.execute("VACUUM ANALYZE")
    session = connect()
    session.prepare_threshold = 0
    reader = Reader(session)
    before = spent(session)
    reader.refresh()
    assert spent(session) - before < 3
    kinds = [item.kind for item in reader.picture.objects.values()]
    assert (kinds.count("table"), kinds.count("column") >= 20_000, kinds.count("index")) == (2000, True, 3998)

    changes = (
        "ALTER TABLE t5 ADD qty integer NOT NULL DEFAULT 0",
        "ALTER TABLE t5 RENAME qty TO quantity",
        "CREATE INDEX i ON t5 (quantity)",
        "GRANT SELECT ON t5 TO PUBLIC",
        "REVOKE SELECT ON t5 FROM PUBLIC",
        "CREATE TABLE new (id integer PRIMARY KEY)",
        "DROP TABLE new",
        "ALTER TABLE t5 DROP quantity",
    )
    for change in changes:  # once, so that all is prepared
        user.execute(change)
        assert reader.refresh()
    rounds = []
    for _ in range(5):
        before = spent(session)
        for change in changes:
            user.execute(change)
            assert reader.refresh()
        rounds.append((spent(session) - before) / len(changes))
    assert min(rounds) < 0.02
    fresh = Reader(connect())
    fresh.refresh()
    assert reader.picture == fresh.picture
