"""One connection of the GStreamer signalling server: TLS if there is a certificate, the health page, the WebSocket.

A peer that does not read is cut off when its queue is full; one that is silent is pinged.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import trio
import trio_websocket

from actors.gst.messages import ConnectionMessage, Frame, Opened, ServerRef
from actors.kernel import Actor, ActorDead, AskTimeout, MailboxFull
from lkactor.counters import Counters
from lkactor.gst import Close, Send
from lkactor.gst.access import token_of

HEAD_LIMIT = 16 * 1024
HEAD_TIMEOUT = 10.0
MESSAGE_LIMIT = 1024 * 1024
"""As in GStreamer's server."""
BACKLOG_LIMIT = 4 * 1024 * 1024
"""Characters or bytes that may wait for a peer."""
SEND_TIMEOUT = 10.0
PONG_TIMEOUT = 20.0
CLOSE_TIMEOUT = 2.0
SERVER_TIMEOUT = 10.0


@dataclass(slots=True)
class Backlog:
    """What waits for one peer, shared by who puts in and who takes out."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    number: int
    server: ServerRef
    stream: trio.abc.Stream
    tls: ssl.SSLContext | None
    health: str
    """Path of the health page; empty: none."""
    keepalive: float
    """Seconds of silence before a ping; 0: never."""
    counters: Counters
    backlog: Backlog = field(default_factory=Backlog)


class PrefixedStream(trio.abc.Stream):
    """A stream of which the first bytes have been read already."""

    def __init__(self, stream: trio.abc.Stream, prefix: bytes) -> None:
        self._stream = stream
        self._prefix = prefix

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._prefix:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._prefix)
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class ConnectionActor(Actor[ConnectionMessage]):
    """A temporary child of the server, which hears of its end by watching it."""

    mailbox_capacity = 256

    def __init__(self, spec: ConnectionSpec) -> None:
        self._spec = spec
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._heard = 0.0

    async def started(self) -> None:
        self.context.start_soon(self._serve)

    async def receive(self, message: ConnectionMessage) -> object:
        """What waits behind a slow peer is bounded by the server, which sees the backlog."""
        if self._socket is None:
            return None
        match message:
            case Send(data=data):
                self._spec.backlog.size -= len(data)
                with trio.move_on_after(SEND_TIMEOUT) as scope:
                    try:
                        await self._socket.send_message(data)
                    except trio_websocket.ConnectionClosed:
                        self.context.stop("closed by the peer")
                if scope.cancelled_caught:
                    self._spec.counters.count("gst.slow_reader")
                    self.context.stop("the peer does not read")
            case Close(code=code, reason=reason):
                with trio.move_on_after(CLOSE_TIMEOUT):
                    await self._socket.aclose(code, reason)
                self.context.stop("closed")
        return None

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            stream = await self._prepare()
            if stream is not None:
                async with trio.open_nursery() as nursery:
                    await self._websocket(nursery, stream)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            self._spec.counters.count("gst.broken_connection")
        except* (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError):
            self._spec.counters.count("gst.handshake_failed")
        finally:
            # Here, for a connection that is killed says no farewell.
            await trio.aclose_forcefully(self._spec.stream)
        self.context.stop("the connection ended")

    async def _prepare(self) -> trio.abc.Stream | None:
        """TLS and the request's head. None: it was no WebSocket, and has been answered."""
        stream: trio.abc.Stream = self._spec.stream
        head = b""
        with trio.move_on_after(HEAD_TIMEOUT) as scope:
            if self._spec.tls is not None:
                secure = trio.SSLStream(stream, self._spec.tls, server_side=True, https_compatible=True)
                await secure.do_handshake()
                stream = secure
            while b"\r\n\r\n" not in head and len(head) <= HEAD_LIMIT:
                data = await stream.receive_some(4096)
                if not data:
                    return None
                head += data
        if scope.cancelled_caught or len(head) > HEAD_LIMIT:
            self._spec.counters.count("gst.no_request")
            return None
        lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")
        if any(name.strip() == "upgrade" for name in (line.partition(":")[0] for line in lines[1:])):
            return PrefixedStream(stream, head)
        await self._answer_http(stream, head.split(b"\r\n", 1)[0].decode("latin-1"))
        return None

    async def _answer_http(self, stream: trio.abc.Stream, request: str) -> None:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if self._spec.health and path == self._spec.health and method in ("GET", "HEAD"):
            status, body = "200 OK", b"OK\n"
        else:
            status, body = "426 Upgrade Required", b"a WebSocket is needed here\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        with trio.move_on_after(CLOSE_TIMEOUT):
            await stream.send_all(head.encode() + b"\r\n" + (b"" if method == "HEAD" else body))
            await stream.aclose()

    async def _websocket(self, nursery: trio.Nursery, stream: trio.abc.Stream) -> None:
        socket: trio_websocket.WebSocketConnection | None = None
        with trio.move_on_after(HEAD_TIMEOUT):
            request = await trio_websocket.wrap_server_stream(
                nursery, stream, message_queue_size=16, max_message_size=MESSAGE_LIMIT
            )
            socket = await request.accept()
        if socket is None:
            self._spec.counters.count("gst.handshake_failed")
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        token = token_of(request.path, headers)
        self._socket = socket
        self._heard = trio.current_time()
        if self._spec.keepalive > 0:
            nursery.start_soon(self._keep_alive, socket)
        try:
            await self._spec.server.ask(Opened(self._spec.number, token), timeout=SERVER_TIMEOUT)
            while True:
                data = await socket.get_message()
                self._heard = trio.current_time()
                await self._spec.server.ask(Frame(self._spec.number, data), timeout=SERVER_TIMEOUT)
        except trio_websocket.ConnectionClosed:
            pass
        except (ActorDead, AskTimeout, MailboxFull):
            self._spec.counters.count("gst.server_busy")
            with trio.move_on_after(CLOSE_TIMEOUT):
                await socket.aclose(1013, "try again later")

    async def _keep_alive(self, socket: trio_websocket.WebSocketConnection) -> None:
        """A ping after `keepalive` seconds of silence; without a pong in PONG_TIMEOUT the peer is gone."""
        while True:
            due = self._heard + self._spec.keepalive
            if trio.current_time() < due:
                await trio.sleep_until(due)
                continue
            with trio.move_on_after(PONG_TIMEOUT) as scope:
                try:
                    await socket.ping()
                except trio_websocket.ConnectionClosed:
                    return
            if scope.cancelled_caught:
                self._spec.counters.count("gst.no_pong")
                self.context.stop("no pong")
                return
            self._heard = trio.current_time()
