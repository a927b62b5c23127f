"""Every command block of the documents: run, or named here with the reason why not and the test that does what it says."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from notifying_postgres.args import BackupArgs, DatabaseArgs
from notifying_postgres.coolify import CoolifyArgs
from notifying_postgres.names import camel_case

from tests.house.test_documents import DOCUMENTS
from tests.support import REPOSITORY
from tests.support.needs import need
from tests.support.postgres import Cluster

# How a line begins that is not run, why, and where what it does is tested.
NOT_RUN = {
    "make setup": ("every run of the tests began with it", "tests/stand_ins/test_setup.py"),
    "make up": ("it makes the dev stack of whoever runs the tests; the same program is deployed", "tests/e2e/test_deploy.py"),
    "make test": ("it would run itself", "Makefile"),
    "make bench": ("it takes ten minutes", "benchmarks/run.py"),
    "make coverage": ("it would run itself", "Makefile"),
    "make lint": ("`make test` begins with it", "Makefile"),
    "make listen": ("it listens to the dev stack; the recording in docs/ is made by it", "toolchain/recording"),
    "make psql": ("it opens the dev stack; the recording in docs/ is made by it", "toolchain/recording"),
    "pytest": ("it would run itself", "tests"),
    "pip install": ("it changes the environment of the tests; the wheel is installed", "tests/e2e/test_other_stack.py"),
    "pulumi stack init": ("a stack is made for each test", "tests/support/stack.py"),
    "pulumi up": ("its host is an example; deployed over a private sshd", "tests/e2e/test_deploy.py"),
    "pulumi stack output": ("a secret of a deployed stack", "tests/e2e/test_options.py"),
    "schema-changes relay": ("its receivers are examples; real ones", "tests/relay/test_webhook.py"),
    "schema-changes serve": ("served to browsers", "tests/relay"),
    "ssh root@203.0.113.10": ("its host is an example; the same script", "tests/years/test_backup.py"),
    "docker": ("its backups are an example; the same steps, on a real one", "tests/years/test_backup.py"),
    "pg_dump": ("the dump is an example; real ones", "tests/sql/test_life.py"),
    "pg_restore": ("the dump is an example; real ones", "tests/sql/test_life.py"),
    "schema-changes check": ("several databases of a server", "tests/listener/test_check.py"),
}
CODE_NOT_RUN = {
    ("README.md", "import pulumi"): ("its host is an example; a whole one is", "tests/e2e/test_other_stack.py"),
    ("README.md", "import postgres"): ("run there", "tests/listener/test_other_clients.py"),
    ("README.md", "import os"): ("run there", "tests/listener/test_other_clients.py"),
    ("docs/listening.md", ""): ("run there", "tests/listener/test_other_clients.py"),
    ("docs/diff.md", "from schema_changes"): ("an event loop is around it in", "tests/diff"),
    ("docs/coolify.md", "from notifying_postgres"): ("its image is an example; the same resource", "tests/coolify/test_plugin.py"),
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}: {self.text.splitlines()[0][:40]}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line that is a command; `a && b` are two."""
        lines = re.sub(r"\\\n|\|\n", " ", self.text).splitlines()  # one that goes on is one
        if any(line.startswith("$ ") for line in lines):  # the others are what they print
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        lines = [part for line in lines for part in line.split(" && ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


BLOCKS = [
    Block(str(document.relative_to(REPOSITORY)), language, text)
    for document in DOCUMENTS
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
]
SHELL = [block for block in BLOCKS if block.language in ("", "bash", "sh")]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.create_database("app")
        cluster.execute("CREATE ROLE reader; CREATE TABLE t ()", "app")
        yield cluster


def test_there_are_blocks() -> None:
    assert len(SHELL) > 8
    assert {block.language for block in BLOCKS} <= {"", "bash", "go", "ini", "js", "json", "python", "sh", "sql", "ts", "yaml"}


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_each_command_is_run_or_named_with_the_reason(block: Block, server: Cluster, tmp_path: Path) -> None:
    for words in block.commands:
        reason = next((NOT_RUN[start] for start in NOT_RUN if " ".join(words).startswith(start)), None)
        if words[0] == "make":  # whatever else, it is there
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=REPOSITORY, check=True, capture_output=True)
        if words[0] == "pytest":
            for path in words[1:]:
                assert path.startswith("-") or "/" not in path or (REPOSITORY / path).exists(), path
        if words[:3] == ["pulumi", "config", "set"]:
            set_by_pulumi(words, tmp_path)
        elif reason:
            assert (REPOSITORY / reason[1]).exists(), reason
        elif words[0] == "schema-changes":
            run_schema_changes(words, server, tmp_path)
        else:
            assert words in (["source", ".cache/env"],), f"neither run nor named: {shlex.join(words)}"


def set_by_pulumi(words: list[str], folder: Path) -> None:
    """Sets it in a stack of its own with the real CLI, and sees that the program knows the setting."""
    need("pulumi")
    env = os.environ | {"PULUMI_BACKEND_URL": f"file://{folder}", "PULUMI_CONFIG_PASSPHRASE": "x", "HOME": str(folder)}
    project = folder / "Pulumi.yaml"
    if not project.exists():
        project.write_text("name: notifying-postgres\nruntime: yaml\n")
        subprocess.run(["pulumi", "stack", "init", "production"], cwd=folder, env=env, check=True, capture_output=True)
    subprocess.run(words, cwd=folder, env=env, input="a secret\n", text=True, check=True, capture_output=True)
    key = next(word for word in words[3:] if not word.startswith("-"))
    first, _, rest = key.partition(".")
    assert re.search(rf"^  {first}:$", (REPOSITORY / "Pulumi.yaml").read_text(), re.MULTILINE), key
    if rest:
        known = {camel_case(name) for name in DatabaseArgs.__annotations__}
        for group, arguments in {"coolify": CoolifyArgs, "backup": BackupArgs}.items():
            known |= {f"{group}.{camel_case(name)}" for name in arguments.__annotations__}
        assert rest.partition(".")[2] in known, key


def run_schema_changes(words: list[str], server: Cluster, folder: Path) -> None:
    """Runs it on a real database in place of the document's; what listens is ended when it does."""
    hosts = f"host=127.0.0.1,127.0.0.1 port={server.port}"
    words = [server.url("app") if "://" in word else re.sub("host=[^ ]+", hosts, word) for word in words]
    command = [sys.executable, "-m", "schema_changes", *(word.replace("user=app", "user=postgres") for word in words[1:])]
    env = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "app"}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if words[1] == "listen":
            assert process.stderr is not None
            assert "Listening to" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in SHELL], ids=str)
def test_each_snippet_is_run_or_named_with_the_reason(block: Block, server: Cluster) -> None:
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "sql":
        with psycopg.connect(server.url("app"), autocommit=True) as connection:
            connection.execute(block.text)
    else:
        if block.language == "python":
            compile(block.text, block.document, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        reason = next(
            (CODE_NOT_RUN[key] for key in CODE_NOT_RUN if key[0] == block.document and block.text.startswith(key[1])), None
        )
        assert reason, "neither run nor named"
        assert (REPOSITORY / reason[1]).exists(), reason
