"""The TURN actor: UDP and TLS listeners and relay sockets around `lkactor.turn`.

The listeners are opened by the node, before any actor, so that they survive a restart. Allocations do not: their
clients find out at the next refresh and allocate anew.
"""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from actors.kernel import Actor
from actors.net import not_bound
from lkactor.config import Config, ConfigError
from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.turn import (
    AllocationEnded,
    Authenticator,
    PeerPolicy,
    Quota,
    RelayWanted,
    TurnReader,
    TurnServer,
)
from lkactor.turn.message import Peer
from lkactor.turn.server import REALM
from lkactor.wire.address import Address

MAX_DATAGRAM = 4096
DATAGRAMS_PER_TURN = 128
PORT_TRIES = 50
HANDSHAKE_TIMEOUT = 10.0
IDLE_TIMEOUT = 30.0
"""Seconds of a stream's life in which it has to have an allocation."""
MAX_CONNECTIONS = 4096
WRITE_QUEUE = 1024 * 1024
"""Bytes that wait for a slow stream; what does not fit is dropped, as a network would."""
SWEEP = 1.0
LOST = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError)
"""Ends of a stream that are the peer's or the network's doing; ssl.SSLError is an OSError."""


@dataclass(frozen=True, slots=True)
class Listener:
    """`address` is bound; `relay_ip` is what peers see."""

    sock: socket.socket
    address: str
    relay_ip: str
    stream: bool


@dataclass(frozen=True, slots=True)
class TurnSpec:
    config: Config
    keys: Callable[[], Mapping[str, str]]
    listeners: tuple[Listener, ...]
    tls: ssl.SSLContext | None
    counters: Counters
    rng: random.Random
    unix: Callable[[], float] = time.time

    def close(self) -> None:
        for listener in self.listeners:
            listener.sock.close()


def open_turn(
    config: Config, announced: Sequence[str], keys: Callable[[], Mapping[str, str]], counters: Counters,
    rng: random.Random,
) -> TurnSpec | None:  # fmt: skip
    """The listeners; None when TURN is off. Raises OSError for a port or a certificate, ConfigError."""
    turn = config.turn
    if not turn.enabled:
        return None
    listeners: list[Listener] = []
    try:
        tls = _tls_context(config) if turn.tls_port and not turn.external_tls else None
        for address in turn.bind_addresses:
            v6 = ":" in address
            relay_ip = next((ip for ip in announced if (":" in ip) == v6), None)
            if relay_ip is None:
                raise ConfigError(f"turn.bind_addresses: no announced address fits {address}; set rtc.node_ip")
            for port, stream in ((turn.udp_port, False), (turn.tls_port, True)):
                if port:
                    listeners.append(Listener(_bind(address, port, stream), address, relay_ip, stream))
    except BaseException:
        for listener in listeners:
            listener.sock.close()
        raise
    return TurnSpec(config, keys, tuple(listeners), tls, counters, rng)


def _tls_context(config: Config) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.turn.cert_file, config.turn.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"turn.cert_file, turn.key_file: {error}") from None
    return context


def _bind(address: str, port: int, stream: bool) -> socket.socket:
    """Raises OSError that names the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if stream:
            sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        key = "turn.tls_port" if stream else "turn.udp_port"
        raise not_bound(error, f"TURN port {port} on {address}", key) from None
    return sock


class _StreamClient:
    """One client on TCP or TLS: what is to be sent, bounded."""

    def __init__(self, counters: Counters) -> None:
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._counters = counters
        self._wake = trio.Event()

    def send(self, data: bytes) -> None:
        if self._size + len(data) > WRITE_QUEUE:
            self._counters.count("turn.write_queue_full")
            return
        self._queue.append(data)
        self._size += len(data)
        self._wake.set()

    async def write_loop(self, stream: trio.abc.Stream, connection: trio.CancelScope) -> None:
        while True:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            batch = b"".join(self._queue)
            self._queue.clear()
            self._size = 0
            try:
                await stream.send_all(batch)
            except LOST:
                connection.cancel()
                return


class TurnActor(Actor[object]):
    """One TurnServer per listener; users' quotas are over all of them."""

    def __init__(self, spec: TurnSpec) -> None:
        self._spec = spec
        turn = spec.config.turn
        self._policy = PeerPolicy(turn.allow_restricted_peer_cidrs, turn.deny_peer_cidrs)
        self._quota = Quota(turn.per_user_relay_allocation_limit)
        self._hubs: list[_Hub] = []

    async def started(self) -> None:
        spec = self._spec
        authenticate = Authenticator(spec.keys, spec.unix, REALM)
        for listener in spec.listeners:
            server = TurnServer(
                rng=spec.rng,
                authenticate=authenticate,
                policy=self._policy,
                quota=self._quota,
                families=frozenset((6 if ":" in listener.address else 4,)),
            )
            server.counters = spec.counters
            hub = _Hub(listener, server, spec, self.context.start_soon)
            self._hubs.append(hub)
            self.context.start_soon(hub.accept if listener.stream else hub.read_clients)
            self.context.start_soon(hub.sweep)

    async def stopping(self, exit: object) -> None:
        for hub in self._hubs:
            hub.close()


class _Hub:
    """A listener, its TurnServer, its clients' streams and its relay sockets."""

    def __init__(self, listener: Listener, server: TurnServer, spec: TurnSpec, start_soon: Callable[..., None]) -> None:
        self._listener = listener
        self._server = server
        self._spec = spec
        self._start_soon = start_soon
        self._relays: dict[int, socket.socket] = {}
        self._streams: dict[Address, _StreamClient] = {}

    def close(self) -> None:
        while self._relays:
            self._relays.popitem()[1].close()

    async def sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP)
            now = trio.current_time()
            self._server.handle_timeout(now)
            self._pump(now)

    def _pump(self, now: float) -> None:
        """Everything that the server has to say, both ways."""
        server = self._server
        while (event := server.next_event()) is not None:
            match event:
                case RelayWanted(relay, _, even):
                    self._open_relay(relay, even, now)
                case AllocationEnded(relay, _, _):
                    sock = self._relays.pop(relay)
                    trio.lowlevel.notify_closing(sock)
                    sock.close()
        for relay, data, peer in server.relayed_to_send():
            out = self._relays.get(relay)
            if out is not None:
                self._sendto(out, data, tuple(peer))
        for data, address in server.datagrams_to_send(now):
            if address.transport == "udp":
                self._sendto(self._listener.sock, data, (address.ip, address.port))
            elif address in self._streams:
                self._streams[address].send(data)

    def _sendto(self, sock: socket.socket, data: bytes, to: tuple[object, ...]) -> None:
        try:
            sock.sendto(data, to)
        except OSError:
            self._spec.counters.count("turn.send_error")

    # -- relays -----------------------------------------------------------------------------------------------------

    def _open_relay(self, relay: int, even: bool, now: float) -> None:
        turn = self._spec.config.turn
        for _ in range(PORT_TRIES):
            port = self._spec.rng.randint(turn.relay_range_start, turn.relay_range_end)
            if even and port % 2:
                continue
            try:
                sock = _bind(self._listener.address, port, stream=False)
            except OSError:
                continue
            self._relays[relay] = sock
            self._start_soon(self._read_relay, relay, sock)
            self._server.relay_opened(relay, Peer(self._listener.relay_ip, port), now)
            return
        self._spec.counters.count("turn.no_relay_port")
        self._server.relay_failed(relay, now)

    async def _read_relay(self, relay: int, sock: socket.socket) -> None:
        while self._relays.get(relay) is sock:
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                return
            now = trio.current_time()
            for _ in range(DATAGRAMS_PER_TURN):
                try:
                    data, peer = sock.recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except OSError:  # an ICMP error of an earlier send
                    continue
                self._server.receive_relayed(relay, data, Peer(peer[0], peer[1]), now)
            self._pump(now)

    # -- clients ----------------------------------------------------------------------------------------------------

    async def read_clients(self) -> None:
        sock = self._listener.sock
        while True:
            await trio.lowlevel.wait_readable(sock)
            now = trio.current_time()
            for _ in range(DATAGRAMS_PER_TURN):
                try:
                    data, client = sock.recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except OSError:
                    continue
                self._server.receive_datagram(data, Address("udp", client[0], client[1]), now)
            self._pump(now)

    async def accept(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._listener.sock)
            try:
                sock, peer = self._listener.sock.accept()
            except OSError:
                self._spec.counters.count("turn.accept_error")
                await trio.sleep(0.05)
                continue
            if len(self._streams) >= MAX_CONNECTIONS:
                self._spec.counters.count("turn.too_many_connections")
                sock.close()
                continue
            address = Address("tcp", peer[0], peer[1])
            # Registered at once: a connection in its handshake counts, too.
            self._streams[address] = _StreamClient(self._spec.counters)
            self._start_soon(self._serve, sock, address)

    async def _serve(self, sock: socket.socket, address: Address) -> None:
        client = self._streams[address]
        sock.setblocking(False)
        stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        try:
            if self._spec.tls is not None:
                secure = trio.SSLStream(stream, self._spec.tls, server_side=True, https_compatible=True)
                stream = secure
                with trio.fail_after(HANDSHAKE_TIMEOUT):
                    await secure.do_handshake()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write_loop, stream, nursery.cancel_scope)
                await self._read_stream(stream, address)
                nursery.cancel_scope.cancel()
        except LOST:  # in the handshake
            self._spec.counters.count("turn.handshake_failed")
        finally:
            del self._streams[address]
            now = trio.current_time()
            self._server.client_gone(address, now)
            self._pump(now)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _read_stream(self, stream: trio.abc.Stream, address: Address) -> None:
        reader, idle_until = TurnReader(), trio.current_time() + IDLE_TIMEOUT
        while True:
            idle = not self._server.has_allocation(address)
            try:
                with trio.fail_at(idle_until if idle else float("inf")):
                    data = await stream.receive_some(65536)
                messages = reader.feed(bytes(data))
            except LOST:
                self._spec.counters.count("turn.stream_lost")
                return
            except ProtocolViolation as violation:
                self._spec.counters.count(violation.reason)
                return
            if not data:
                return
            now = trio.current_time()
            for message in messages:
                self._server.receive_datagram(message, address, now)
            self._pump(now)
