"""The stand-in base image keeps what the official image's entrypoint promises."""

import gzip
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.docker import docker

pytestmark = pytest.mark.needs("docker")


@pytest.fixture(scope="session", params=["14", "16", "17", "18"])
def image(request: pytest.FixtureRequest) -> str:
    build = subprocess.run(
        [REPOSITORY / "toolchain/base-image/build", request.param], check=True, stdout=subprocess.PIPE, text=True
    )
    return build.stdout.strip()


def wait_for_server(name: str) -> None:
    for _ in range(300):
        ready = ["docker", "exec", name, "pg_isready", "-q", "-h", "127.0.0.1"]
        if subprocess.run(ready, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(docker("logs", name))


def test_the_first_start_makes_the_database_and_runs_the_scripts(image: str, unique_name: str, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "1.sql").write_text("CREATE TABLE one AS SELECT current_database() AS db, inet_server_addr() AS address")
    (scripts / "2.sh").write_text('psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "CREATE TABLE two AS SELECT 2"')
    (scripts / "3.sql.gz").write_bytes(gzip.compress(b"CREATE TABLE three AS SELECT 3"))
    (tmp_path / "password").write_text("it's hidden\n")
    options = ["-v", f"{scripts}:/docker-entrypoint-initdb.d:ro", "-v", f"{tmp_path}/password:/password:ro"]
    options += ["-e", "POSTGRES_PASSWORD_FILE=/password", "-e", "POSTGRES_USER=some one", "-e", "POSTGRES_DB=a db"]
    docker("run", "-d", "--name", unique_name, *options, "-e", "POSTGRES_INITDB_ARGS=--data-checksums", image, "-c", "work_mem=5MB")
    wait_for_server(unique_name)

    def query(sql: str, *words: str) -> str:
        return docker(
            "exec", "-e", "PGPASSWORD=it's hidden", unique_name, "psql", "-XAt", "-U", "some one", "-d", "a db", *words, "-c", sql
        )

    assert query("SELECT db, address IS NULL FROM one, two, three") == "a db|t", "before anybody could connect from outside"
    assert query("SELECT current_setting('work_mem'), current_setting('data_checksums')", "-h", "127.0.0.1") == "5MB|on"
    wrong = [
        "docker",
        "exec",
        "-e",
        "PGPASSWORD=wrong",
        unique_name,
        "sh",
        "-c",
        "psql -h $(hostname -i) -U 'some one' -d 'a db' -c ''",
    ]
    assert "password authentication failed" in subprocess.run(wrong, check=False, capture_output=True, text=True).stderr

    # It stops cleanly, and a second start does not make anything anew.
    docker("stop", "-t", "30", unique_name)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", unique_name) == "0"
    docker("start", unique_name)
    wait_for_server(unique_name)
    assert query("SELECT count(*) FROM one") == "1"


def test_a_configuration_that_the_user_brings(image: str, unique_name: str, tmp_path: Path) -> None:
    """As Coolify mounts one, from the first start on. The socket is where the official image has it all the same."""
    (tmp_path / "postgresql.conf").write_text("listen_addresses = '*'\nwork_mem = '7MB'\n")
    (tmp_path / "postgresql.conf").chmod(0o644)
    options = ["-v", f"{tmp_path}/postgresql.conf:/etc/postgresql/postgresql.conf:ro", "-e", "POSTGRES_PASSWORD=x"]
    docker("run", "-d", "--name", unique_name, *options, image, "postgres", "-c", "config_file=/etc/postgresql/postgresql.conf")
    wait_for_server(unique_name)
    for host in ([], ["-h", "/var/run/postgresql"]):
        assert docker("exec", unique_name, "psql", "-XAtU", "postgres", *host, "-c", "SHOW work_mem") == "7MB"


def test_without_a_password_it_does_not_start(image: str, unique_name: str) -> None:
    done = subprocess.run(["docker", "run", "--name", unique_name, image], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "POSTGRES_PASSWORD" in done.stderr


def test_the_usual_tools_are_there(image: str) -> None:
    script = (
        "pg_dump --version && gosu postgres id -u && bash -c 'echo $BASH' && ls $(pg_config --sharedir)/extension/plpgsql.control"
    )
    lines = docker("run", "--rm", image, "sh", "-c", script).split("\n")
    assert lines[1:] == ["70", "/bin/bash", "/usr/local/share/postgresql/extension/plpgsql.control"]
