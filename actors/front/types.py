"""HTTP and WebSocket as the handlers see them: thin over ASGI."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import trio

TEXT = "text/plain; charset=utf-8"
BODY_TIMEOUT = 60.0
MAX_FIELDS = 1000
"""Of a query; what is behind them is not looked at."""
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClosedByPeer(Exception):
    """The WebSocket ended."""


class BodyTooLarge(Exception):
    """The request's body is over the limit."""


@dataclass(frozen=True, slots=True)
class Request:
    """What routing and intake look at."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the first."""
    peer: str
    raw_path: str = ""
    """As it was sent, escapes and all."""
    raw_query: str = ""

    @classmethod
    def of(cls, scope: Scope) -> Request:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        # A stray "&&" is no error; of a repeated name the first counts.
        raw_query: str = scope["query_string"].decode("latin-1")
        fields = "&".join(raw_query.split("&", MAX_FIELDS)[:MAX_FIELDS])
        pairs = parse_qsl(fields, keep_blank_values=True)
        query: dict[str, str] = {}
        for name, value in pairs:
            query.setdefault(name, value)
        path, raw_path = _paths(scope)
        client = scope.get("client")
        return cls(scope.get("method", "GET"), path, query, headers, client[0] if client else "", raw_path, raw_query)

    @property
    def well_formed(self) -> bool:
        """Every escape in the path is one."""
        return _ESCAPE.search(self.raw_path.encode("latin-1", "replace")) is None

    @property
    def client_address(self) -> str:
        """The client behind proxies, in the reference's order of trust."""
        for header in ("cf-connecting-ip", "x-forwarded-for", "x-real-ip"):
            value = self.headers.get(header, "").partition(",")[0].strip()
            if value:
                return value[:64]
        return self.peer


def _paths(scope: Scope) -> tuple[str, str]:
    """The path, unescaped and as it was sent; without the slash that a base URL with one at its end leaves."""
    path: str = scope["path"]
    raw: str = (scope.get("raw_path") or path.encode("utf-8", "replace")).decode("latin-1")
    if "://" in raw and not raw.startswith("/"):  # The absolute form, which proxies send (RFC 9112 section 3.2.2).
        raw = "/" + raw.partition("://")[2].partition("/")[2]
        path = unquote(raw)
    if path.startswith("//"):
        return path[1:], raw[1:] if raw.startswith("//") else raw
    return path, raw


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        # A message of protobuf's may be of no bytes and still be one; no text is none.
        pairs = [("content-type", self.content_type)] if self.body or self.content_type != TEXT else []
        if self.status != 204:  # RFC 9110 section 8.6.
            pairs.append(("content-length", str(len(self.body))))
        pairs += self.headers
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]

    async def send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.raw_headers()})
        await send({"type": "http.response.body", "body": self.body})

    async def deny(self, send: Send) -> None:
        """Answer a WebSocket upgrade with plain HTTP (ASGI's denial response)."""
        await send({"type": "websocket.http.response.start", "status": self.status, "headers": self.raw_headers()})
        await send({"type": "websocket.http.response.body", "body": self.body})


NOT_FOUND = Response(404, b"404 page not found\n")


async def read_body(receive: Receive, limit: int) -> bytes:
    """Raises BodyTooLarge, or ClosedByPeer when the client goes away or takes longer than BODY_TIMEOUT."""
    parts, size = [], 0
    with trio.move_on_after(BODY_TIMEOUT):
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClosedByPeer
            part = event.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge
            parts.append(part)
            if not event.get("more_body", False):
                return b"".join(parts)
    raise ClosedByPeer


class WebSocket:
    """An upgrade that was or will be accepted."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closed = False

    async def accept(self) -> None:
        await self._receive()
        await self._send({"type": "websocket.accept"})

    async def receive(self) -> bytes | str:
        """Raises ClosedByPeer."""
        event = await self._receive()
        if event["type"] != "websocket.receive":
            self._closed = True
            raise ClosedByPeer
        data: bytes | None = event.get("bytes")
        text: str = event.get("text") or ""
        return data if data is not None else text

    async def send(self, frame: bytes | str) -> None:
        """Raises ClosedByPeer."""
        if self._closed:
            raise ClosedByPeer
        key = "text" if isinstance(frame, str) else "bytes"
        await self._send({"type": "websocket.send", key: frame})

    async def drain(self) -> None:
        """Take what still comes until the peer has closed, too.

        Hypercorn reads no further while ten messages wait for the application, so a close frame behind them would never
        be seen (architecture study, section 4.2).
        """
        while True:
            event = await self._receive()
            if event["type"] != "websocket.receive":
                return

    async def close(self, code: int) -> None:
        if not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": code})
