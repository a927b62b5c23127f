"""Tests that need more than Python packages say what they lack, and are skipped; under `make test` what is lacking is an error."""

import signal
from pathlib import Path

import pytest

from tests.needs import lack

NEEDS = {
    "consumers": ("docker", "npm", "pulumi", "pulumi-language-nodejs", "pulumi-language-yaml"),
    "coolify": ("docker", "pulumi"),
    "e2e": ("docker", "pulumi", "sshd"),
    "image": ("docker",),
    "toolchain": ("docker", "pulumi", "sshd"),
}

# A shell starts what it runs in the background with Ctrl-C ignored, and the programs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if reason := lack(*NEEDS.get(folder, ())):
            item.add_marker(pytest.mark.skip(reason=reason))
