"""Client signalling over a WebSocket (`/rtc`, two connections): the generation that every LiveKit server speaks."""

from __future__ import annotations

import ssl
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import trio
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
)

from lkactor import __version__

PROTOCOL = 16
MAX_MESSAGE = 16 * 1024 * 1024
CONNECT_TIMEOUT = 15.0


class SignalError(Exception):
    """`status` is the HTTP status of a refusal, 0 if the server was not reached or went away."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class SignalClient:
    """One signalling connection. Texts of refusals are the server's, the token taken out of them."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    @classmethod
    async def connect(
        cls,
        nursery: trio.Nursery,
        url: str,
        token: str,
        *,
        auto_subscribe: bool,
        resume: str = "",
        within: float = CONNECT_TIMEOUT,
    ) -> SignalClient:
        """`url` is ws://, wss://, http:// or https://; `resume` the SID of the participant that we were.

        Raises SignalError; after `within` seconds too, for trio-websocket does not see a hang-up in its handshake.
        """
        query: dict[str, object] = {
            "protocol": PROTOCOL,
            "version": __version__,
            "auto_subscribe": int(auto_subscribe),
        }
        if resume:
            query |= {"reconnect": 1, "sid": resume, "reconnect_reason": models.ReconnectReason.RR_SIGNAL_DISCONNECTED}
        target = f"{ws_url(url)}/rtc?{urlencode(query)}"
        try:
            tls = ssl.create_default_context() if target.startswith("wss") else None
            with trio.fail_after(within):
                websocket = await connect_websocket_url(
                    nursery,
                    target,
                    ssl_context=tls,
                    extra_headers=[(b"Authorization", b"Bearer " + token.encode())],
                    max_message_size=MAX_MESSAGE,
                )
        except ConnectionRejected as error:
            raise refusal(error, token) from None
        except (HandshakeError, ConnectionTimeout, DisconnectionTimeout, OSError, trio.BrokenResourceError) as error:
            raise SignalError(str(error) or type(error).__name__) from None
        except trio.TooSlowError:
            raise SignalError(f"no answer within {within:g} s") from None
        except ValueError as error:
            raise SignalError(f"{url} is no WebSocket address: {error}") from None
        return cls(websocket)

    async def receive(self) -> rtc.SignalResponse:
        """Raises SignalError at the end."""
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as error:
            reason = error.reason
            raise SignalError(f"the server closed the connection{f' ({reason.code})' if reason else ''}") from None
        response = rtc.SignalResponse()
        try:
            response.ParseFromString(message if isinstance(message, bytes) else message.encode())
        except DecodeError:
            raise SignalError("the server sent what is no SignalResponse") from None
        return response

    async def send(self, **request: Any) -> None:
        """`send(offer=...)`: one field of SignalRequest. Raises SignalError."""
        try:
            await self._websocket.send_message(rtc.SignalRequest(**request).SerializeToString())
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            raise SignalError("the connection is closed") from None

    async def ping(self) -> None:
        """Both forms: old servers look at the first only."""
        now = int(time.time() * 1000)
        await self.send(ping=now)
        await self.send(ping_req=rtc.Ping(timestamp=now))

    async def aclose(self) -> None:
        with trio.move_on_after(0.5, shield=True):
            await self._websocket.aclose()
        # trio-websocket leaves its socket open when the server is the first to hang up.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._websocket._stream)


def refusal(error: ConnectionRejected, token: str) -> SignalError:
    """What the server answered instead of an upgrade; without the token, which some repeat."""
    body = (error.body or b"")[:1000].decode("utf-8", "replace").replace(token, "<token>").strip()
    return SignalError(body or f"HTTP {error.status_code}", error.status_code)


def leaf(error: BaseException) -> BaseException:
    """The first real cause in a group of exceptions."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def ws_url(url: str) -> str:
    if url.startswith("http"):
        url = "ws" + url[4:]
    return url.rstrip("/")


def host_of(url: str) -> str:
    """Raises ValueError."""
    parts = urlsplit(ws_url(url))
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("no ws:// or http:// address")
    return parts.hostname
