"""The client: what is asked again, what is not, and what its complaints say."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from notifying_postgres.coolify.client import Coolify, CoolifyError
from notifying_postgres.coolify.database import Refused
from notifying_postgres.coolify.provided import Settings

TOKEN = "7|very-secret"


def client(answer: Callable[[httpx.Request], httpx.Response]) -> tuple[Coolify, list[float]]:
    pauses: list[float] = []
    return Coolify("https://coolify.test/", TOKEN, sleep=pauses.append, transport=httpx.MockTransport(answer)), pauses


def script(*answers: httpx.Response | Exception) -> tuple[Callable[[httpx.Request], httpx.Response], list[httpx.Request]]:
    """Answers one after the other, and keeps the requests."""
    left, seen = list(answers), list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return answer, seen


def test_sends_the_token_and_the_prefix() -> None:
    answer, seen = script(httpx.Response(200, json=[]))
    coolify, _ = client(answer)
    assert coolify.get("/projects", lines=3) == []
    assert str(seen[0].url) == "https://coolify.test/api/v1/projects?lines=3"
    assert seen[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_url_with_the_prefix_is_fine() -> None:
    answer, seen = script(httpx.Response(200, json=[]))
    with Coolify("https://coolify.test/api/v1", TOKEN, transport=httpx.MockTransport(answer)) as coolify:
        coolify.get("/servers")
    assert seen[0].url.path == "/api/v1/servers"


def test_waits_as_long_as_it_is_told_and_asks_again() -> None:
    answer, seen = script(
        httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(503), httpx.Response(200, json={"a": 1})
    )
    coolify, pauses = client(answer)
    assert coolify.get("/x") == {"a": 1}
    assert pauses == [7.0, 2.0]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("said", "waits"),
    [("0", 1.0), ("", 1.0), ("soon", 1.0), ("-5", 1.0), ("1.5", 1.0), (format_datetime(datetime(2020, 1, 1, tzinfo=UTC)), 1.0)],
)
def test_waits_a_second_at_least_whatever_it_is_told(said: str, waits: float) -> None:
    answer, _ = script(httpx.Response(429, headers={"Retry-After": said}), httpx.Response(200, json={}))
    coolify, pauses = client(answer)
    coolify.get("/x")
    assert pauses == [waits]


def test_waits_until_the_time_that_it_is_told() -> None:
    """A proxy in front of Coolify may give a date."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    answer, _ = script(httpx.Response(429, headers={"Retry-After": later}), httpx.Response(200, json={}))
    coolify, pauses = client(answer)
    coolify.get("/x")
    assert 20 < pauses[0] <= 30


def test_never_waits_longer_than_a_minute() -> None:
    answer, _ = script(httpx.Response(429, headers={"Retry-After": "86400"}), httpx.Response(200, json={}))
    coolify, pauses = client(answer)
    coolify.get("/x")
    assert pauses == [60.0]


def test_gives_up_after_five() -> None:
    answer, seen = script(*[httpx.Response(502) for _ in range(9)])
    coolify, pauses = client(answer)
    with pytest.raises(CoolifyError, match="502"):
        coolify.get("/x")
    assert len(seen) == 5
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_never_creates_twice() -> None:
    """A 500 or a lost answer may hide a database that was made; 429 and no connection cannot."""
    for lost in (httpx.Response(500), httpx.ReadTimeout("slow")):
        answer, seen = script(lost, httpx.Response(201, json={}))
        coolify, _ = client(answer)
        with pytest.raises(CoolifyError, match="may have been done all the same"):
            coolify.create("/databases/postgresql", {"name": "x"})
        assert len(seen) == 1
    for early in (httpx.Response(429), httpx.ConnectError("refused")):
        answer, seen = script(early, httpx.Response(201, json={"uuid": "u"}))
        coolify, _ = client(answer)
        assert coolify.create("/databases/postgresql", {"name": "x"}) == {"uuid": "u"}
        assert len(seen) == 2


def test_deleting_what_is_gone_is_fine() -> None:
    answer, _ = script(httpx.Response(404, json={"message": "Database not found."}))
    coolify, _ = client(answer)
    assert coolify.delete("/databases/x", delete_volumes="false") is None


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "expected"),
    [
        ("GET", "/projects", 403, {"message": "Missing required permissions: read"}, "the ability 'read'"),
        ("PATCH", "/databases/u", 403, {"message": "Missing required permissions: write"}, "the ability 'write'"),
        ("POST", "/databases/u/start", 403, {"message": "Missing required permissions: deploy"}, "the ability 'deploy'"),
        ("GET", "/x", 403, {"message": "API is disabled."}, "Settings, Advanced, API Access"),
        ("GET", "/x", 403, {"message": "You are not allowed to access the API."}, "Allowed IPs"),
        ("GET", "/x", 401, {"message": "Unauthenticated."}, "Make a new API token"),
        ("GET", "/x", 400, {"message": "Invalid token."}, "make a new one"),
        (
            "POST",
            "/x",
            422,
            {"message": "Validation failed.", "errors": {"frequency": ["Invalid cron"]}},
            "frequency: Invalid cron",
        ),
        (
            "POST",
            "/x",
            422,
            {"message": "Validation failed.", "errors": {"colour": "This field is not allowed."}},
            "colour: This field",
        ),
        ("GET", "/x", 302, {}, "Found"),
    ],
)
def test_complaints_say_what_to_do_and_never_the_token(
    method: str, path: str, status: int, body: dict[str, object], expected: str
) -> None:
    answer, _ = script(httpx.Response(status, json=body, headers={"Location": "https://elsewhere.test"}))
    coolify, _ = client(answer)
    with pytest.raises(CoolifyError) as caught:
        coolify._request(method, path)
    assert expected in str(caught.value)
    assert caught.value.status == status
    assert TOKEN not in str(caught.value)
    assert "very-secret" not in repr(caught.value)


def test_a_page_instead_of_json_is_named() -> None:
    answer, _ = script(httpx.Response(200, text="<html>"))
    coolify, _ = client(answer)
    with pytest.raises(CoolifyError, match="URL of Coolify's dashboard"):
        coolify.get("/projects")


def test_an_unreachable_coolify_is_named() -> None:
    answer, seen = script(*[httpx.ConnectError("[Errno 111] Connection refused") for _ in range(5)])
    coolify, _ = client(answer)
    with pytest.raises(CoolifyError, match=r"https://coolify\.test does not answer .*Connection refused"):
        coolify.get("/projects")
    assert len(seen) == 5


@pytest.mark.parametrize("token", ["7|very-secret\nX: y", "7|very\u00a0secret", "7|very secret", "\u200b7|very-secret", "", " \n"])
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(Refused, match="coolifyToken") as refused:
        Settings("http://127.0.0.1:9", token).connect({})
    assert "secret" not in str(refused.value).replace("--secret", "")


@pytest.mark.parametrize("url", ["coolify.example.com", "ftp://coolify.example.com", "http://[", ""])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="coolifyUrl"):
        Settings(url, TOKEN).connect({})


def test_what_a_file_has_around_a_token_is_no_part_of_it() -> None:
    with Settings(" http://127.0.0.1:9/\n", f"{TOKEN}\r\n").connect({}) as coolify:
        assert coolify.url == "http://127.0.0.1:9"
