"""Coolify's HTTP API, as far as PostgreSQL databases need it.

    with Coolify("https://coolify.example.com", token) as coolify:
        record = coolify.get(f"/databases/{uuid}")

The client knows how to ask, to ask again and to complain; what the answers mean is in database.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx

ATTEMPTS = 5
LONGEST_PAUSE = 60.0  # Coolify counts requests by the minute
TIMEOUT = httpx.Timeout(30, connect=10)

# What routes/api.php asks of a token (Coolify 4.3.11), to name what is missing where the answer does not.
_ABILITIES = {"GET": "read", "POST": "write", "PATCH": "write", "DELETE": "write"}
_ACTIONS = ("/start", "/stop", "/restart")

_DOUBT = (
    "\nIt may have been done all the same, and the next deploy would do it again: look in Coolify's dashboard first. What was "
    "created can be deleted there, or, a database, adopted with 'pulumi import' and the uuid in its URL."
)


class CoolifyError(Exception):
    """What Coolify refused or could not do, in a sentence that says what to do. It never holds the token.

    :ivar status: the HTTP status, or None when there was no answer.
    :ivar doubtful: whether it may have been done all the same.
    """

    def __init__(self, message: str, status: int | None = None, *, doubtful: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.doubtful = doubtful


class Coolify:
    """One Coolify and the token to talk to it.

    Answers of 429 (with its Retry-After) and of 500 and above are asked again, up to five times and later and later, except where
    asking again could do a second thing: then only 429 and connections that never came about.

    :param url: such as ``https://coolify.example.com``, with or without ``/api/v1``.
    :param token: an API token with the abilities read, write and deploy.
    :param sleep: waits for so many seconds between attempts.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        sleep: Callable[[float], object] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/api/v1")
        self._sleep = sleep
        # A redirect would carry the token to wherever it points.
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=TIMEOUT,
            transport=transport,
            follow_redirects=False,
        )

    def __enter__(self) -> "Coolify":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Any:
        """Reads.

        :raises CoolifyError: as all methods do.
        """
        return self._request("GET", path, params=query)

    def create(self, path: str, body: Mapping[str, object]) -> Any:
        """Creates something by POST; not asked again where that could create it twice."""
        return self._request("POST", path, json=body, repeatable=False)

    def act(self, path: str, body: Mapping[str, object]) -> Any:
        """Does something by POST that may be done twice."""
        return self._request("POST", path, json=body)

    def order(self, path: str) -> None:
        """Has Coolify put something into its queue by POST, once: it would do it twice. Whoever waits for it sees whether an order
        without an answer has arrived."""
        try:
            self._request("POST", path, repeatable=False)
        except CoolifyError as error:
            if not error.doubtful:
                raise

    def update(self, path: str, body: Mapping[str, object]) -> Any:
        """Changes by PATCH."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str, **query: str) -> Any:
        """Deletes. Something that is gone already is fine."""
        with absent_is_fine():
            return self._request("DELETE", path, params=query)

    def _request(self, method: str, path: str, *, repeatable: bool = True, **request: Any) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._client.request(method, path, **request)
            except httpx.RequestError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if attempt < ATTEMPTS and (repeatable or unsent):
                    self._sleep(_pause(attempt, None))
                    continue
                doubtful = not (repeatable or unsent)
                doubt = _DOUBT if doubtful else ""
                raise CoolifyError(
                    f"Coolify at {self.url} does not answer ({method} {path}): {_reason(error)}{doubt}", doubtful=doubtful
                ) from None
            again = response.status_code == 429 or (response.status_code >= 500 and repeatable)
            if again and attempt < ATTEMPTS:
                self._sleep(_pause(attempt, response.headers.get("Retry-After")))
                continue
            return self._answer(method, path, response, doubtful=not repeatable and response.status_code >= 500)
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, method: str, path: str, response: httpx.Response, doubtful: bool) -> Any:
        status = response.status_code
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                raise CoolifyError(
                    f"{self.url} answered {method} {path} with something that is not JSON: is it the URL of Coolify's dashboard?",
                    status,
                ) from None
        raise CoolifyError(
            f"Coolify at {self.url} refused {method} {path} with {status}: {_complaint(method, path, response)}"
            f"{_DOUBT if doubtful else ''}",
            status,
            doubtful=doubtful,
        )


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """Lets a 404 pass."""
    try:
        yield
    except CoolifyError as error:
        if error.status != 404:
            raise


def _pause(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait: 1, 2, 4, 8, or longer where the answer says so. At the edge of a minute it says 0."""
    asked = 0.0
    if retry_after and retry_after.isdecimal():
        asked = float(retry_after)
    elif retry_after:
        with suppress(ValueError, TypeError):  # from whoever answers in Coolify's place
            asked = parsedate_to_datetime(retry_after).timestamp() - time.time()
    return min(max(asked, 2.0 ** (attempt - 1)), LONGEST_PAUSE)


def _reason(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__


def _complaint(method: str, path: str, response: httpx.Response) -> str:
    """Coolify's own words and what to do about them."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    message = str(body.get("message") or body.get("error") or response.reason_phrase).rstrip(".") + "."
    ability = "deploy" if path.endswith(_ACTIONS) else _ABILITIES[method]
    if response.status_code == 401:
        return f"{message} Make a new API token in Coolify (Keys & Tokens) with the abilities read, write and deploy."
    if response.status_code == 400 and message.startswith("Invalid token"):
        return f"{message} The token's team is gone, or its user left it: make a new one."
    if response.status_code == 403:
        if "API is disabled" in message:
            return f"{message} Switch it on in Coolify: Settings, Advanced, API Access."
        if "not allowed to access" in message:
            return f"{message} Add this machine's address in Coolify: Settings, Advanced, Allowed IPs."
        return f"{message} This needs a token with the ability '{ability}'."
    if response.status_code == 429:
        return "too many requests in a minute, five times in a row. Try again later, or raise API_RATE_LIMIT of Coolify."
    errors = body.get("errors")
    if isinstance(errors, dict):
        details = "; ".join(f"{field}: {' '.join(text) if isinstance(text, list) else text}" for field, text in errors.items())
        return f"{message} {details}"
    return message
