"""What the notifications cost inside PostgreSQL: beside bare DDL, a bare NOTIFY, and triggers written in other ways.

    python benchmarks/ddl.py        (4 minutes; prints Markdown)

A server as a new container has it, fsync included. One database for each way of notifying; what is compared is done in
turn in each, and each ratio is of one round. Instructions are counted by valgrind's callgrind, on a server of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from measure import Aim, Comparison, Report, beside, in_turn, percentile, say
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tests.support.postgres import Cluster

TRIGGERS = Path(__file__).parent / "triggers"
# Also the names of the databases.
BARE = "no trigger"
MINIMAL = "the specification's minimal trigger"
POSTGREST = "the PostgREST way"
POSTGRAPHILE = "the PostGraphile way"
OURS = "this extension: log, objects, notice"
SCHEMA_LOG = "a schema log, the way of pgstream and Zero"
BY_HAND = "the same DDL and a bare NOTIFY"
SETUP = {
    BARE: "",
    MINIMAL: (TRIGGERS / "minimal.sql").read_text(),
    POSTGREST: (TRIGGERS / "postgrest.sql").read_text(),
    POSTGRAPHILE: (TRIGGERS / "postgraphile.sql").read_text(),
    OURS: "CREATE EXTENSION schema_notifications",
    SCHEMA_LOG: (TRIGGERS / "schema_log.sql").read_text(),
}
SMALL = "CREATE TABLE t (id int)"
USUAL = (
    "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, "
    "created_at timestamptz NOT NULL DEFAULT now())"
)
# How many times bare DDL ours may cost: the kind of table, the command, the limit.
TABLES = {"one column": (SMALL, 1.28), "a usual table": (USUAL, 1.16)}
# As long as a notice of ours.
NOTIFY = "NOTIFY schema_changed, '" + "x" * 270 + "'"


class Session:
    """A connection with nothing between it and libpq, so that little of the client is measured."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        conninfo = make_conninfo(host=str(cluster.folder), port=cluster.port, user="postgres", dbname=database)
        self.connection = pq.PGconn.connect(conninfo.encode())
        self.run("SET client_min_messages = error")

    def run(self, *statements: str) -> pq.abc.PGresult:
        """Sends one after the other and returns the result of the last."""
        for statement in statements:
            result = self.connection.exec_(statement.encode())
            if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
                raise RuntimeError(self.connection.error_message.decode())
        return result

    def notices(self) -> int:
        """How many have arrived since the last call."""
        self.connection.consume_input()
        count = 0
        while self.connection.notifies():
            count += 1
        return count

    def close(self) -> None:
        self.connection.finish()


def new_databases(cluster: Cluster, *ways: str) -> None:
    """One for each way, named after it, so that all have the same past."""
    for way in ways:
        cluster.execute(f'DROP DATABASE IF EXISTS "{way}"')
        cluster.create_database(way, extension=False)
        session = Session(cluster, way)
        session.run(SETUP[way])
        session.close()


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def pairs(session: Session, create: str, count: int) -> float:
    """Milliseconds for one CREATE and one DROP of the table t, each a transaction."""
    return milliseconds(lambda: session.run(*[create, "DROP TABLE t"] * count)) / count


def cost_of_a_pair(cluster: Cluster, report: Report) -> None:
    say("ddl: one CREATE and one DROP (30 s)")
    new_databases(cluster, *SETUP)
    sessions = {way: Session(cluster, way) for way in SETUP}
    compared: dict[str, dict[str, Comparison]] = {}
    for table, (create, most) in TABLES.items():
        count = 10 if create == SMALL else 5
        for session in sessions.values():
            pairs(session, create, 20)
        ways = {way: partial(pairs, session, create, count) for way, session in sessions.items()}
        compared[table] = beside(in_turn(ways, 120), BARE)
        what = f"time of a CREATE and DROP of a table ({table}) with log, objects and notice, beside bare DDL"
        report.aims.append(Aim(what, compared[table][OURS].ratio, most))
        report.plots[table] = {way: value for way, value in compared[table].items() if way != SCHEMA_LOG}
    for session in sessions.values():
        session.close()
    report.section(
        "One CREATE TABLE and one DROP TABLE",
        "Two transactions, sent one after the other over a Unix socket; nobody listens. A usual table has an identity column that "
        "is its primary key, a text and a timestamp: table, sequence, index, and all that goes with them.",
        ["", *(column for table in compared for column in (f"{table}: ms", "times"))],
        [
            [way, *(cell for values in compared.values() for cell in (f"{values[way].value:.3f}", str(values[way])))]
            for way in SETUP
        ],
    )


def instructions(report: Report) -> None:
    """The same pairs by instructions, which are the same however busy the machine is."""
    title = "The same in instructions"
    if not shutil.which("valgrind"):
        report.section(title, "Not counted: valgrind is missing. `toolchain/setup --bench` installs it.", ["", "instructions"], [])
        return
    say("ddl: the same in instructions (40 s)")
    counted: dict[str, dict[str, tuple[float, float]]] = {table: {} for table in TABLES}
    settings = {"autovacuum": "off", "jit": "off"}
    with Cluster(settings=settings) as cluster:
        new_databases(cluster, *SETUP)
        cluster.stop()
        cluster.wrapper = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={cluster.folder}/callgrind.%p"]
        cluster.start()
        for way in SETUP:
            Session(cluster, way).close()  # the first one of a database after a start fills its relation cache's file
        for table, (create, _) in TABLES.items():
            for way in SETUP:
                # What a session costs, and its first commands, goes with the difference.
                fewer, more = (callgrind(cluster, way, create, count) for count in (10, 30))
                counted[table][way] = (more[0] - fewer[0]) / 20_000, (more[1] - fewer[1]) / 20_000
    for table, (_, most) in TABLES.items():
        what = f"instructions of a CREATE and DROP of a table ({table}), beside bare DDL"
        report.aims.append(Aim(what, counted[table][OURS][0] / counted[table][BARE][0], most))
    report.aims.append(Aim("instructions inside the triggers, one-column pair", counted["one column"][OURS][1], 360, "thousand"))
    for table, values in counted.items():
        bare, ours, schema_log = (values[way][0] for way in (BARE, OURS, SCHEMA_LOG))
        what = f"instructions that ours adds ({table}), beside what a schema log adds"
        report.aims.append(Aim(what, (ours - bare) / (schema_log - bare), 0.333))
    cheaper = " and ".join(
        f"{(values[SCHEMA_LOG][0] - values[BARE][0]) / (values[OURS][0] - values[BARE][0]):.1f} ({table})"
        for table, values in counted.items()
    )
    report.section(
        title,
        "One CREATE TABLE and one DROP TABLE again: thousands of instructions of the backend as callgrind counts them, exact to "
        "1 %, and how many of them are inside the event triggers (the rest of what a trigger adds is the COMMIT's: its notice "
        "and its rows). A schema log writes the whole schema, here of one table, at each command, and the more the more tables "
        f"there are: what ours adds is cheaper by {cheaper} times.",
        ["", *(column for table in TABLES for column in (f"{table}: k", "times", "inside"))],
        [
            [
                way,
                *(
                    cell
                    for values in counted.values()
                    for cell in (
                        f"{values[way][0]:,.0f}",
                        f"{values[way][0] / values[BARE][0]:.2f}",
                        f"{values[way][1]:,.0f}",
                    )
                ),
            ]
            for way in SETUP
        ],
    )


def callgrind(cluster: Cluster, way: str, create: str, count: int) -> tuple[int, int]:
    """Instructions of a session of so many pairs: all of them, and those inside event triggers."""
    session = Session(cluster, way)
    file = cluster.folder / f"callgrind.{session.connection.backend_pid}"
    pairs(session, create, count)
    session.close()
    deadline = time.monotonic() + 60
    while not (file.exists() and "\ntotals: " in (text := file.read_text())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"callgrind has not written {file}: {cluster.log.read_text()[-2000:]}")
        time.sleep(0.05)
    # A function's name stands only where it is met first: fn=(7) name, later fn=(7). The line after calls= ends with what
    # the called function cost, with all that it called.
    names: dict[str, str] = {}
    called, inside = "", 0
    lines = iter(text.splitlines())
    for line in lines:
        if function := re.match(r"c?fn=\((\d+)\)(?: (\S+))?", line):
            number, name = function.groups()
            called = names.setdefault(number, name)
        elif line.startswith("calls="):
            cost = int(next(lines).split()[-1])
            inside += cost * (called in ("EventTriggerDDLCommandStart", "EventTriggerDDLCommandEnd", "EventTriggerSQLDrop"))
    return int(re.findall(r"^totals: (\d+)", text, re.MULTILINE)[0]), inside


def first_command(cluster: Cluster, report: Report) -> None:
    say("ddl: first commands, partitions, temporary tables, nothing changed (20 s)")
    new_databases(cluster, BARE, MINIMAL, OURS)
    ways = (BARE, MINIMAL, OURS)

    def first(way: str) -> float:
        session = Session(cluster, way)
        elapsed = milliseconds(lambda: session.run("BEGIN", SMALL, "COMMIT"))
        session.run("DROP TABLE t")
        session.close()
        return elapsed

    def partitions(way: str) -> float:
        session = Session(cluster, way)
        session.run("CREATE TABLE p (id int, day int) PARTITION BY RANGE (day)", "BEGIN")
        each = [f"CREATE TABLE p{day} PARTITION OF p FOR VALUES FROM ({day}) TO ({day + 1})" for day in range(800)]
        elapsed = milliseconds(lambda: session.run(*each, "COMMIT"))
        session.run("DROP TABLE p")
        session.close()
        return elapsed

    def temporary(way: str) -> float:
        session = Session(cluster, way)
        elapsed = milliseconds(lambda: session.run("BEGIN", *[f"CREATE TEMP TABLE t{n} (id int)" for n in range(2000)], "COMMIT"))
        session.close()
        return elapsed

    def nothing(way: str) -> float:
        session = Session(cluster, way)
        session.run(SMALL)
        loop = "DO $$ BEGIN FOR number IN 1..1000 LOOP CREATE TABLE IF NOT EXISTS t (id int); END LOOP; END $$"
        session.run(loop)
        elapsed = milliseconds(lambda: session.run(loop))
        session.run("DROP TABLE t")
        session.close()
        return elapsed

    rows = []
    for what, work, rounds, most in (
        ("the first CREATE TABLE of a session", first, 60, 1.6),
        ("800 partitions in one transaction", partitions, 3, 1.4),
        ("2,000 temporary tables in one transaction", temporary, 5, 1.1),
        ("1,000 times CREATE TABLE IF NOT EXISTS of one that exists", nothing, 20, None),
    ):
        compared = beside(in_turn({way: partial(work, way) for way in ways}, rounds), BARE)
        rows.append([what, f"{compared[BARE].value:.2f}", *(str(compared[way]) for way in (MINIMAL, OURS))])
        if most is None:
            # milliseconds for a thousand are microseconds for one
            report.aims.append(Aim("a command that changes nothing (CREATE … IF NOT EXISTS)", compared[OURS].value, 12, "µs"))
        else:
            report.aims.append(Aim(f"{what}, beside bare DDL", compared[OURS].ratio, most))
    report.section(
        "First commands, partitions, temporary tables, and nothing",
        "What a session's first command costs more than its next is PostgreSQL's parsing and planning of the triggers. Nothing is "
        "told of temporary tables, nor of a command that changes nothing.",
        ["", "no trigger, ms", "the minimal trigger, times", "ours, times"],
        rows,
    )


def deliver(writer: Session, listeners: Sequence[Session], statement: str) -> float:
    """Milliseconds from sending a statement, which sends one notice, until all listeners have it."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener.connection.socket, selectors.EVENT_READ, listener)
        waiting = len(listeners)
        started = time.perf_counter()
        writer.connection.send_query(statement.encode())
        while waiting:
            ready = selector.select(30)
            if not ready:
                raise TimeoutError(f"{waiting} listeners have heard nothing")
            waiting -= sum(key.data.notices() for key, _ in ready)
        elapsed = time.perf_counter() - started
    while result := writer.connection.get_result():
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise RuntimeError(result.error_message.decode())
    return elapsed * 1000


def commits(writer: Session, listeners: Sequence[Session], by_hand: bool, ddl: bool, count: int) -> list[float]:
    """The same from sending COMMIT, `count` times; the notice is the extension's, or one sent by hand."""
    times = []
    for number in range(count):
        command = [["DROP TABLE t", SMALL][number % 2 == 0]] if ddl else []
        writer.run("BEGIN", *command, *[NOTIFY] * by_hand)
        times.append(deliver(writer, listeners, "COMMIT"))
    return times


def latency(cluster: Cluster, report: Report) -> None:
    say("ddl: from COMMIT to the listener (15 s)")
    new_databases(cluster, BARE, MINIMAL, OURS)
    bare, minimal, ours = ((Session(cluster, way), Session(cluster, way)) for way in (BARE, MINIMAL, OURS))
    for _, listener in (bare, minimal, ours):
        listener.run("LISTEN schema_changed")
    alone = "a bare NOTIFY alone"
    ways = {
        BY_HAND: partial(commits, bare[0], [bare[1]], True, True, 200),
        MINIMAL: partial(commits, minimal[0], [minimal[1]], False, True, 200),
        OURS: partial(commits, ours[0], [ours[1]], False, True, 200),
        alone: partial(commits, bare[0], [bare[1]], True, False, 200),
    }
    in_turn(ways, 1)
    samples = in_turn(ways, 20)
    median, tail = (
        beside({way: [percentile(times, percent) for times in rounds] for way, rounds in samples.items()}, BY_HAND)
        for percent in (50, 99)
    )
    for session in (*bare, *minimal, *ours):
        session.close()
    report.section(
        "From COMMIT to the listener",
        "From sending COMMIT until another connection of the same client has the notice. The ratio is to a NOTIFY in a transaction "
        "with the same DDL: at its COMMIT PostgreSQL waits for the disk, which it does not for a transaction that does nothing but "
        "NOTIFY. Each figure is the median of 20 rounds of 200 commits.",
        ["", "p50 ms", "times", "p99 ms", "times"],
        [[way, f"{median[way].value:.3f}", str(median[way]), f"{tail[way].value:.3f}", str(tail[way])] for way in ways],
    )
    report.aims.append(Aim("p99 from COMMIT to the listener, beside a bare NOTIFY with the same DDL", tail[OURS].ratio, 1.2))
    report.plots["latency p50"], report.plots["latency p99"] = median, tail


def migrate(cluster: Cluster, way: str) -> tuple[float, float, float]:
    """10,000 DDL commands in one transaction of a new session.

    Milliseconds until committed, MB of the backend's own memory, and what the last quarter takes beside the first.
    """
    session = Session(cluster, way)
    session.run("BEGIN")
    started = time.perf_counter()
    quarters = []
    for quarter in range(4):
        each = range(quarter * 1250, quarter * 1250 + 1250)
        statements = [statement for n in each for statement in (f"CREATE TABLE m{n} (id int)", f"DROP TABLE m{n}")]
        quarters.append(milliseconds(partial(session.run, *statements)))
    status = Path(f"/proc/{session.connection.backend_pid}/status").read_text()
    session.run("COMMIT")
    elapsed = (time.perf_counter() - started) * 1000
    session.close()
    return elapsed, int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) / 1024, quarters[3] / quarters[0]


def one_transaction(cluster: Cluster, report: Report) -> None:
    say("ddl: 10,000 commands in one transaction (25 s)")
    new_databases(cluster, BARE, MINIMAL, OURS)
    figures = in_turn({way: partial(migrate, cluster, way) for way in (BARE, MINIMAL, OURS)}, 3)
    seconds, memory = (beside({way: [run[which] for run in runs] for way, runs in figures.items()}, BARE) for which in (0, 1))
    quarter = {way: statistics.median(run[2] for run in runs) for way, runs in figures.items()}
    report.aims.append(Aim("10,000 DDL commands in one transaction, beside bare DDL", seconds[OURS].ratio, 1.5))
    report.aims.append(Aim("the last quarter of the 10,000, beside the first", quarter[OURS], 1.05))
    report.section(
        "10,000 DDL commands in one transaction",
        "5,000 times CREATE TABLE and DROP TABLE, until the COMMIT is done. Memory is the backend's own, just before the COMMIT. "
        "The last column is the time of the last 2,500 commands beside that of the first.",
        ["", "s", "times", "MB", "times", "last quarter"],
        [
            [
                way,
                f"{seconds[way].value / 1000:.2f}",
                str(seconds[way]),
                f"{memory[way].value:.0f}",
                str(memory[way]),
                f"{quarter[way]:.2f}",
            ]
            for way in figures
        ],
    )


def listeners(cluster: Cluster, report: Report) -> None:
    say("ddl: 1 to 500 listeners (25 s)")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(4096, most)), most))
    new_databases(cluster, BARE, OURS)
    writers = {way: Session(cluster, way) for way in (BARE, OURS)}
    crowds: dict[str, list[Session]] = {way: [] for way in writers}
    rows = []

    def write(way: str, count: int) -> float:
        notify = [NOTIFY] * (way == BARE)
        elapsed = milliseconds(
            lambda: [writers[way].run("BEGIN", statement, *notify, "COMMIT") for statement in (SMALL, "DROP TABLE t") * count]
        )
        expected = dict.fromkeys(range(len(crowds[way])), 2 * count)
        while any(expected.values()):
            for number, listener in enumerate(crowds[way]):
                expected[number] -= listener.notices()
        return elapsed / count

    def hear(way: str, count: int) -> float:
        return statistics.median(commits(writers[way], crowds[way], way == BARE, True, count))

    for size in (1, 10, 100, 500):
        for way, crowd in crowds.items():
            while len(crowd) < size:
                crowd.append(Session(cluster, way))
                crowd[-1].run("LISTEN schema_changed")
        count = 20 if size < 100 else 4
        written, heard = (beside(in_turn({way: partial(work, way, count) for way in writers}, 10), BARE) for work in (write, hear))
        figures = ((f"{of[BARE].value:.2f}", f"{of[OURS].value:.2f}", str(of[OURS])) for of in (written, heard))
        rows.append([f"{size}", *(cell for cells in figures for cell in cells)])
        report.plots[f"{size} listeners"] = heard
    for session in (*writers.values(), *crowds[BARE], *crowds[OURS]):
        session.close()
    report.section(
        "1 to 500 listeners",
        "Beside the same DDL with a NOTIFY by hand, in ms: for the writer, one CREATE TABLE and one DROP TABLE, each in BEGIN and "
        "COMMIT; for the listeners, from sending COMMIT until the last of them has the notice. One client process has them all, "
        "and reads one after the other.",
        ["listeners", "writer, by hand", "ours", "times", "last listener, by hand", "ours", "times"],
        rows,
    )


def writers(cluster: Cluster, report: Report) -> None:
    say("ddl: 8 writers (25 s)")
    new_databases(cluster, BARE, MINIMAL, OURS)
    script = cluster.folder / "pair.sql"
    script.write_text("CREATE TABLE w:client_id (id int);\nDROP TABLE w:client_id;\n")

    def bench(way: str) -> float:
        command = [str(cluster.bin / "pgbench"), "--no-vacuum", "--client=8", "--jobs=2", "--time=2", f"--file={script}"]
        command += [f"--host={cluster.folder}", f"--port={cluster.port}", "--username=postgres", way]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return 1 / float(re.findall(r"^tps = ([\d.]+)", output, re.MULTILINE)[0])

    figures = in_turn({way: partial(bench, way) for way in (BARE, MINIMAL, OURS)}, 4)
    to_bare, to_minimal = beside(figures, BARE), beside(figures, MINIMAL)
    report.aims.append(Aim("8 writers, beside the minimal trigger", to_minimal[OURS].ratio, 1.2))
    report.section(
        "8 writers",
        "pgbench with eight clients, each of which makes one CREATE TABLE and one DROP TABLE after the other. PostgreSQL lets "
        "transactions with a NOTIFY commit only one at a time: that is what the minimal trigger shows.",
        ["", "pairs/s", "time beside no trigger", "beside the minimal trigger"],
        [[way, f"{1 / to_bare[way].value:,.0f}", str(to_bare[way]), str(to_minimal[way])] for way in figures],
    )


def big_log(cluster: Cluster, report: Report) -> None:
    say("ddl: a log of a million rows (60 s)")
    few, million = "few", "million"
    for name in (few, million):
        cluster.create_database(name)
    # more than is in there: nothing is pruned
    cluster.execute(f'ALTER DATABASE "{million}" SET schema_notifications.retention_rows = 10000000')
    sessions = {name: Session(cluster, name) for name in (few, million)}

    def cursor(session: Session) -> str:
        value = session.run("SELECT cursor FROM schema_notifications.changes_since()").get_value(0, 0)
        assert value is not None
        return value.decode()

    beginning = cursor(sessions[million])
    sessions[million].run(
        "SET synchronous_commit = off",
        """DO $$ BEGIN
            FOR number IN 1..10000 LOOP
                INSERT INTO schema_notifications.log (tag, objects)
                SELECT 'CREATE TABLE', jsonb_build_array(jsonb_build_object(
                           'action', 'created', 'kind', 'table', 'schema', 'public', 'identity', format('public.t%s', number)))
                  FROM generate_series(1, 100);
                COMMIT;
            END LOOP;
        END $$""",
        "RESET synchronous_commit",
        "VACUUM ANALYZE schema_notifications.log",
        "CHECKPOINT",
    )
    written = beside(in_turn({name: partial(pairs, session, SMALL, 60) for name, session in sessions.items()}, 20), few)

    now = {name: cursor(session) for name, session in sessions.items()}

    def read(name: str, since: str, count: int) -> float:
        query = f"SELECT * FROM schema_notifications.changes_since('{since}')"
        return milliseconds(lambda: sessions[name].run(*[query] * count)) / count

    nothing = beside(in_turn({name: partial(read, name, since, 20) for name, since in now.items()}, 20), few)
    for session in sessions.values():
        session.run(*[SMALL, "DROP TABLE t"] * 50)
    hundred = beside(in_turn({name: partial(read, name, since, 10) for name, since in now.items()}, 20), few)

    plain = "SELECT * FROM schema_notifications.log ORDER BY txid, id"
    ways = {
        plain: lambda: milliseconds(lambda: sessions[million].run(plain)),
        "changes": lambda: read(million, beginning, 1),
    }
    everything = beside(in_turn(ways, 3), plain)
    for session in sessions.values():
        session.close()
    report.section(
        "A log of a million rows",
        "Beside a log of a few rows; for the last line, beside a plain `SELECT * FROM schema_notifications.log ORDER BY txid, id`.",
        ["", "beside, ms", "a million, ms", "times"],
        [
            [what, f"{base.value:{digits}}", f"{other.value:{digits}}", str(other)]
            for what, base, other, digits in (
                ("one CREATE TABLE and one DROP TABLE", written[few], written[million], ".3f"),
                ("`changes_since()`: nothing new", nothing[few], nothing[million], ".3f"),
                ("`changes_since()`: 100 changes", hundred[few], hundred[million], ".3f"),
                ("`changes_since()`: all of the million", everything[plain], everything["changes"], ",.0f"),
            )
        ],
    )


@contextlib.contextmanager
def in_memory(cluster: Cluster) -> Iterator[str]:
    """Has new databases keep their files in memory, if there is room; the log of transactions stays on disk.

    Some file systems search the longer for a new file's inode the more files were deleted lately. That makes bare DDL several
    times as slow in a benchmark that does nothing else, and the triggers seem cheap.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 4e9:
        yield "All files are on disk"
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        if cluster.user:
            shutil.chown(folder, cluster.user)
        cluster.execute(f"CREATE TABLESPACE memory LOCATION '{folder}'")
        cluster.execute("ALTER DATABASE template1 SET TABLESPACE memory")
        yield (
            "Tables are in memory (a tablespace), so that the file system's own cost of making and deleting files hides nothing; "
            "the transaction log is on disk, and each COMMIT waits for it"
        )


def disk(folder: Path) -> float:
    """The median of milliseconds that it takes to write 8 kB for good, where the server's data is."""
    file = os.open(folder / "disk", os.O_CREAT | os.O_WRONLY)
    try:
        times = []
        for _ in range(200):
            os.pwrite(file, bytes(8192), 0)
            times.append(milliseconds(lambda: os.fdatasync(file)))
    finally:
        os.close(file)
        (folder / "disk").unlink()
    return statistics.median(times)


def run() -> Report:
    report = Report()
    # As in a new container, but for the listeners' connections.
    settings = {"fsync": "on", "shared_buffers": "128MB", "max_connections": "1100"}
    with Cluster(settings=settings) as cluster, in_memory(cluster) as where:
        report.paragraph(f"PostgreSQL with the settings of a new container, fsync included. {where}.")
        ((version,),) = cluster.execute("SHOW server_version")
        report.machine = [f"PostgreSQL {version}", f"{disk(cluster.folder):.2f} ms for the disk to keep a page (fdatasync)"]
        cost_of_a_pair(cluster, report)
        instructions(report)
        for part in (first_command, latency, one_transaction, listeners, writers, big_log):
            part(cluster, report)
    return report


if __name__ == "__main__":
    print(run())
