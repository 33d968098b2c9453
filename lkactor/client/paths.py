"""Ways to the server beside a UDP socket: TCP connections to its passive candidates, and relays of TURN servers.

| way        | what is tried                                                             |
|------------|---------------------------------------------------------------------------|
| auto       | UDP at once, TCP and TURN too when it does not answer                       |
| udp        | UDP only                                                                  |
| tcp        | the server's TCP candidates only (RFC 6544, framed by RFC 4571)            |
| relay      | the TURN servers of the JoinResponse only; relay-udp and relay-tls: of one kind |
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import trio
from livekit.protocol import rtc

from lkactor.errors import ProtocolViolation
from lkactor.ice.framing import FrameReader, frame
from lkactor.turn import AllocateFailed, ClientAllocated, PeerData, PermissionRefused, TurnClient, TurnReader
from lkactor.turn.message import Peer

Way = Literal["auto", "udp", "tcp", "relay", "relay-udp", "relay-tls"]
WAYS: tuple[Way, ...] = ("auto", "udp", "tcp", "relay", "relay-udp", "relay-tls")
DIAL_TIMEOUT = 5.0
MAX_QUEUE = 2048
"""Packets that wait for a stream; then new ones are dropped, as a full socket would."""
FIRST_CHANNEL = 0x4000
MAX_PEERS = 32
REBIND = 240.0
"""Seconds; a permission ends after 300 (RFC 8656 section 9)."""


class Stream:
    """Chunks out in order, without waiting; chunks in as they come. Ends silently: the caller's checks notice."""

    def __init__(self, dial: Callable[[], Awaitable[trio.abc.Stream]], receive: Callable[[bytes], None]) -> None:
        self._dial, self._receive = dial, receive
        self._out, self._queue = trio.open_memory_channel[bytes](MAX_QUEUE)
        self.problem = ""

    def put(self, data: bytes) -> bool:
        """False: too much waits already, or the stream has ended."""
        try:
            self._out.send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    async def run(self, up: Callable[[], None]) -> None:
        """`up` is called when the stream stands."""
        try:
            with trio.fail_after(DIAL_TIMEOUT):
                stream = await self._dial()
        except (OSError, ssl.SSLError, trio.TooSlowError, trio.BrokenResourceError) as error:
            self.problem = str(error.__cause__ or error) or "no answer"
            self._queue.close()
            return
        up()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream)
            try:
                while data := await stream.receive_some(65536):
                    self._receive(bytes(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError, ProtocolViolation) as error:
                self.problem = str(error)
            self.problem = self.problem or "closed by the other side"
            self._queue.close()
            nursery.cancel_scope.cancel()

    async def _write(self, stream: trio.abc.Stream) -> None:
        try:
            async for data in self._queue:
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader sees it, too


class TcpPath:
    """A framed connection to a passive candidate."""

    def __init__(self, ip: str, port: int, receive: Callable[[bytes], None]) -> None:
        reader = FrameReader()

        def cut(data: bytes) -> None:
            for packet in reader.feed(data):
                receive(packet)

        self.stream = Stream(partial(trio.open_tcp_stream, ip, port), cut)

    def send(self, data: bytes) -> bool:
        return self.stream.put(frame(data))


@dataclass(frozen=True, slots=True)
class TurnServer:
    """One URL of a TURN server (RFC 7065) with its credentials, which stay out of `repr`."""

    host: str
    port: int
    kind: Literal["udp", "tcp", "tls"]
    username: str
    credential: str

    def __repr__(self) -> str:
        return f"TurnServer({self.host!r}, {self.port}, {self.kind!r})"

    def __str__(self) -> str:
        return f"turn {self.kind} {self.host}:{self.port}"


def turn_servers(servers: Iterable[rtc.ICEServer], way: Way) -> list[TurnServer]:
    """Those that a way may use."""
    found = []
    for entry in servers:
        for url in entry.urls:
            server = _turn_server(url, entry)
            wanted = way in ("auto", "relay") or (server is not None and way == f"relay-{server.kind}")
            if server is not None and wanted and server not in found:
                found.append(server)
    return found


def _turn_server(url: str, entry: rtc.ICEServer) -> TurnServer | None:
    scheme, _, rest = url.partition(":")
    if scheme not in ("turn", "turns"):
        return None
    place, _, query = rest.partition("?")
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = place, "5349" if scheme == "turns" else "3478"
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    kind: Literal["udp", "tcp", "tls"] = "tls" if scheme == "turns" else "tcp" if "transport=tcp" in query else "udp"
    return TurnServer(host.strip("[]"), int(port), kind, entry.username, entry.credential)


class Relay:
    """One allocation. A peer gets a channel, which is its permission, too (RFC 8656 section 12)."""

    def __init__(
        self, server: TurnServer, rng: random.Random, receive: Callable[[Peer, bytes], None], wake: Callable[[], None]
    ) -> None:
        self.server, self._receive, self._wake = server, receive, wake
        self.relayed: Peer | None = None
        self.problem = ""
        self._client = TurnClient(server.username, server.credential, rng=rng, stream=server.kind != "udp")
        self._channels: dict[Peer, int] = {}
        self._rebind_at = self._refresh_at = float("inf")
        self._lifetime = 600
        reader = TurnReader()

        def cut(data: bytes) -> None:
            for message in reader.feed(data) if server.kind != "udp" else [data]:
                self._client.receive_datagram(message, trio.current_time())
            self._turn()

        self._stream = Stream(self._dial, cut)

    async def run(self) -> None:
        """Until cancelled, or until the TURN server is gone (`problem` says why)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await self._stream.run(self._begin)
            self.problem = self.problem or self._stream.problem
            self.relayed = None
            nursery.cancel_scope.cancel()

    def reach(self, peer: Peer) -> bool:
        """Permit it. False: of the other family, or there are too many."""
        if self.relayed is None or (":" in peer.ip) != (":" in self.relayed.ip):
            return False
        if peer not in self._channels:
            if len(self._channels) >= MAX_PEERS:
                return False
            self._channels[peer] = FIRST_CHANNEL + len(self._channels)
            self._client.bind_channel(self._channels[peer], peer, trio.current_time())
            self._turn()
        return True

    def send(self, peer: Peer, data: bytes) -> bool:
        channel = self._channels.get(peer)
        if channel is None:
            return False
        self._client.send_on(channel, data)
        return self._flush()

    def end(self) -> None:
        """Give the allocation back."""
        if self.relayed is not None:
            self._client.refresh(0, trio.current_time())
            self._flush()

    def _begin(self) -> None:
        self._client.allocate(trio.current_time())
        self._turn()

    async def _keep(self) -> None:
        while True:
            now = trio.current_time()
            due = min(self._rebind_at, self._refresh_at, self._client.next_timeout() or float("inf"), now + 0.25)
            await trio.sleep_until(max(due, now + 0.01))
            now = trio.current_time()
            if now >= self._refresh_at:
                self._refresh_at = now + self._lifetime / 2
                self._client.refresh(self._lifetime, now)
            if now >= self._rebind_at:
                self._rebind_at = now + REBIND
                for peer, channel in self._channels.items():
                    self._client.bind_channel(channel, peer, now)
            self._client.handle_timeout(now)
            self._turn()

    def _turn(self) -> None:
        while (event := self._client.next_event()) is not None:
            match event:
                case ClientAllocated(relayed=relayed, lifetime=lifetime):
                    now = trio.current_time()
                    self.relayed, self._lifetime = relayed, max(lifetime, 60)
                    self._refresh_at, self._rebind_at = now + self._lifetime / 2, now + REBIND
                    self._wake()
                case PeerData(peer=peer, data=data):
                    self._receive(peer, data)
                case AllocateFailed(code=code, reason=reason):
                    self.problem, self.relayed = f"{code} {reason}" if code else reason, None
                case PermissionRefused(code=code):
                    self.problem = f"it may not relay to the server ({code})"
        self._flush()

    def _flush(self) -> bool:
        sent = True
        for data in self._client.datagrams_to_send(trio.current_time()):
            sent = self._stream.put(data) and sent
        return sent

    async def _dial(self) -> trio.abc.Stream:
        server = self.server
        if server.kind == "udp":
            return await _UdpStream.open(server.host, server.port)
        raw = await trio.open_tcp_stream(server.host, server.port)
        if server.kind == "tcp":
            return raw
        secure = trio.SSLStream(raw, ssl.create_default_context(), server_hostname=server.host)
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return secure


class _UdpStream(trio.abc.Stream):
    """A connected UDP socket in a stream's clothes: each chunk is a datagram."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock

    @classmethod
    async def open(cls, host: str, port: int) -> _UdpStream:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        sock = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
        await sock.connect(address)
        return cls(sock)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._socket.send(data)
        except ConnectionError:
            pass  # an ICMP error of an earlier datagram; silence ends the allocation
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            try:
                return bytes(await self._socket.recv(max_bytes or 65536))
            except ConnectionError:
                continue

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._socket.close()
        await trio.lowlevel.checkpoint()


def why_not(relays: Sequence[Relay]) -> str:
    """What the TURN servers said, for people."""
    return "; ".join(f"{relay.server}: {relay.problem}" for relay in relays if relay.problem)
