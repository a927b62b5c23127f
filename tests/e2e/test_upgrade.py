"""Containers made from an older image, with an older version of the extension, are upgraded by the next deploy."""

import re
import shutil

from tests.support import REPOSITORY
from tests.support.stack import Stack


def carry_older_image(stack: Stack) -> None:
    """Has the stack import a copy of the package whose image knows version 0.9 alone."""
    copy = stack.home / "older"
    shutil.copytree(REPOSITORY / "components", copy / "components", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "image", copy / "image")
    (script,) = copy.glob("image/schema_notifications--*.sql")
    script.rename(script.with_name("schema_notifications--0.9.sql"))
    control = copy / "image" / "schema_notifications.control"
    control.write_text(re.sub("default_version = .*", "default_version = '0.9'", control.read_text()))
    stack.env["PYTHONPATH"] = str(copy / "components")


def test_the_next_deploy_upgrades_every_database_and_keeps_all_data(stack: Stack) -> None:
    stack.config["databases"] = {"app": {}, "second": {}}
    carry_older_image(stack)
    stack.up()
    versions = "SELECT extversion FROM pg_extension WHERE extname = 'schema_notifications'"
    assert stack.sql(versions) == [("0.9",)]
    stack.sql('CREATE DATABASE "l\'ater"')
    stack.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    stack.sql("CREATE TABLE kept AS SELECT 43 AS answer", key="second")
    ((cursor,),) = stack.sql("SELECT cursor FROM schema_notifications.changes_since()")
    before = {key: stack.container(key)["Id"] for key in ("app", "second")}

    del stack.env["PYTHONPATH"]
    stack.up()

    for key, answer in (("app", 42), ("second", 43)):
        assert stack.container(key)["Id"] != before[key]
        assert stack.sql("SELECT version_installed, healthy FROM schema_notifications.status()", key) == [("1.0", True)]
        assert stack.sql("SELECT answer FROM kept", key) == [(answer,)]
        assert stack.outputs()["databases"][key]["check"].endswith("heard CREATE TABLE, ALTER TABLE, DROP TABLE")
    with stack.connect() as connection:
        others = connection.execute("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0'").fetchall()
    assert {name for (name,) in others} == {"app", "l'ater", "postgres", "template1"}
    # There is no update from that version: the feed is installed anew, which readers are told.
    assert stack.sql(f"SELECT kind FROM schema_notifications.changes_since('{cursor}')") == [("reset",)]
    stack.up_changes_nothing()
