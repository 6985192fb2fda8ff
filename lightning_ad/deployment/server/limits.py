"""What a request must keep to before anything is read of it: its size, its rate, its token."""

import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CLIENTS = 10_000
"""Callers whose rate is remembered."""
GUARDED = "/predict"


class TooLargeError(Exception):
    """A body went on beyond the limit that its header promised to keep."""


class Limits:
    """ASGI middleware that answers 401, 413 or 429 in place of the application.

    Args:
        application: that requests are passed on to.
        largest: bytes of a body.
        token: that requests must bear; None for none.
        rate: requests a second of one caller, with as many at once; None for any.
    """

    def __init__(
        self, application: Application, largest: int, token: str | None, rate: float | None
    ) -> None:
        self._application = application
        self._largest, self._token, self._rate = largest, token, rate
        self._callers: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] != GUARDED:
            await self._application(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._knows(headers.get(b"authorization", b"")):
            await _refuse(send, 401, "a token is needed: Authorization: Bearer TOKEN")
        elif (wait := self._wait(scope)) > 0:
            await _refuse(send, 429, "too many requests", math.ceil(wait))
        elif _length(headers) > self._largest:
            await _refuse(send, 413, self._too_large())
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on; what it says of a body that goes on too long is not sent."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._largest:
                raise TooLargeError
            return message

        async def kept(message: Message) -> None:
            if size <= self._largest:
                await send(message)

        with suppress(TooLargeError):
            await self._application(scope, counted, kept)
        if size > self._largest:
            await _refuse(send, 413, self._too_large())

    def _too_large(self) -> str:
        return f"a request may have {self._largest / 1e6:g} MB"

    def _knows(self, header: bytes) -> bool:
        if self._token is None:
            return True
        return hmac.compare_digest(header, f"Bearer {self._token}".encode())

    def _wait(self, scope: MutableMapping[str, Any]) -> float:
        """Seconds that a caller has to wait: a bucket of tokens that fills at the rate."""
        if self._rate is None:
            return 0.0
        caller, now = (scope.get("client") or ("", 0))[0], time.monotonic()
        most = max(1.0, self._rate)
        left, then = self._callers.pop(caller, (most, now))
        left = min(most, left + self._rate * (now - then))
        allowed = left >= 1
        self._callers[caller] = (left - allowed, now)
        if len(self._callers) > CLIENTS:
            del self._callers[next(iter(self._callers))]
        return 0.0 if allowed else (1 - left) / self._rate


def _length(headers: MutableMapping[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


async def _refuse(send: Send, status: int, reason: str, wait: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if wait is not None:
        headers.append((b"retry-after", str(wait).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": reason}).encode()})
