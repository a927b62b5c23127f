"""What is written down in two places, because one of them is for people or for Pulumi, says the same in both."""

import dataclasses
import subprocess
from typing import Any

import pytest
from notifying_postgres.args import CheckResult, NotifyingPostgresArgs
from notifying_postgres.coolify.args import CoolifyDatabaseArgs, CoolifyPasswordArgs
from notifying_postgres.names import camel_case, renamed, snake_case
from notifying_postgres.plugin import VERSION

import schema_changes
from tests.support import REPOSITORY


def test_the_checks_result_is_the_same_to_whoever_deploys() -> None:
    """Pulumi derives a stack's outputs from a TypedDict; the check has a dataclass, and knows nothing of Pulumi."""
    assert set(CheckResult.__annotations__) == {field.name for field in dataclasses.fields(schema_changes.CheckResult)}


@pytest.mark.parametrize("args", [NotifyingPostgresArgs, CoolifyDatabaseArgs, CoolifyPasswordArgs])
def test_a_name_goes_from_python_to_a_stack_file_and_back(args: type) -> None:
    names = list(args.__annotations__)
    assert [snake_case(camel_case(name)) for name in names] == names


def test_names_of_environment_variables_are_the_users() -> None:
    given = {"environmentVariables": {"aB": "1", "c_d": "2"}, "backups": [{"keepAmountS3": 1, "databases": None}]}
    python: dict[str, Any] = {"environment_variables": {"aB": "1", "c_d": "2"}, "backups": [{"keep_amount_s3": 1}]}
    assert renamed(given, snake_case) == python
    assert renamed(python, camel_case) == {**given, "backups": [{"keepAmountS3": 1}]}


def test_the_version_is_written_once() -> None:
    """In plugin.py, from which the distribution, the plugin and the page of the API have it; people read it in the changelog."""
    words = ["git", "grep", "-lF", VERSION, "--", ".", ":!*/go.*", ":!*.lock"]
    found = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["CHANGELOG.md", "components/notifying_postgres/plugin.py", "docs/api.md"]
