"""Setting up what is set up already."""

import subprocess
import time

import pytest

from tests.support import REPOSITORY

pytestmark = pytest.mark.needs("docker", "pulumi")


def test_setting_up_again_is_silent_quick_and_changes_nothing() -> None:
    env = REPOSITORY / ".cache/env"
    before, begun = env.read_text(), time.monotonic()
    done = subprocess.run([REPOSITORY / "toolchain/setup"], check=True, capture_output=True, text=True)
    assert time.monotonic() - begun < 10
    assert (done.stdout, done.stderr) == ("", "")
    assert env.read_text() == before
