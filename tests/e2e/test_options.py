"""What users of Pulumi expect of any component: options, aliases, references, and previews that say what would be replaced."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_deploy import edit_image
from tests.support.docker import BASE_IMAGE, docker
from tests.support.sshd import Sshd, start_sshd, stop_sshd
from tests.support.stack import Stack

PROGRAM = Path(__file__).parent / "options"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, PROGRAM, "options")
    made.config = {"name": made.name, "image": f"{made.name}:16", "baseImage": BASE_IMAGE, "databases": {"app": {}}}
    made.init()
    yield made
    made.remove()


def planned(stack: Stack) -> dict[str, str]:
    """What a preview would do to which resource, by name, but for what stays the same."""
    steps = json.loads(stack.preview("--json"))["steps"]
    return {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] != "same"}


def test_an_instance_renamed_with_an_alias_recreates_nothing(stack: Stack) -> None:
    stack.up()
    before = stack.container()

    stack.config |= {"name": f"{stack.name}-new", "options": {"aliases": [stack.name]}}
    assert not [name for name, op in planned(stack).items() if op not in ("update",)]
    stack.up()

    assert (stack.container()["Id"], stack.container()["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert len(docker("ps", "-aq", "--filter", f"name=^{stack.name}").split()) == 1
    stack.up_changes_nothing()


def test_protect_keeps_it_and_what_it_depends_on_comes_first_and_transforms_reach_the_containers(stack: Stack) -> None:
    stack.config["options"] = {"protect": True, "after": True, "label": True}
    stack.up()
    assert stack.container()["Config"]["Labels"]["team"] == "data"
    resources = {one["urn"].rpartition("::")[2]: one for one in json.loads(stack.state())["deployment"]["resources"]}
    assert resources[f"{stack.name}-app"]["urn"] not in resources["before"].get("dependencies", [])
    assert resources["before"]["urn"] in resources[stack.name]["dependencies"]
    order = list(resources)
    assert order.index("before") < order.index(f"{stack.name}-app")
    assert "protected" in stack._change("destroy", "--yes", "--skip-preview", fails=True)
    assert stack.container()["State"]["Running"]
    stack.up_changes_nothing()

    stack.config["options"] = {"after": True, "label": True}
    stack.up()
    stack.destroy()


def test_the_callers_provider_is_used(stack: Stack) -> None:
    stack.config["options"] = {"provider": True}
    steps = json.loads(stack.preview("--json"))["steps"]
    providers = {
        step["newState"]["provider"].split("::")[-2]
        for step in steps
        if step["newState"]["type"].startswith("command:") and "provider" in step["newState"]
    }
    assert providers == {"the-callers"}


def test_several_instances_on_several_hosts_in_one_stack(stack: Stack, sshd: Sshd, tmp_path: Path) -> None:
    another = start_sshd(tmp_path / "another")
    try:
        hosts = {
            name: {"host": one.address, "host_key": one.host_key, "private_key_file": str(one.private_key_file)}
            for name, one in {"there": sshd, "elsewhere": another}.items()
        }
        stack.config["others"] = {"here": {}, **hosts}
        stack.up()
        assert stack.outputs()["hosts"] == {"here": None, "there": sshd.address, "elsewhere": another.address}
        for suffix in ("app", "here-app", "there-app", "elsewhere-app"):
            assert stack.container(suffix)["State"]["Running"]
        stack.up_changes_nothing()
        stack.destroy()
    finally:
        stop_sshd(another)


def test_another_stack_reads_the_urls_as_secrets(stack: Stack, tmp_path: Path) -> None:
    stack.up()
    reader = Stack(tmp_path / "reader", PROGRAM, "options")
    try:
        reader.env["PULUMI_BACKEND_URL"] = stack.env["PULUMI_BACKEND_URL"]
        reader.config = {"reads": f"organization/options/{stack.name}"}
        reader.init()
        reader.up()
        assert reader.outputs()["url"] == stack.outputs()["urls"]["app"]
        assert "[secret]" in reader.run("stack", "output", "url")
    finally:
        reader.remove()


def test_a_database_that_exists_is_adopted_with_its_data(stack: Stack) -> None:
    """A container that nobody's stack made: as the README has it, it goes and its volume stays."""
    legacy, volume = f"{stack.name}-legacy", f"{stack.name}-legacy-volume"
    settings = ("-e", "POSTGRES_USER=owner", "-e", "POSTGRES_DB=shop", "-e", "POSTGRES_PASSWORD=old one")
    data = ("-e", "PGDATA=/var/lib/postgresql/data", "-v", f"{volume}:/var/lib/postgresql/data")
    docker("run", "-d", "--name", legacy, *settings, *data, stack.config["baseImage"])
    psql = ("psql", "-h", "127.0.0.1", "-U", "owner", "-d", "shop", "-Atc")
    for _ in range(100):
        if docker("exec", "-e", "PGPASSWORD=old one", legacy, *psql, "SELECT 1", check=False) == "1":
            break
        time.sleep(0.2)
    docker("exec", "-e", "PGPASSWORD=old one", legacy, *psql, "CREATE TABLE kept AS SELECT 42 AS answer")

    # Under the same name as before, so that whoever uses it finds it.
    adopted = {"container_name": legacy, "volume_name": volume, "user": "owner", "database_name": "shop", "password": "new one"}
    stack.config["databases"] = {"app": adopted}
    docker("stop", "-t", "60", legacy)
    docker("rm", legacy)
    stack.up()

    assert docker("exec", "-e", "PGPASSWORD=new one", legacy, *psql, "SELECT answer FROM kept") == "42"
    stack.up_changes_nothing()
    stack.destroy()
    assert docker("volume", "ls", "-q", "--filter", f"name={volume}") == volume


def test_a_failure_shows_the_last_lines_of_the_containers_log(stack: Stack) -> None:
    volume = f"{stack.name}-of-no-cluster"
    write = ("sh", stack.config["baseImage"], "-c", "echo 16 >/data/PG_VERSION; echo nonsense >/data/postgresql.conf")
    docker("run", "--rm", "-v", f"{volume}:/data", "--entrypoint", *write)
    stack.config["databases"] = {"app": {"volume_name": volume}}
    said = stack.up(fails=True)
    assert "The database did not come up. The last lines of its log:" in said
    assert 'syntax error in file "/var/lib/postgresql/data/postgresql.conf" line 1' in said


def test_long_steps_say_what_they_do(stack: Stack) -> None:
    copy = edit_image(stack)
    # Starts late, as one that recovers does.
    with (copy / "image" / "Dockerfile").open("a") as dockerfile:
        dockerfile.write('ENTRYPOINT ["sh", "-c", "sleep 7; exec docker-entrypoint.sh \\"$@\\"", "sh"]\nCMD ["postgres"]\n')
    said = stack.up()
    for step in (
        f"Building {stack.name}:16 from {stack.config['baseImage']}",
        f"Verifying {stack.name}:16",
        "waiting for PostgreSQL to start, 5 of at most 60 s",
    ):
        assert step in said
