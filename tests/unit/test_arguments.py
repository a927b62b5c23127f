"""Whatever JSON a stack file has at whichever key: it is taken, or refused with one sentence that names the key."""

from typing import Any

import pulumi
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notifying_postgres import DatabaseArgs, NotifyingPostgresArgs
from notifying_postgres.args import BACKUP_RULES, DATABASE_RULES, INSTANCE_RULES, Rule
from notifying_postgres.errors import InvalidArgument
from notifying_postgres.relay import args as relay

SCALARS = st.booleans() | st.integers() | st.floats() | st.text(max_size=80)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3))
SINK_RULES: dict[str, Rule] = {"url": relay.url, "secret": relay.secret, "name": relay.name}
RULES = INSTANCE_RULES | DATABASE_RULES | SINK_RULES | BACKUP_RULES | {"relay": relay.read_relay}


def test_every_argument_but_those_of_several_settings_has_a_rule() -> None:
    assert SINK_RULES.keys() | {"differences"} == relay.RelaySinkArgs.__annotations__.keys()
    assert INSTANCE_RULES.keys() | {"databases"} == NotifyingPostgresArgs.__annotations__.keys()
    assert DATABASE_RULES.keys() | {"backup", "coolify", "relay"} == DatabaseArgs.__annotations__.keys()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@settings(max_examples=60)
@given(value=JSON)
@example(value=2024)
@example(value="no")
@example(value=["a"])
@example(value={"a": 1})
@example(value=1.5)
@example(value="a\nb")
@example(value="\0")
def test_every_value_is_taken_or_refused_in_a_sentence(rule: Rule, value: Any) -> None:
    try:
        rule("the.key", value)
    except InvalidArgument as refusal:
        assert isinstance(refusal, pulumi.RunError)
        assert str(refusal).startswith(("the.key is ", "the.key["))
        assert ": " in str(refusal)


def test_a_base_image_may_be_pinned_by_digest() -> None:
    pinned = f"postgres:16-alpine@sha256:{'0' * 64}"
    assert INSTANCE_RULES["base_image"]("baseImage", pinned) == pinned
