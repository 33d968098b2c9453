"""The ICE-TCP actor: passive host candidates, one helper task per connection (RFC 6544, RFC 4571 framing)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence

import trio

from actors.kernel import Actor, MediaLink
from actors.net import Ports
from lkactor.errors import ProtocolViolation
from lkactor.ice.framing import FrameReader, frame
from lkactor.wire.address import Address

FIRST_PACKET_TIMEOUT = 30.0
"""Seconds in which a connection must name its session (livekit-media 1.2)."""
WRITE_BUFFER = 4 * 1024 * 1024
MAX_CONNECTIONS = 4096


class TcpPath:
    """One framed connection. Writes go to the socket at once; what does not fit waits, bounded."""

    __slots__ = ("_buffered", "_ports", "_queue", "_stream", "_wake", "address", "closed")

    def __init__(self, stream: socket.socket, address: Address, ports: Ports) -> None:
        self.address = address
        self.closed = False
        self._stream = stream
        self._ports = ports
        self._queue: deque[memoryview] = deque()
        self._buffered = 0
        self._wake = trio.Event()

    def send(self, datagram: bytes | memoryview) -> None:
        if self.closed:
            self._ports.counters.count("tcp.closed")
            return
        if self._buffered + len(datagram) > WRITE_BUFFER:
            self._ports.counters.count("tcp.write_buffer_full")
            return
        data = memoryview(frame(bytes(datagram)))
        if not self._queue:
            try:
                sent = self._stream.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.closed = True
                self._wake.set()
                return
            data = data[sent:]
        if data:
            self._queue.append(data)
            self._buffered += len(data)
            self._wake.set()

    def send_run(self, segments: Sequence[memoryview]) -> None:
        for segment in segments:
            self.send(segment)

    async def write_loop(self) -> None:
        """Flush what did not fit, whenever the socket takes more."""
        while not self.closed:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            await trio.lowlevel.wait_writable(self._stream)
            head = self._queue[0]
            try:
                sent = self._stream.send(head)
            except BlockingIOError:
                continue
            except OSError:
                self.closed = True
                return
            self._buffered -= sent
            if sent == len(head):
                self._queue.popleft()
            else:
                self._queue[0] = head[sent:]


class TcpActor(Actor[object]):
    """Accepts on the listeners in `Ports`. A restart drops the connections; ICE finds another way."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._connections = 0

    async def started(self) -> None:
        for listener in self._ports.tcp:
            self.context.start_soon(self._accept, listener)

    async def receive(self, message: object) -> object:
        raise TypeError(f"the TCP actor takes no messages, got {type(message).__name__}")

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                stream, peer = listener.accept()
            except OSError:
                # The peer is gone again, or file descriptors ran out: counted, tried again a little later.
                self._ports.counters.count("tcp.accept_error")
                await trio.sleep(0.05)
                continue
            if self._stopped():
                stream.close()
                continue
            if self._connections >= MAX_CONNECTIONS:
                self._ports.counters.count("tcp.too_many_connections")
                stream.close()
                continue
            stream.setblocking(False)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections += 1
            self.context.start_soon(self._serve, stream, Address("tcp", peer[0], peer[1]))

    def _stopped(self) -> bool:
        """A test's firewall closes what a real one would leave unanswered."""
        impairment = self._ports.impairment
        return impairment is not None and impairment.stops_tcp

    async def _serve(self, stream: socket.socket, address: Address) -> None:
        path = TcpPath(stream, address, self._ports)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(path.write_loop)
                await self._read(stream, path)
                nursery.cancel_scope.cancel()
        finally:
            path.closed = True
            self._ports.forget_tcp(address)
            stream.close()
            self._connections -= 1

    async def _read(self, stream: socket.socket, path: TcpPath) -> None:
        reader = FrameReader()
        link: MediaLink | None = None
        deadline = trio.current_time() + FIRST_PACKET_TIMEOUT
        while not path.closed:
            with trio.move_on_after(deadline - trio.current_time() if link is None else float("inf")) as scope:
                await trio.lowlevel.wait_readable(stream)
            if scope.cancelled_caught:
                self._ports.counters.count("tcp.no_binding_in_time")
                return
            try:
                data = stream.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data or self._stopped():
                return
            now = trio.current_time()
            try:
                packets = reader.feed(data)
            except ProtocolViolation as violation:
                self._ports.counters.count(violation.reason)
                return
            for packet in packets:
                if link is None:
                    found = self._ports.link_of(packet)
                    if found is None:
                        return
                    link = found[1]
                    self._ports.add_tcp(path)
                link.push((packet, path.address, now))
