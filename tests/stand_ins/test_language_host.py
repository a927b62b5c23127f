"""The Python language host that is in use, asked and ended as the engine does it."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

pytestmark = pytest.mark.needs("pulumi-language-python")


@pytest.fixture
def host() -> Iterator[subprocess.Popen[str]]:
    """A host as a shell starts it in the background: with Ctrl-C ignored."""
    command = ["bash", "-c", "trap '' INT; exec pulumi-language-python 127.0.0.1:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def told_port(host: subprocess.Popen[str]) -> int:
    assert host.stdout
    return int(host.stdout.readline())


def test_a_call_that_it_does_not_know_is_refused_as_such(host: subprocess.Popen[str]) -> None:
    """The engine makes do without what a host refuses as unimplemented; any other error ends `pulumi up`."""
    with grpc.insecure_channel(f"127.0.0.1:{told_port(host)}") as channel, ThreadPoolExecutor(32) as threads:
        call = channel.unary_unary("/pulumirpc.LanguageRuntime/NoSuchCall", bytes, bytes)
        # So many, since the refusal overtook the request once in a thousand calls.
        codes = set(threads.map(lambda _: call.future(b"").code(), range(10_000)))
    assert codes == {grpc.StatusCode.UNIMPLEMENTED}


def test_it_ends_when_interrupted(host: subprocess.Popen[str]) -> None:
    """The engine ends each host so, and kills it after five seconds: `pulumi up` in the background would take longer by that."""
    told_port(host)
    host.send_signal(signal.SIGINT)
    assert host.wait(timeout=4) == 0
