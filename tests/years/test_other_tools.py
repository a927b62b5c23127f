"""schema-notifications-cluster with GNU's tools, as in an image that is built on a Debian base, not busybox'; and a cluster of another
encoding, which they take for something that is no text."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.postgres import install


@pytest.mark.parametrize("options", ["--encoding=LATIN1 --locale=C", "--encoding=SQL_ASCII --locale=C"])
def test_a_cluster_of_another_encoding_is_copied_with_gnu_tools(options: str) -> None:
    programs = install(16) / "bin"
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="years-") as folder:
        os.chmod(folder, 0o777)
        user = "Chef" if "ASCII" in options else "postgres"
        script = f"""
            set -e
            initdb -D {folder}/old --username={user} {options} --auth trust >/dev/null
            trap 'pg_ctl -D {folder}/old -m immediate stop >/dev/null' EXIT
            pg_ctl -D {folder}/old -w -l {folder}/log -o '-k {folder} -c listen_addresses=' start >/dev/null
            psql -Xq -v ON_ERROR_STOP=1 -d template1 -c 'CREATE EXTENSION schema_notifications' -c 'CREATE DATABASE app'
            PGCLIENTENCODING=LATIN1 psql -Xq -v ON_ERROR_STOP=1 -d app <{folder}/sql
            bash {REPOSITORY}/image/schema-notifications-cluster dump {folder}/copy
            bash {REPOSITORY}/image/schema-notifications-cluster load {folder}/copy {folder}/new
        """
        sql = """CREATE ROLE "münze"; CREATE TABLE "größe" (t text); INSERT INTO "größe" VALUES ('çà'); COMMENT ON TABLE "größe" IS 'ü';
                 ALTER TABLE "größe" OWNER TO "münze"; CREATE VIEW v AS SELECT 'ä'::text AS x, * FROM "größe";"""
        Path(folder, "sql").write_bytes(sql.encode("latin-1"))
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": folder,
            "PGUSER": user,
            "HOME": folder,
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(
            ["bash", "-c", script],
            env=environment,
            user="nobody" if os.getuid() == 0 else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert 'CREATE ROLE "m\\xfcnze"' in repr(Path(folder, "copy", "globals.sql").read_bytes())
