"""What the tests of the image call: the build script, a container."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from notifying_postgres.container import CAPABILITIES

from tests.support import REPOSITORY
from tests.support.docker import BASE_IMAGE, docker

CONTEXT = REPOSITORY / "image"
VERSION = re.search(r"default_version = '(.+)'", (CONTEXT / "schema_notifications.control").read_text())[1]  # type: ignore[index]
# As a deploy confines its containers.
CONFINED = ("--security-opt", "no-new-privileges:true", "--cap-drop", "ALL", *(f"--cap-add={name}" for name in CAPABILITIES))
BASE_IMAGE_18 = BASE_IMAGE.replace("16", "18")


def build(*options: str, context: Path = CONTEXT) -> subprocess.CompletedProcess[str]:
    """Runs the build script as a program would: no terminal. However it ends, it must leave no container."""
    command = ["bash", str(context / "build-postgres-image.sh"), *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        stdout, stderr = script.communicate()
    assert docker("ps", "--all", "--quiet", "--filter", f"name=schema-notifications-verify-{script.pid}-") == ""
    return subprocess.CompletedProcess(command, script.returncode, stdout, stderr)


class Server:
    """A container of the image."""

    def __init__(self, name: str) -> None:
        self.name = name

    def psql(self, *statements: str, database: str = "postgres", user: str = "postgres") -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return docker("exec", self.name, "psql", "-XqAt", "-U", user, "-d", database, *commands)

    def converge(self, password: str = "", check: bool = True) -> str:
        """Its lines, each with its end; what it says of a failure too unless it must succeed."""
        command = ("exec", "-i", self.name, "schema-notifications-converge")
        return docker(*command, stdin=f"{password}\n", check=check, errors=not check) + "\n"

    def logs(self) -> str:
        return docker("logs", self.name, check=False)


def make_old(server: Server, database: str) -> None:
    """Gives the database a version 0.9, from which there is an update that wants the log for itself."""
    files = f"""cd $(pg_config --sharedir)/extension && cp schema_notifications--{VERSION}.sql schema_notifications--0.9.sql &&
        echo 'LOCK TABLE schema_notifications.log;' >schema_notifications--0.9--{VERSION}.sql"""
    docker("exec", server.name, "sh", "-c", files)
    server.psql("DROP EXTENSION schema_notifications", "CREATE EXTENSION schema_notifications VERSION '0.9'", database=database)


def make_unreleased(server: Server, version: str) -> None:
    """Gives the database postgres what readers and updates see of a version from before the first release."""
    script = """
        CREATE SCHEMA schema_notifications;
        CREATE SEQUENCE schema_notifications.losses;
        CREATE TABLE schema_notifications.log (id bigint, txid xid8, tag text, objects jsonb);
        CREATE FUNCTION schema_notifications.changes_since() RETURNS TABLE (kind text, "cursor" text) LANGUAGE sql
            RETURN ('cursor'::text, format('1-%s-%s-%s-1-700.700.', (SELECT system_identifier FROM pg_control_system()),
                                     (SELECT oid FROM pg_database WHERE datname = current_database()),
                                     'schema_notifications.log'::regclass::oid));
        CREATE FUNCTION schema_notifications.notify_schema_change() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER schema_notifications_ddl_command_end ON ddl_command_end
            EXECUTE FUNCTION schema_notifications.notify_schema_change();
    """
    server.psql("DROP EXTENSION schema_notifications")
    write = ("exec", "-i", server.name, "sh", "-c")
    docker(*write, f"cat > $(pg_config --sharedir)/extension/schema_notifications--{version}.sql.old", stdin=script)
    files = f"""cd $(pg_config --sharedir)/extension && mv schema_notifications--{VERSION}.sql kept &&
        mv schema_notifications--{version}.sql.old schema_notifications--{version}.sql"""
    docker("exec", server.name, "sh", "-c", files)
    server.psql(f"CREATE EXTENSION schema_notifications VERSION '{version}'")
    docker("exec", server.name, "sh", "-c", f"cd $(pg_config --sharedir)/extension && mv kept schema_notifications--{VERSION}.sql")
