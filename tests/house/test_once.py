"""What is written down in two places, because one of them is for people or for Pulumi, says the same in both."""

import dataclasses

from notifying_postgres.args import CheckResult

import schema_changes


def test_the_checks_result_is_the_same_to_whoever_deploys() -> None:
    """Pulumi derives a stack's outputs from a TypedDict; the check has a dataclass, and knows nothing of Pulumi."""
    assert set(CheckResult.__annotations__) == {field.name for field in dataclasses.fields(schema_changes.CheckResult)}
