"""The dev stack by one word: up, down, psql, listen, url. The Makefile calls it with the environment that toolchain/setup wrote."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".pulumi-state"
STACK = "dev"


def main(command: str) -> None:
    os.chdir(ROOT)
    use_local_state_unless_chosen()
    commands = {"up": up, "down": down, "psql": psql, "listen": listen, "url": url}
    if command not in commands:
        sys.exit(f"toolchain/dev: {command!r} is none of {', '.join(commands)}")
    commands[command]()


def use_local_state_unless_chosen() -> None:
    """A user who chose a Pulumi backend, or logged in to one, keeps it; otherwise the state lies in this folder."""
    credentials = Path(os.environ.get("PULUMI_HOME", "~/.pulumi")).expanduser() / "credentials.json"
    logged_in = credentials.is_file() and json.loads(credentials.read_text()).get("current")
    if logged_in or os.environ.get("PULUMI_BACKEND_URL") or os.environ.get("PULUMI_ACCESS_TOKEN"):
        return
    STATE.mkdir(exist_ok=True)
    os.environ["PULUMI_BACKEND_URL"] = STATE.as_uri()
    if "PULUMI_CONFIG_PASSPHRASE_FILE" not in os.environ:
        os.environ.setdefault("PULUMI_CONFIG_PASSPHRASE", "")  # the state's secrets are as safe as this folder


def up() -> None:
    pulumi("stack", "select", "--create", STACK)
    state = pulumi("stack", "export", "--stack", STACK, capture=True)
    if "docker:index/container:Container" not in state and (container := another_clones(STACK)):
        sys.exit(
            f"The container {container} is the dev database of another clone of this repository, and there can be one at a time: "
            f"run 'make down' there first. If that clone is gone: docker rm -f {container} && docker volume rm {container}-data"
        )
    pulumi("up", "--yes", "--skip-preview", "--suppress-outputs", "--suppress-progress", "--stack", STACK)
    summarise(outputs())


def another_clones(stack: str) -> str | None:
    """The container of a dev stack that is complete: converge.sh has noted its id, and it is still there."""
    for note in Path.home().glob(f".notifying-postgres/known/{stack}-*"):
        inspect = ["docker", "inspect", "--type", "container", "--format", "{{.Id}}", note.name]
        there = subprocess.run(inspect, capture_output=True, text=True, check=False).stdout.strip()
        if there and there == note.read_text().split()[0]:
            return note.name
    return None


def down() -> None:
    existing = json.loads(pulumi("stack", "ls", "--json", capture=True) or "[]")
    if STACK not in [stack["name"].rsplit("/", 1)[-1] for stack in existing]:
        print(f"There is no stack {STACK}: nothing to remove.")
        return
    image = outputs().get("imageId")
    pulumi("destroy", "--yes", "--stack", STACK)
    pulumi("stack", "rm", "--yes", "--preserve-config", STACK)
    if image:
        remove_without_name(image)


def remove_without_name(image: str) -> None:
    """Removes an image whose name is another's by now. One that has a name left belongs to whoever gave it that."""
    names = ["docker", "image", "inspect", "--format", "{{len .RepoTags}}", image]
    if subprocess.run(names, capture_output=True, text=True, check=False).stdout.strip() == "0":
        removed = subprocess.run(["docker", "image", "rm", image], capture_output=True, text=True, check=False)
        print(f"Image {image} is removed." if removed.returncode == 0 else f"Image {image} stays: {removed.stderr.strip()}")


def psql() -> NoReturn:
    name, database, url = the_database()
    terminal = ["-t"] if sys.stdin.isatty() else []
    who = ["-U", unquote(url.username or "postgres"), "-d", unquote(url.path.lstrip("/"))]
    print(f"psql in container {database['container_name']}, database {name}", file=sys.stderr)
    become("docker", "exec", "-i", *terminal, database["container_name"], "psql", *who)


def listen() -> NoReturn:
    _, database, url = the_database()
    os.environ["PGPASSWORD"] = unquote(url.password or "")
    os.environ["PGUSER"], os.environ["PGDATABASE"] = unquote(url.username or ""), unquote(url.path.lstrip("/"))
    become("schema-changes", "listen", "--container", database["container_name"])


def url() -> None:
    """Prints the URL that reaches the database from this machine, where the names of containers are not known."""
    _, database, url = the_database()
    address = database.get("published") or docker_address(database["container_name"]) + ":5432"
    print(url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@{address}").geturl())


def the_database() -> tuple[str, dict[str, Any], Any]:
    """The first of the dev stack's databases: its key, its output and its URL."""
    values = outputs()
    if not values.get("databases"):
        sys.exit("The dev database is not there yet: run 'make up' first.")
    key, database = next(iter(values["databases"].items()))
    return key, database, urlsplit(values["urls"][key])


def summarise(values: dict[str, Any]) -> None:
    """What was built, that it works, how to go on."""
    for key, database in values["databases"].items():
        versions, _, heard = database["check"].partition(", heard ")
        print(f"\n{key}: {versions}, in container {database['container_name']}")
        print(f"  image    {values['imageId'].removeprefix('sha256:')[:12]}")
        print(f"  check    made, altered and dropped a table; heard {heard}")
        print("  connect  make psql; or by URL from this machine, password included: make url")
    print("\nNext:")
    for command, what in {
        "make listen": "watch the schema change",
        "make psql": "change it, in another terminal: CREATE TABLE orders (id int);",
        "make down": "remove it all, data included",
    }.items():
        print(f"  {command:14}{what}")


def outputs() -> dict[str, Any]:
    return dict(json.loads(pulumi("stack", "output", "--json", "--show-secrets", "--stack", STACK, capture=True) or "{}"))


def pulumi(*words: str, capture: bool = False) -> str:
    """Runs pulumi; returns what it prints when `capture` is set, and then the empty string when it fails."""
    settings = Path(f"Pulumi.{STACK}.yaml")
    before = settings.read_bytes()
    done = subprocess.run(["pulumi", *words], stdout=subprocess.PIPE if capture else None, text=True, check=False)
    # Pulumi notes there how its state is encrypted. The state in this folder knows that as well, and the file is in git.
    if os.environ.get("PULUMI_BACKEND_URL") == STATE.as_uri():
        settings.write_bytes(before)
    if done.returncode and not capture:
        sys.exit(f"toolchain/dev: failed: pulumi {shlex.join(words)}")
    return done.stdout if capture and done.returncode == 0 else ""


def docker_address(container: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    done = subprocess.run(["docker", "inspect", "--format", template, container], stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.split():
        sys.exit(f"The dev database's container {container} is not running: run 'make up'.")
    return done.stdout.split()[0]


def become(*argv: str) -> NoReturn:
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
