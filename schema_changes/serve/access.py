"""Who may see the feed: everybody on this machine, or who has the token, or whom a reverse proxy has let in."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ..errors import SchemaChangesError

COOKIE = "schema_changes"
# Bytes of what may be a token.
_LONGEST = 10_000
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


class Access:
    """Decides over each request.

    host: the address that is bound.  On another than loopback, a token or a header of a proxy is needed.
    token: what `Authorization: Bearer` has to say; a browser is asked for it once and keeps a cookie.
    header: set by a reverse proxy for whom it has let in; believed from the addresses in `networks` (default: loopback).

    Raises `SchemaChangesError` when anybody could read along, or a network is none.
    """

    def __init__(self, host: str, token: str = "", header: str = "", networks: Sequence[str] = ()) -> None:
        self._token = token
        self._header = header
        self._local = not token and not header
        # shows that its bearer knew the token, and is not the token
        self._cookie = hmac.new(token.encode(), b"schema-changes serve", hashlib.sha256).hexdigest()
        if self._local and not is_loopback(host):
            raise SchemaChangesError(
                f"On {host}, everybody who reaches it could read the schema's changes: give --token-file or --proxy-header, "
                "or serve on 127.0.0.1."
            )
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks or ("127.0.0.0/8", "::1/128")]
        except ValueError as error:
            raise SchemaChangesError(f"--proxy-from: {error}; write an address, or a network such as 10.0.0.0/8.") from error

    def allows(self, request: Request) -> bool:
        """Whether the request comes from who may see the feed."""
        if self._local:
            # by another name that leads here, any page in the user's browser could ask
            return request.url.hostname is not None and is_loopback(request.url.hostname)
        if self._header and request.headers.get(self._header) and request.client is not None:
            address = ipaddress.ip_address(request.client.host)
            if any(address in network for network in self._networks):
                return True
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        return bool(self._token) and (
            (scheme.lower() == "bearer" and _same(word.strip(), self._token))
            or _same(request.cookies.get(COOKIE, ""), self._cookie)
        )

    async def login(self, request: Request) -> Response:
        """The page's form: the token for a cookie."""
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LONGEST:
                    return JSONResponse({"error": "this is too long for a token"}, 413, headers={"Connection": "close"})
        except ClientDisconnect:
            return Response(status_code=400)
        given = body.decode(errors="replace").strip()
        if not self._token or not _same(given, self._token):
            return JSONResponse({"error": "this is not the token"}, 403)
        answer = Response(status_code=204)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
        return answer

    def guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint, for those only who may see it."""

        async def answer(request: Request) -> Response:
            if self.allows(request):
                return await endpoint(request)
            if self._token:
                return JSONResponse({"error": "a token is needed"}, 401, headers={"WWW-Authenticate": "Bearer"})
            return JSONResponse({"error": "not let in by the proxy" if self._header else "ask as localhost"}, 403)

        return answer


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
