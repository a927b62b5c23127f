"""Whatever happens to a schema: the picture that was kept true equals one that is read afresh, and the differences make it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

from schema_changes.diff.differences import Difference
from schema_changes.diff.picture import Picture
from schema_changes.diff.reader import Reader
from tests.diff.random_ddl import RandomDDL
from tests.support.postgres import Cluster

# schema, table, kind and name
Path = tuple[str | None, str | None, str, str]


WHOLES = ("table", "view", "materialized view", "foreign table", "domain", "composite type")


def described(picture: Picture) -> dict[Path, dict[str, Any]]:
    """A picture without oids."""
    found: dict[Path, dict[str, Any]] = {}
    for item in picture:
        whole = item if item.parent is None else picture.objects[item.parent]
        path = whole.schema, None if whole is item else whole.name, item.kind, item.name
        assert path not in found
        found[path] = dict(item.properties)
    return found


def patched(before: dict[Path, dict[str, Any]], differences: Iterable[Difference]) -> dict[Path, dict[str, Any]]:
    """What the differences make of it, as a program would do it that has no more than their JSON."""
    objects = dict(before)
    found: dict[Path, dict[str, Any]] = {}
    wholes: dict[tuple[str | None, str, str], tuple[str | None, str]] = {}
    parts: dict[Path, Path] = {}
    removed: list[tuple[Path, Any]] = []
    fields = [difference.as_dict() for difference in differences]
    whole: tuple[str | None, str] | None = None
    with_whole = False
    for d in fields:
        path = d.get("schema"), d.get("table"), d["kind"], d["name"]
        was = d["before"].get("schema", d.get("schema")), d.get("table"), d["kind"], d["before"].get("name", d["name"])
        if "table" not in d:
            whole, with_whole = (path[0], path[3]), d["action"] == "removed"
        if d["action"] == "removed" and ("table" not in d or (with_whole and path[:2] == whole)):
            assert objects.pop(path) == d["before"]
        elif d["action"] == "removed":
            removed.append((path, d["before"]))
        elif d["action"] == "renamed" and "table" in d:
            parts[was] = path
        elif d["action"] == "renamed":
            wholes[was[0], was[3], was[2]] = path[0], path[3]
    for (schema, table, kind, name), properties in objects.items():
        if table is None:
            now = wholes.get((schema, name, kind), (schema, name))
            path = now[0], None, kind, now[1]
        else:
            # a table and a type can have the same name, but not both have such a part
            now = next((wholes[schema, table, whole] for whole in WHOLES if (schema, table, whole) in wholes), (schema, table))
            path = now[0], now[1], kind, name
        found[path] = dict(properties)
    for path, properties in removed:
        assert found.pop(path) == properties
    found = {parts.get(path, path): properties for path, properties in found.items()}
    for d in fields:
        path = d.get("schema"), d.get("table"), d["kind"], d["name"]
        if d["action"] == "added":
            assert path not in found
            found[path] = d["after"]
        elif d["action"] != "removed":
            before_, after = ({k: v for k, v in d[when].items() if k not in ("name", "schema")} for when in ("before", "after"))
            for name, value in before_.items():
                assert found[path].pop(name) == value
            found[path] |= after
    return found


def storm(cluster: Cluster, version: int, seed: int, commands: int) -> int:
    """Run random commands, and compare after each that succeeds.  Returns how many did."""
    name = f"storm_{seed}"
    url = cluster.create_database(name)
    for role in ("alice", "bob", '"Dr. ""No"""'):
        cluster.execute(f"DO $$BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN END$$")
    cluster.execute("CREATE SCHEMA app; CREATE SCHEMA \"Sales Dept\"; CREATE TYPE app.mood AS ENUM ('a', 'b')", name)
    with (
        psycopg.connect(url, autocommit=True) as user,
        psycopg.connect(url, autocommit=True, prepare_threshold=0) as kept,
        psycopg.connect(url, autocommit=True, prepare_threshold=0) as anew,
    ):
        source = RandomDDL(seed, version)
        reader = Reader(kept)
        reader.refresh()
        done = 0
        before = described(reader.picture)
        recent: list[str] = []
        for _ in range(commands):
            command = source.command()
            try:
                user.execute(command)
            except psycopg.Error:
                if user.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    user.execute("ROLLBACK")
                continue
            done += 1
            recent = [*recent[-9:], command]
            differences = reader.refresh()
            fresh = Reader(anew)
            fresh.refresh()
            assert reader.picture == fresh.picture, (seed, recent)
            after = described(fresh.picture)
            assert patched(before, differences) == after, (seed, recent)
            assert Picture.loads(fresh.picture.dumps()) == fresh.picture
            before = after
            source.tables = {
                item.identity: [part.name for part in parts if part.kind == "column"]
                for item, parts in ((item, fresh.picture.children().get(item.key, ())) for item in fresh.picture)
                if item.kind in ("table", "foreign table")
            }
        return done


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_a_picture_that_is_kept_true_is_true(version: int) -> None:
    with Cluster(version) as cluster:
        assert storm(cluster, version, seed=int(os.environ.get("SEED", version)), commands=250) > 60


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_over_thousands_of_commands(version: int) -> None:
    with Cluster(version) as cluster:
        assert sum(storm(cluster, version, seed=100 * version + number, commands=2000) for number in range(4)) > 2000
