"""One relay at a time has a cursor: another that wants it waits, says for whom, and goes on when the first ends, however it ends.

A cursor in the database is had by an advisory lock of the session that listens: it goes with the session, so a relay that is
killed leaves none, and one that lost its session to another has to ask again (`Delivery` sees to what happened meanwhile).
A cursor file is had by a lock on a file beside it, which goes with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from ..cursor import TableCursorStore
from ..feed import AsyncSession

_log = logging.getLogger("schema_changes")

# Seconds between two attempts.
_PAUSE = 1

# A server that knows no better takes two hours to see that a host lost its power; until then the session has its locks.
_KEEPALIVES = """
SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false)"""

_TRY = "SELECT pg_try_advisory_lock($1::int8)::text"

# What the role may not see of another's session is null, as is the address of one that came by the socket.
_HOLDER = """
SELECT format('a session of %s (%s)', coalesce(usename, 'another role'),
              concat_ws(', ', 'process ' || pid || ' of the server', 'from ' || host(client_addr),
                        'since ' || backend_start::timestamptz(0)))
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::int8 << 32 | objid::int8 = $1::int8"""


async def hold_rows(stores: Mapping[str, TableCursorStore], session: AsyncSession, waits: Callable[[str], object]) -> None:
    """Have the cursors of these sinks for as long as the session lasts; wait for other relays.

    waits: called with the sentence that says for whom.  Raises what `AsyncSession.rows` raises.
    """
    await session.rows(_KEEPALIVES)
    keys = {_key(store): name for name, store in stores.items()}
    for key in sorted(keys):  # in one order, so that no two wait for each other
        said = None
        while await session.rows(_TRY, [str(key)]) != [(b"true",)]:
            holders = await session.rows(_HOLDER, [str(key)])
            if holders:
                said = _say(keys[key], (holders[0][0] or b"").decode(errors="replace"), said, waits)
            await asyncio.sleep(_PAUSE)


@contextlib.asynccontextmanager
async def holding_files(files: Mapping[str, Path], waits: Callable[[str], object]) -> AsyncIterator[None]:
    """Have the cursor files of these sinks; wait for other relays.  Arguments as for `hold_rows`.  Raises `OSError`."""
    with contextlib.ExitStack() as stack:
        for name, file in sorted(files.items(), key=lambda item: item[1]):
            lock = stack.enter_context(open(file.with_name(f"{file.name}.lock"), "a+"))  # noqa: ASYNC230 (a few bytes)
            said = None
            while not _locked(lock.fileno()):
                lock.seek(0)
                said = _say(name, lock.read().strip() or f"whoever has {lock.name}", said, waits)
                await asyncio.sleep(_PAUSE)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield


def _key(store: TableCursorStore) -> int:
    """The same for all that keep this cursor."""
    return int.from_bytes(hashlib.blake2b(f"relay {store.place}".encode(), digest_size=8).digest(), signed=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def _say(sink: str, holder: str, said: str | None, waits: Callable[[str], object]) -> str:
    sentence = f"The cursor of sink {sink} is another relay's: {holder} has it; waiting for that one to end."
    if sentence != said:
        _log.warning("%s", sentence)
        waits(sentence)
    return sentence
