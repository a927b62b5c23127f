"""Fixtures that several folders use, and what a test needs beside Python packages."""

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.docker import remove_leftovers
from tests.support.needs import need, use_official_plugins

pytest_plugins = ("tests.support.database", "tests.support.sshd", "tests.support.stack")

# Six test runs on two cores are no reason to fail; and a database that examples share is what some tests want.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("busy machine")

# A shell starts what it runs in the background with Ctrl-C ignored, and the programs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# For what runs with the Python of .venv where a checkout was set up: the tests may run with another one.
os.environ["NOTIFYING_POSTGRES_PYTHON"] = sys.executable

# Whoever ends the tests wants what they made to go with them.
signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))


def pytest_sessionstart(session: pytest.Session) -> None:
    use_official_plugins()
    if not hasattr(session.config, "workerinput"):  # in the first process, before there are workers
        remove_leftovers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was skipped is told in one line for each reason, not for each test: pytest folds lines of the same place."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = (str(Path(__file__).parent), None, report.longrepr[2])  # type: ignore[assignment]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        need(*mark.args)
