"""The front's connections. Plain API calls are answered here; plain signal connections have their own way
(`actors.front.signalling`); every other byte is for hypercorn.

    accepted -> plain calls, one after the other -> closed
                  | a plain upgrade of `/rtc`
                  +-> a signal connection -> closed
                  | anything else, at any request
                  +-> hypercorn, with the bytes that were read: HTTP/1.1 in general, HTTP/2, other WebSockets

A call costs a task switch or two here, where the general server makes a task, two queues and a state machine for each.
What is answered is the same, byte for byte. `docs/benchmarks.md`, case B6, has what that is worth.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from actors.front.rtc import PATHS
from actors.front.types import Request, Response
from actors.kernel.supervisor import contain
from lkactor.api.http1 import Call, CallReader, Heads
from lkactor.counters import Counters
from lkactor.signal.websocket import Upgrade, read_upgrade

BACKLOG = 1024
MAX_READ = 64 * 1024
PATIENCE = 1.0
"""Seconds for the rest of a call; whoever is slower is served by hypercorn, which has its own limits for that."""
SWEEP_INTERVAL = 5.0
"""Seconds between two looks for connections that wait too long for their next request."""
GENERAL = "front connection, hypercorn's"
"""The name of its task, for whoever looks at tasks."""
_SIGNAL = b"GET /rtc"
_NO_QUERY: dict[str, str] = {}
_FAILED = b"HTTP/1.1 500 \r\ncontent-length: 0\r\n"


@dataclass(frozen=True, slots=True)
class Handlers:
    """`call` answers a plain API call, whose body it is given; `signal` serves a plain signal connection, given its
    socket, the client's address, the upgrade, the bytes that were read and the way to start a task; `app` is the ASGI
    application for everything else."""

    call: Callable[[Request, bytes], Awaitable[Response]]
    app: Any
    failed: Callable[[Exception], object]
    """Told of a bug in the others: the caller of an API call gets a 500."""
    signal: Callable[[socket.socket, str, Upgrade, bytes, Callable[..., None]], Awaitable[None]] | None = None
    in_time: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Comes back when a call may be answered (`LoopTime.in_time`)."""


class Idle:
    """One connection between two requests."""

    __slots__ = ("scope", "since")

    def __init__(self, now: float) -> None:
        self.scope = trio.CancelScope()
        self.since: float | None = now
        """None while a request is being read or answered."""


class Connections:
    """Accepts, and serves what it has accepted. Lives as long as `run`."""

    def __init__(
        self, handlers: Handlers, config: HypercornConfig, unix: Callable[[], float], counters: Counters
    ) -> None:
        self._handlers = handlers
        self._config = config
        self._unix = unix
        self._general: Any = ASGIWrapper(handlers.app)
        self._context = WorkerContext(None)
        self._heads = Heads()
        self._waiting: set[Idle] = set()
        self._date = (0, b"")
        self._counters = counters
        self.handed_over = 0
        """Connections, so far, that hypercorn was given."""

    async def run(self, listeners: tuple[socket.socket, ...]) -> None:
        """Until it is cancelled; that ends all connections, too."""
        async with trio.open_nursery() as nursery:
            self._start_soon = nursery.start_soon
            for listener in listeners:
                listener.setblocking(False)
                listener.listen(BACKLOG)
                nursery.start_soon(self._accept, listener, nursery)
            nursery.start_soon(self._sweep)

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                peer, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError:
                # The peer is gone again, or file descriptors ran out: tried again a little later.
                self._counters.count("http.accept_error")
                await trio.sleep(0.05)
                continue
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            nursery.start_soon(self._serve, peer, address[0])

    async def _sweep(self) -> None:
        """One task looks after all waiting connections: a deadline for each would cost every request."""
        while True:
            await trio.sleep(SWEEP_INTERVAL)
            latest = trio.current_time() - self._config.keep_alive_timeout
            for idle in self._waiting:
                if idle.since is not None and idle.since < latest:
                    idle.scope.cancel()

    # -- one connection ---------------------------------------------------------------------------------------------

    async def _serve(self, peer: socket.socket, address: str) -> None:
        reader = CallReader(self._heads)
        idle = Idle(trio.current_time())
        other = False

        async def loop() -> None:
            nonlocal other
            with idle.scope:
                other = await self._calls(peer, address, reader, idle)

        self._waiting.add(idle)
        try:
            if await contain(loop, self._handlers.failed) is not None:
                self._counters.count("http.failed")
                await self._send(peer, _FAILED + self._dated(closes=True))
            self._waiting.discard(idle)
            if other:
                await self._serve_other(peer, address, reader.rest)
        finally:
            self._waiting.discard(idle)
            peer.close()

    async def _serve_other(self, peer: socket.socket, address: str, begun: bytes) -> None:
        signal = self._handlers.signal
        if signal is not None and begun.startswith(_SIGNAL):
            begun = await self._whole_head(peer, begun)
            upgrade = read_upgrade(begun)
            if upgrade is not None and upgrade.target.partition(b"?")[0].decode() in PATHS:
                serve = partial(signal, peer, address, upgrade, begun, self._start_soon)
                if await contain(serve, self._handlers.failed) is not None:
                    self._counters.count("http.failed")
                return
        self.handed_over += 1
        await self._hand_over(peer, begun)

    async def _whole_head(self, peer: socket.socket, begun: bytes) -> bytes:
        """With the rest of it, if that comes soon: what an upgrade carries may be more than one packet holds."""
        with trio.move_on_after(PATIENCE):
            while b"\r\n\r\n" not in begun and len(begun) < MAX_READ:
                await trio.lowlevel.wait_readable(peer)
                data = self._read(peer)
                if data == b"":
                    break
                begun += data or b""
        return begun

    async def _calls(self, peer: socket.socket, address: str, reader: CallReader, idle: Idle) -> bool:
        """Answer plain calls. True: the rest is for the general server; False: the connection is over."""
        begun = trio.current_time()
        while True:
            step = reader.next()
            if isinstance(step, Call):
                idle.since = None
                await self._handlers.in_time()
                head = step.head
                request = Request("POST", head.path, _NO_QUERY, head.headers, address, head.path)
                response = await self._handlers.call(request, step.body)
                if not await self._send(peer, self._wire(response, head.closes)) or head.closes:
                    return False
                if reader.partial:
                    # Whoever sends without waiting for answers does not get the loop for itself.
                    await trio.lowlevel.checkpoint()
                begun = idle.since = trio.current_time()
            elif step is not None:
                return True
            elif not reader.partial:
                await trio.lowlevel.wait_readable(peer)
                data = self._read(peer)
                if data == b"":
                    return False
                reader.receive(data or b"")
                begun = idle.since = trio.current_time()
            elif not await self._more(peer, reader, begun + PATIENCE):
                return True

    async def _more(self, peer: socket.socket, reader: CallReader, deadline: float) -> bool:
        """More of a call that has begun. False: it does not come in time, or never."""
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(peer)
            data = self._read(peer)
            reader.receive(data or b"")
            return data != b""
        return False

    def _read(self, peer: socket.socket) -> bytes | None:
        """b"": the peer is gone. None: there was nothing."""
        try:
            return peer.recv(MAX_READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def _send(self, peer: socket.socket, data: bytes) -> bool:
        """False: the peer is gone."""
        rest = memoryview(data)
        while True:
            try:
                rest = rest[peer.send(rest) :]
            except BlockingIOError:
                pass
            except OSError:
                self._counters.count("http.answer_lost")
                return False
            if not rest:
                return True
            await trio.lowlevel.wait_writable(peer)

    def _wire(self, response: Response, closes: bool) -> bytes:
        """As hypercorn would send it."""
        fields = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers())
        return b"HTTP/1.1 %d \r\n%b%b%b" % (response.status, fields, self._dated(closes), response.body)

    def _dated(self, closes: bool) -> bytes:
        """The last fields of every answer, and the empty line."""
        second = int(self._unix())
        if self._date[0] != second:
            self._date = second, b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date[1] + (b"Connection: close\r\n\r\n" if closes else b"\r\n")

    async def _hand_over(self, peer: socket.socket, begun: bytes) -> None:
        trio.lowlevel.current_task().name = GENERAL
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        resumed: Any = ResumedStream(stream, begun)
        await TCPServer(self._general, self._config, self._context, ConnectionState({}), resumed)


class ResumedStream:
    """A connection of which something has been read already, as hypercorn uses one without TLS."""

    def __init__(self, stream: trio.SocketStream, begun: bytes) -> None:
        self.socket = stream.socket
        self.send_all = stream.send_all
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose
        self._receive_some = stream.receive_some
        self._begun = begun

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        return await self._receive_some(max_bytes)
