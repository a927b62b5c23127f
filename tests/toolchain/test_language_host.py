"""The Python language host that is in use, asked as the engine asks it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import grpc


def test_a_call_that_it_does_not_know_is_refused_as_such() -> None:
    """The engine makes do without what a host refuses as unimplemented; any other error ends `pulumi up`."""
    with subprocess.Popen(["pulumi-language-python", "127.0.0.1:1"], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout
        try:
            with grpc.insecure_channel(f"127.0.0.1:{int(host.stdout.readline())}") as channel, ThreadPoolExecutor(32) as threads:
                call = channel.unary_unary("/pulumirpc.LanguageRuntime/NoSuchCall", bytes, bytes)
                # So many, since the refusal overtook the request once in a thousand calls.
                codes = set(threads.map(lambda _: call.future(b"").code(), range(10_000)))
        finally:
            host.kill()
    assert codes == {grpc.StatusCode.UNIMPLEMENTED}
