"""Where changes go: a webhook, a NATS subject, a Redis stream.

Each sink takes CloudEvents in the order of the feed and returns once it has them for good.  What it may have got before,
after a crash in between, it gets again; NATS and Redis then keep one, a webhook's receiver can tell by the `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ..errors import SchemaChangesError
from .cloudevent import CONTENT_TYPE, body, identity

if TYPE_CHECKING:
    import httpx
    from nats.aio.client import Client
    from nats.js import JetStreamContext

CloudEvent = dict[str, Any]

# Seconds that a sink may take to answer.
_TIMEOUT = 20
# Bytes of an answer that are read.
_ANSWER = 65_536
# Seconds for reading it once it is known to be good.
_BODY = 2
# Characters of what it says that are told.
_LONGEST = 300
# How many of its last messages are looked through for what may have come before; more than any batch.
_RECENT = 500


class NotDelivered(Exception):
    """The sink did not take the events; try again.  str() of it says why, without secrets.

    reason: shortened, and without what a terminal could take for a command, as it may be in the words of a server.
    """

    def __init__(self, reason: str, wait: float = 0) -> None:
        said = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in reason)
        super().__init__(said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…")
        self.wait = wait
        """Seconds that the sink asked to be left alone."""


class Gone(Exception):
    """The sink wants nothing any more."""


class Sink(ABC):
    """Takes events."""

    most: ClassVar[int] = 100
    """Events that `deliver` takes at once."""

    def __init__(self, url: SplitResult) -> None:
        self.url = url
        address = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        self.where = f"{url.scheme}://{address}{f':{url.port}' if url.port else ''}{url.path}"
        """The URL without user, password and query, which may be secrets."""

    @abstractmethod
    async def deliver(self, events: Sequence[CloudEvent]) -> None:
        """Hand the events over, in their order, connecting first where need be; raises `NotDelivered` and `Gone`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection."""


def open_sink(url: str, secret: str = "") -> Sink:
    """The sink for a URL: https://…, http://…, nats://…/SUBJECT, tls://…/SUBJECT, redis://…/STREAM or rediss://…/STREAM.

    secret: of a webhook, the signing secret (`whsec_…`), or several, each in a line of its own, while the receiver changes
    from one to the next; of the others, the password (NATS without a user: the token).

    Raises `SchemaChangesError` for anything else.
    """
    parts = urlsplit(url)
    try:
        port_is_wrong = parts.port == 0
    except ValueError:
        port_is_wrong = True
    if port_is_wrong or not parts.hostname or parts.scheme not in _SINKS:
        # the text may have a password in it
        raise SchemaChangesError(
            f"A sink of scheme {parts.scheme!r} is not known, or its URL has no host or a wrong port: write https://host/path, "
            "nats://host/SUBJECT or redis://host/STREAM."
        )
    try:
        return _SINKS[parts.scheme](parts, secret)
    except ModuleNotFoundError as error:
        raise SchemaChangesError(
            f"The relay to {parts.scheme}:// needs the Python package {error.name}: pip install 'notifying-postgres[relay]'."
        ) from error


class Webhook(Sink):
    """POST of each event, signed after the Standard Webhooks specification."""

    most = 1

    def __init__(self, url: SplitResult, secret: str) -> None:
        import httpx
        import standardwebhooks

        super().__init__(url)
        try:
            httpx.URL(url.geturl())
        except httpx.InvalidURL as error:
            raise SchemaChangesError("The URL of a webhook is too long, or its host is none: write https://host/path.") from error
        if not secret:
            raise SchemaChangesError(
                f"The webhook {self.where} has no signing secret, so its receiver could not tell who sends: give one "
                "(whsec_ and 24 to 64 random bytes in base64) in a file or the environment."
            )
        try:
            self._signers = [standardwebhooks.Webhook(line) for line in secret.split()]
        except ValueError as error:
            raise SchemaChangesError(f"The signing secret of {self.where} is not whsec_ and base64.") from error
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, headers={"user-agent": "notifying-postgres"})

    async def deliver(self, events: Sequence[CloudEvent]) -> None:
        """One request for each event; only an answer of 2xx means that it was taken."""
        import httpx

        for event in events:
            text, key, now = body(event), identity(event), datetime.now(UTC)
            headers = {
                "content-type": CONTENT_TYPE,
                "webhook-id": key,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": " ".join(signer.sign(key, now, text) for signer in self._signers),
            }
            request = self._client.build_request("POST", self.url.geturl(), content=text.encode(), headers=headers)
            try:
                async with asyncio.timeout(_TIMEOUT):
                    answer = await self._client.send(request, stream=True)
            except (httpx.HTTPError, TimeoutError) as error:
                raise NotDelivered(str(error).strip() or f"no answer within {_TIMEOUT} s") from error
            await _read(answer)
            if answer.status_code == httpx.codes.GONE:
                raise Gone("the receiver answered 410 Gone: it wants no more")
            if not answer.is_success:
                wait = _retry_after(answer.headers.get("retry-after"))
                raise NotDelivered(f"the receiver answered {answer.status_code} {answer.reason_phrase}", wait)

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._client.aclose()


class Nats(Sink):
    """A message of each event into the JetStream stream that has the subject; made where there is none."""

    def __init__(self, url: SplitResult, secret: str) -> None:
        import nats  # noqa: F401 - to be told now that it is missing

        super().__init__(url)
        self._subject = unquote(url.path.strip("/"))
        if "" in self._subject.split(".") or set(self._subject) & set(" *>\t\r\n"):
            raise SchemaChangesError(f"{self.where} names no NATS subject: write nats://host/SUBJECT, without wildcards.")
        password = secret.strip() or unquote(url.password or "")
        self._login = {"user": unquote(url.username), "password": password} if url.username else {"token": password or None}
        self._client: Client | None = None
        # what came last, when the connection was opened: the stream's own memory of message ids may be too short
        self._recent: set[str] = set()

    async def deliver(self, events: Sequence[CloudEvent]) -> None:
        """Publish all, then wait until the stream has stored all."""
        import nats.errors

        try:
            async with asyncio.timeout(_TIMEOUT):
                if self._client is None:
                    self._client = await self._connect()
                    self._recent = await self._last_ids(self._client.jetstream(timeout=_TIMEOUT))
                stream = self._client.jetstream(timeout=_TIMEOUT)
                messages = [
                    stream.publish(
                        self._subject,
                        body(event, self._client.max_payload - 1000).encode(),
                        headers={"Nats-Msg-Id": identity(event), "Content-Type": CONTENT_TYPE},
                    )
                    for event in events
                    if identity(event) not in self._recent
                ]
                await asyncio.gather(*messages)  # begun, and so sent, in their order
        except Exception as error:
            await self.close()
            if isinstance(error, (nats.errors.Error, OSError, TimeoutError)):
                raise NotDelivered(_words(error)) from error
            raise
        self._recent = set()

    async def _connect(self) -> Client:
        import nats
        import nats.errors

        said: list[Exception] = []

        async def note(error: Exception) -> None:
            said.append(error)

        try:
            return await nats.connect(
                f"{self.url.scheme}://{self.url.netloc.rpartition('@')[2]}",
                # after a failure the batch is handed over again, by the relay, which knows which
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_TIMEOUT,
                name="notifying-postgres",
                error_cb=note,
                **self._login,
            )
        except nats.errors.NoServersError as error:
            raise NotDelivered(_words(said[0] if said else error)) from error

    async def _last_ids(self, stream: JetStreamContext) -> set[str]:
        """The ids of the last messages of the stream with the subject, which is made where there is none."""
        import nats.js.errors

        try:
            name = await stream.find_stream_name_by_subject(self._subject)
        except nats.js.errors.NotFoundError:
            name = self._subject.replace(".", "_")
            await stream.add_stream(name=name, subjects=[self._subject])
        ids = set()
        last = (await stream.stream_info(name)).state.last_seq
        for number in range(last, max(0, last - self.most), -1):
            with contextlib.suppress(nats.js.errors.NotFoundError):  # deleted
                ids.add(((await stream.get_msg(name, number)).headers or {}).get("Nats-Msg-Id", ""))
        return ids

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


# Atomic: of what is handed over twice, the stream gets one.  KEYS: the stream.  ARGV: how many of the last entries to
# look through, the length to trim to, then of each event its id, type and text.
_ADD = """
local known = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1])) do
  for field = 1, #entry[2], 2 do
    if entry[2][field] == 'id' then known[entry[2][field + 1]] = true end
  end
end
for first = 3, #ARGV, 3 do
  if not known[ARGV[first]] then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'id', ARGV[first], 'type', ARGV[first + 1], 'event', ARGV[first + 2])
  end
end
"""


class Redis(Sink):
    """An entry of a Redis stream for each event: fields `id`, `type` and `event`, the JSON.

    In the URL: `?maxlen=N` trims the stream to about so many entries (100,000), `&db=N` chooses a database.
    """

    def __init__(self, url: SplitResult, secret: str) -> None:
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        super().__init__(url)
        self._key = unquote(url.path.strip("/"))
        options = {name: values[-1] for name, values in parse_qs(url.query).items()}
        database, self._length = options.pop("db", "0"), options.pop("maxlen", "100000")
        if not self._key or options or not (database.isdecimal() and self._length.isdecimal() and int(self._length)):
            raise SchemaChangesError(f"{self.where} is no Redis stream: write redis://host/STREAM, ?maxlen=N and &db=N if need be.")
        self._client = redis.asyncio.Redis(
            host=url.hostname or "",
            port=url.port or 6379,
            db=int(database),
            username=unquote(url.username) if url.username else None,
            password=secret.strip() or unquote(url.password or "") or None,
            ssl=url.scheme == "rediss",
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            client_name="notifying-postgres",
            retry=Retry(NoBackoff(), 0),  # the relay tries again
        )

    async def deliver(self, events: Sequence[CloudEvent]) -> None:
        """One script, which adds those that are not there."""
        import redis.exceptions

        words = [word for event in events for word in (identity(event), event["type"], body(event))]
        try:
            await self._client.eval(_ADD, 1, self._key, _RECENT, self._length, *words)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            await self._client.connection_pool.disconnect()
            raise NotDelivered(_words(error)) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


_SINKS: dict[str, Callable[[SplitResult, str], Sink]] = {
    "https": Webhook,
    "http": Webhook,
    "nats": Nats,
    "tls": Nats,
    "redis": Redis,
    "rediss": Redis,
}


def _retry_after(value: str | None) -> float:
    """Seconds: the header has a number of them, or a date; an hour at most."""
    if value is None:
        return 0
    if value.isdecimal() and len(value) < 10:
        return min(int(value), 3600)
    try:
        return min(max(0, email.utils.parsedate_to_datetime(value).timestamp() - time.time()), 3600)
    except ValueError:
        return 0


async def _read(answer: httpx.Response) -> None:
    """Read to its end, the connection serves the next event; what is long, slow or wrong is not read: the status has said all."""
    import httpx

    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_BODY):
            async for _ in answer.aiter_raw():
                if answer.num_bytes_downloaded > _ANSWER:
                    break
    await answer.aclose()


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {_TIMEOUT} s"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
