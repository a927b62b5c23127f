"""Cursor stores: files that are mounted, linked, torn or without rights; tables that somebody else had a hand in."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema_changes import FileCursorStore, Reset, TableCursorStore, listen
from schema_changes.diff import TablePictureStore
from schema_changes.errors import NotPermitted
from tests.listener.commands import run
from tests.listener.events import identities, listening, nothing_more, take
from tests.support.postgres import Cluster, execute

CURSOR = "2-1-2-3-10.20.12_15"
LATER = "2-1-2-3-100.200."


def test_a_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere/real", tmp_path / "link"
    store = FileCursorStore(link)
    link.symlink_to(real)
    store.save(CURSOR)
    real.chmod(0o640)
    store.save(LATER)
    assert link.is_symlink()
    assert store.load() == FileCursorStore(real).load() == LATER
    assert real.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "elsewhere") == ["real"]


def test_a_save_is_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = os.replace

    def note_and_replace(old: str, new: str) -> None:
        done.append("replaced")
        replace(old, new)

    def note(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", note_and_replace)
    FileCursorStore(tmp_path / "cursor").save(CURSOR)
    assert done[0].startswith(f"{tmp_path}/.cursor.")
    assert done[1:] == ["replaced", str(tmp_path)]


MOUNT = """
import os, sys
from schema_changes import FileCursorStore
store = FileCursorStore(sys.argv[1])
for cursor in ("2-1-2-3-100.200.", "2-1-2-3-1.2."):
    inode = os.stat(sys.argv[1]).st_ino
    store.save(cursor)
    assert store.load() == cursor
    assert os.stat(sys.argv[1]).st_ino == inode
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_single_file_that_is_mounted_is_written_in_place(tmp_path: Path) -> None:
    """As Docker mounts one: it cannot be replaced (EBUSY)."""
    outside, inside = tmp_path / "outside", tmp_path / "folder/inside"
    inside.parent.mkdir()
    outside.write_text("")
    inside.write_text("")
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2"',
            "sh",
            outside,
            inside,
            sys.executable,
            MOUNT,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("no namespaces for mounts here")
    assert done.returncode == 0, done.stderr
    assert FileCursorStore(outside).load() == "2-1-2-3-1.2."
    assert os.listdir(inside.parent) == ["inside"]


@given(st.integers(0, 80), st.permutations([CURSOR, LATER]), st.booleans())
def test_a_torn_write_is_never_taken_for_a_cursor(tmp_path: Path, length: int, cursors: list[str], first: bool) -> None:
    """A power cut in the middle of a write in place: some bytes are new, the others old, zero or not there."""
    path = tmp_path / "cursor"
    store = FileCursorStore(path)
    store.save(cursors[0])

    def in_place(cursor: str) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", Mock(side_effect=OSError(errno.EBUSY, "busy")))
            store.save(cursor)
        return path.read_bytes()

    old = path.read_bytes() if first else in_place(cursors[0])
    new = in_place(cursors[1])
    assert store.load() == cursors[1]
    for torn in (new[:length] + old[length:], new[:length] + b"\0" * max(0, len(new) - length), new[:length]):
        path.write_bytes(torn)
        assert store.load() in (*cursors, "unreadable") or str(store.load()).startswith("c")


@pytest.mark.parametrize(
    "content", [b"\0" * 120, b"", b"\n", b"\xff\xfe", b"x\0y\n", b"2-1-2-3-10.20.12_15\nwrong\n", b"checked 00 2-1-2-3-1.2."]
)
async def test_a_file_without_a_cursor_gives_a_reset_and_a_warning(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "cursor"
    path.write_bytes(content)
    async with asyncio.timeout(10), aclosing(listen(database, store=FileCursorStore(path))) as events:
        assert isinstance(await anext(events), Reset)
        execute(database, "CREATE TABLE t ()")
        change = await anext(events)
        assert not isinstance(change, Reset)
    assert any("holds no cursor" in record.getMessage() and record.levelno == logging.WARNING for record in caplog.records)


def test_a_line_that_a_user_wrote_is_a_cursor(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    for text in (CURSOR, f"{CURSOR}\n", f"{CURSOR}\r\n"):
        path.write_text(text)
        assert FileCursorStore(path).load() == CURSOR


def test_the_folder_is_asked_for_at_the_start_by_the_user_s_own_path(database: str, tmp_path: Path) -> None:
    done = run("listen", "--cursor-file", str(tmp_path / "nowhere/cursor"), database)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{tmp_path}/nowhere/cursor" in done.stderr


def roles(cluster: Cluster, database: str) -> tuple[str, str]:
    """The URLs of a superuser and of somebody who may create in public."""
    suffix = database.rpartition("_")[2]
    cluster.execute(f"CREATE ROLE mallory_{suffix} LOGIN")
    execute(database, f"GRANT CREATE ON SCHEMA public TO mallory_{suffix}")
    return database, database.replace("postgres@", f"mallory_{suffix}@")


def test_a_table_that_another_role_made_with_a_trigger_is_refused(cluster: Cluster, database: str) -> None:
    superuser, mallory = roles(cluster, database)
    role = mallory.partition("//")[2].partition("@")[0]
    execute(
        mallory,
        "CREATE TABLE public.schema_changes_cursor (name text PRIMARY KEY, cursor text NOT NULL, saved_at timestamptz NOT NULL)",
        "CREATE FUNCTION public.climb() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN ALTER ROLE {role} SUPERUSER; RETURN new; END $$",
        "CREATE TRIGGER climb BEFORE INSERT ON public.schema_changes_cursor FOR EACH ROW EXECUTE FUNCTION public.climb()",
        "GRANT ALL ON public.schema_changes_cursor TO PUBLIC",
    )
    store = TableCursorStore(superuser, "app")
    with pytest.raises(NotPermitted, match=f"belongs to {role}"):
        store.load()
    with pytest.raises(NotPermitted, match=f"belongs to {role}"):
        store.save(CURSOR)
    assert cluster.execute(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'") == [(False,)]
    # its owner may use what has no trigger
    execute(mallory, "DROP TRIGGER climb ON public.schema_changes_cursor")
    own = TableCursorStore(mallory, "app")
    own.save(CURSOR)
    assert own.load() == CURSOR


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER t "
            "AFTER UPDATE ON public.schema_changes_cursor EXECUTE FUNCTION public.f()",
            "has triggers",
        ),
        ("CREATE RULE r AS ON UPDATE TO public.schema_changes_cursor DO ALSO NOTHING", "has rules"),
        (
            "ALTER TABLE public.schema_changes_cursor RENAME TO real; "
            "CREATE VIEW public.schema_changes_cursor AS SELECT * FROM public.real",
            "is no plain table",
        ),
    ],
)
def test_a_table_with_code_is_refused(database: str, statement: str, reason: str) -> None:
    store = TableCursorStore(database, "app")
    assert store.load() is None
    store.save(CURSOR)
    execute(database, statement)
    for call in (store.load, lambda: store.save(LATER)):
        with pytest.raises(NotPermitted, match=reason):
            call()


def test_names_are_looked_up_in_no_schema_of_others(cluster: Cluster, database: str) -> None:
    superuser, mallory = roles(cluster, database)
    execute(
        mallory,
        "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$",
        "CREATE FUNCTION public.steal(regrole, regrole) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$",
        "CREATE OPERATOR public.= (LEFTARG = regrole, RIGHTARG = regrole, FUNCTION = public.steal)",
    )
    execute(database, f"ALTER DATABASE {database.rpartition('/')[2]} SET search_path = public, pg_catalog")
    store = TableCursorStore(superuser, "größe")
    store.save(CURSOR) if store.load() is not None else store.save(LATER)
    assert store.load() == LATER


async def test_it_keeps_the_place_of_each_name(database: str) -> None:
    stores = {name: TableCursorStore(database, name) for name in ("app", "größe")}
    for store in stores.values():
        async with listening(database, store=store):
            pass
    execute(database, "CREATE TABLE a ()")
    for store in stores.values():
        async with listening(database, store=store) as queue:
            assert identities(await take(queue, 1)) == ["public.a"]
        async with listening(database, store=store) as queue:
            await nothing_more(queue)
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT name FROM public.schema_changes_cursor ORDER BY name").fetchall()
    assert rows == [("app",), ("größe",)]


@pytest.mark.parametrize("kind", [TableCursorStore, TablePictureStore])
def test_stores_that_begin_at_once_make_one_table(database: str, kind: type[TableCursorStore | TablePictureStore]) -> None:
    """As the sinks of a relay do."""
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda name: kind(database, name).load(), "abcdefgh")) == [None] * 8
