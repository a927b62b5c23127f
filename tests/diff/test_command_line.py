"""`schema-changes snapshot`, `diff` and `listen --diff` as a person and a program use them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import psycopg

from schema_changes.diff import Picture
from tests.listener.commands import COMMAND, line, listening, run
from tests.support.postgres import Cluster, execute


def test_a_server_and_a_file(database: str, tmp_path: Path) -> None:
    execute(database, "CREATE TABLE orders (id integer PRIMARY KEY, note text)")
    before = tmp_path / "before.json"
    assert run("snapshot", "--output", before, database).returncode == 0
    same = run("diff", before, database)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    execute(
        database,
        "ALTER TABLE orders RENAME TO purchases",
        "ALTER TABLE purchases ADD qty integer NOT NULL DEFAULT 0",
        "ALTER TABLE purchases DROP note",
        "COMMENT ON TABLE purchases IS 'what was bought'",
        "CREATE VIEW v AS SELECT id FROM purchases",
    )
    done = run("diff", before, database)
    assert done.returncode == 1
    assert done.stdout == (
        "~ table public.orders renamed to public.purchases: comment 'what was bought'\n"
        "    - note text\n"
        "    + qty integer not null default 0\n"
        "+ view public.v\n"
        "    + id integer\n"
    )
    # and back
    after = tmp_path / "after.json"
    after.write_text(run("snapshot", database).stdout)
    back = run("diff", after, before)
    assert back.returncode == 1 and "+ note text" in back.stdout and "- view public.v" in back.stdout
    # no words for who does not care
    execute(database, "GRANT SELECT ON purchases TO PUBLIC")
    assert run("diff", "--ignore", "grants", after, database).returncode == 0
    told = json.loads(run("diff", "--json", after, database).stdout)
    assert told == {
        "differs": True,
        "differences": [
            {
                "action": "altered",
                "kind": "table",
                "schema": "public",
                "name": "purchases",
                "before": {},
                "after": {"grants": {"PUBLIC": ["SELECT"]}},
            }
        ],
    }


def test_two_servers(cluster: Cluster, database: str) -> None:
    other = cluster.create_database(database.rpartition("/")[2] + "_b")
    execute(database, "CREATE TABLE t (a integer)", "CREATE SCHEMA app")
    execute(other, "CREATE TABLE t (a bigint)")
    done = run("diff", database, other)
    assert (done.returncode, done.stdout) == (1, "- schema app\n~ table public.t\n    ~ a integer → bigint\n")
    assert run("diff", "--schema", "app", database, other).stdout == "- schema app\n"
    assert run("diff", "--schema", "!*", database, other).returncode == 0
    # a database is not different from itself
    assert run("diff", database, database).returncode == 0


def test_errors_are_told_apart_from_differences(database: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("{}")
    (tmp_path / "newer").write_text('{"picture": 2, "objects": []}')
    for before, words, code in (
        (tmp_path / "missing", "is neither a file nor a connection string", 2),
        (tmp_path / "other", "There is no picture in", 2),
        (tmp_path / "newer", "is of format 2; this version reads 1", 2),
        (tmp_path, "Is a directory", 2),
        ("postgresql://postgres@127.0.0.1:1/app", "Cannot reach", 3),
    ):
        done = run("diff", before, database)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr and done.stderr.startswith("schema-changes: "), done.stderr


def test_a_picture_needs_no_extension_and_no_privilege(cluster: Cluster, database: str) -> None:
    url = cluster.create_database(database.rpartition("/")[2] + "_bare", extension=False)
    execute(url, "CREATE TABLE t (a integer)", "REVOKE ALL ON t FROM PUBLIC")
    name = f"nobody_{database[-12:]}"
    execute(url, f"CREATE ROLE {name} LOGIN")
    done = run("snapshot", url.replace("postgres@", f"{name}@"))
    assert done.returncode == 0, done.stderr
    picture = Picture.loads(done.stdout)
    assert [item.identity for item in picture if item.kind == "table"] == ["public.t"]
    assert picture.origin is not None
    assert done.stdout == run("snapshot", url).stdout


def test_text_for_people(database: str) -> None:
    execute(
        database,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer DEFAULT 1)",
        "COMMENT ON COLUMN t.a IS 'one'",
        "CREATE VIEW v AS SELECT a FROM t",
    )
    text = run("snapshot", "--text", database).stdout
    assert (
        "table public.t\n    owner postgres\n    id bigint not null generated always as identity\n    a integer default 1\n" in text
    )
    assert "        comment 'one'\n" in text and "    constraint t_pkey PRIMARY KEY (id)\n" in text
    assert "view public.v\n     SELECT a\n       FROM public.t;\n" in text


def test_listen_with_differences(database: str) -> None:
    execute(database, "CREATE TABLE orders (id integer)")
    with listening("--diff", database) as process:
        execute(database, "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
        assert line(process)["tag"] == "ALTER TABLE"
        told = line(process)
        assert told.pop("cursor").startswith(("1-", "2-"))
        assert told == {
            "type": "differences",
            "differences": [
                {
                    "action": "added",
                    "kind": "column",
                    "schema": "public",
                    "table": "orders",
                    "table_kind": "table",
                    "name": "qty",
                    "before": {},
                    "after": {"type": "integer", "not_null": True, "default": "0"},
                }
            ],
        }


def test_listen_from_the_last_run_on(database: str, tmp_path: Path) -> None:
    file = tmp_path / "app.picture"
    with listening("--picture-file", file, database) as process:
        execute(database, "CREATE TABLE t (a integer)")
        assert line(process)["tag"] == "CREATE TABLE"
        assert len(line(process)["differences"]) == 2
        execute(database, "CREATE INDEX i ON t (a)")
        assert line(process)["tag"] == "CREATE INDEX"
    execute(database, "ALTER TABLE t RENAME a TO b")
    assert run("diff", file, database).returncode == 1
    with listening("--picture-file", file, database) as process:
        tags = []
        while (told := line(process))["type"] != "differences":
            tags.append(told["tag"])
        assert tags[-1] == "ALTER TABLE"
        assert ("renamed", "b") in [(d["action"], d["name"]) for d in told["differences"]]
    contradictory = run("listen", "--picture-file", file, "--cursor-file", file, database)
    assert contradictory.returncode == 1 and "keeps the cursor too" in contradictory.stderr


def test_on_a_terminal_in_colour_and_harmless(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as user:
        user.execute('CREATE TABLE "\x1b[2Jevil\u202e" ("new\nline" integer)')
        us, terminal = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        empty = '{"picture": 1, "origin": null, "version": 0, "database": "", "objects": []}'
        subprocess.run([*COMMAND, "diff", "-", database], input=empty, text=True, stdout=terminal, env=environment, check=False)
        os.close(terminal)
        shown = ""
        while True:
            try:
                shown += os.read(us, 10_000).decode()
            except OSError:
                break
        os.close(us)
    assert '\x1b[32m+ table public."\\u001b[2Jevil\\u202e"\x1b[0m' in shown
    assert '\x1b[32m    + "new\\nline" integer\x1b[0m' in shown
