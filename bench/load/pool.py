"""All sockets of the load generator behind one epoll, read by `counting.c`: datagrams are counted, few are opened.

A generator in Python keeps up with the servers only because of this: a counted datagram costs it what recvmmsg costs.
"""

from __future__ import annotations

import ctypes
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import trio
from load.native import build

from lkactor.dtls import Certificate
from lkactor.ice import host_candidates
from lkactor.peer import PeerConnection, PeerEvent, PeerState
from lkactor.wire.address import Address
from lkactor.wire.rtcp import Pli
from lkactor.wire.rtp import RtpPacket

CERTIFICATE = Certificate.generate()
SLOTS, SIZE = 512, 2048
DESCRIPTORS = 1 << 14
TICK, ROUNDS = 0.01, 5
"""Seconds; every so many ticks a connected transport has its turn."""
STAMP = 8
"""The last octets of a payload say when it was sent, in nanoseconds of the clock of the day."""
SO_RCVBUFFORCE, SO_TIMESTAMPNS, SO_MEMINFO = 33, 35, 55
"""asm-generic/socket.h; the ninth number of the last is drops (linux/sock_diag.h)."""
BUFFER = 8 * 1024 * 1024


class _Kept(ctypes.Structure):
    """A datagram that was not only counted; as `struct kept`."""

    _fields_ = (
        ("descriptor", ctypes.c_int32),
        ("length", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("arrived", ctypes.c_int64),
        ("ip", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("unused", ctypes.c_uint16),
    )


class Receiver:
    """`counting.c` with its memory. `keep` and `media` are indexed by descriptor."""

    def __init__(self) -> None:
        self._pump = ctypes.CDLL(str(build(Path(__file__).with_name("counting.c"), "-shared", "-fPIC"))).pump
        arena = bytearray(SLOTS * SIZE)
        self.view = memoryview(arena)
        self.keep = (ctypes.c_uint8 * DESCRIPTORS)()
        self.media = (ctypes.c_uint64 * DESCRIPTORS)()
        self.kept = (_Kept * SLOTS)()
        self._arena = (ctypes.c_char * len(arena)).from_buffer(arena)

    def receive(self, epoll: int) -> int:
        """How many there are in `kept`."""
        return int(self._pump(epoll, self.keep, self.media, self._arena, self.kept, SLOTS))


def enlarge(sock: socket.socket) -> None:
    """Room for what comes while we are busy; more than net.core.rmem_max when we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def dropped(sock: socket.socket) -> int:
    return int(struct.unpack_from("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[8])


class Transport:
    """One peer connection on a UDP socket of its own. `full`: every packet is decrypted and checked for continuity."""

    def __init__(self, pool: Pool, *, controlling: bool, full: bool = False, ip: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        enlarge(self.socket)
        if full:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((ip, 0))
        port = self.socket.getsockname()[1]
        self.rng = random.Random(port)
        candidates = host_candidates([ip], port, None)
        self.peer = PeerConnection(
            rng=self.rng, certificate=CERTIFICATE, candidates=candidates, controlling=controlling
        )
        self.full = full
        self.pool, self._receiver = pool, pool.receiver
        self.connected, self.first_media = trio.Event(), trio.Event()
        self.latencies: list[float] = []
        self.missing = 0
        """Packets that a full sink never saw, by sequence number."""
        self._expected: dict[int, int] = {}
        self.ssrc = self._before = 0
        """Of the first stream that came, and the sequence number before the first packet."""
        self.key_frame_wanted = True
        self.on_event: Callable[[PeerEvent], None] = lambda _: None
        self.due = 0.0
        pool.add(self)

    @property
    def dropped(self) -> int:
        """Datagrams that this socket had no room for: we read too slowly."""
        return dropped(self.socket)

    @property
    def packets(self) -> int:
        """RTP datagrams that have come, opened or not."""
        return int(self._receiver.media[self.socket.fileno()])

    @property
    def highest_sequence(self) -> int:
        """Of a transport with one stream that nothing of is lost."""
        return self._before + self.packets

    def flush(self) -> None:
        now, peer = trio.current_time(), self.peer
        while (event := peer.next_event()) is not None:
            self.on_event(event)
        if peer.state is PeerState.CONNECTED:
            self.connected.set()
        for data, address in peer.datagrams_to_send(now):
            if address.transport == "udp" and ":" not in address.ip:
                self.socket.sendto(data, (address.ip, address.port))
        self.due = peer.next_timeout() or now + 1.0

    def tick(self, now: float) -> None:
        if now >= self.due:
            self.peer.handle_timeout(now)
            self.flush()

    def send(self, packet: bytes) -> None:
        sender, path = self.peer.sender, self.peer.ice.selected
        if sender is not None and path is not None:
            self.socket.sendto(sender.protect_rtp(packet), (path.ip, path.port))

    def send_rtcp(self, compound: bytes) -> None:
        sender, path = self.peer.sender, self.peer.ice.selected
        if sender is not None and path is not None:
            self.socket.sendto(sender.protect_rtcp(compound), (path.ip, path.port))

    def take(self, data: bytes, source: Address, arrived: int, now: float) -> None:
        """One datagram that was kept. `arrived`: nanoseconds, 0 when the kernel was not asked."""
        self.peer.receive_datagram(data, source, now)
        for packet in self.peer.take_rtp():
            self._open(packet, arrived)
        if not (data[0] >= 128 and not 192 <= data[1] <= 223):
            if any(isinstance(packet, Pli) for packet, _ in self.peer.take_rtcp()):
                self.key_frame_wanted = True
            self.flush()

    def _open(self, packet: RtpPacket, arrived: int) -> None:
        sent = int.from_bytes(packet.payload[-STAMP:], "big")
        if sent < 1 << 32:
            return  # Padding, which some servers begin with: no media yet.
        if not self.first_media.is_set():
            self.ssrc, self._before = packet.ssrc, packet.sequence - self.packets
            self.first_media.set()
            self._receiver.keep[self.socket.fileno()] = self.full
        if self.full:
            self.latencies.append((arrived - sent) / 1e9)
            self._check(packet)

    def _check(self, packet: RtpPacket) -> None:
        expected = self._expected.get(packet.ssrc)
        ahead = 0 if expected is None else (packet.sequence - expected) & 0xFFFF
        if ahead < 0x8000:
            self.missing += ahead
            self._expected[packet.ssrc] = (packet.sequence + 1) & 0xFFFF
        else:
            self.missing -= 1  # Late, and counted before.


class Reading(Protocol):
    """What a pool wants of whose socket it reads."""

    socket: socket.socket
    connected: trio.Event

    def tick(self, now: float) -> None: ...

    def take(self, data: bytes, source: Address, arrived: int, now: float) -> None: ...


class Pool:
    """The transports of one run."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.nap = 0.0
        """Seconds between two looks at the sockets, 0: whenever something comes. While only media come we look now and
        then: their time of arrival is the kernel's, and a sender on the same machine need not wake us, which is no
        sender's work on a network."""
        self._epoll = select.epoll()
        self._transports: dict[int, Reading] = {}
        self._round = 0

    def add(self, transport: Reading) -> None:
        descriptor = transport.socket.fileno()
        self._transports[descriptor] = transport
        self.receiver.keep[descriptor], self.receiver.media[descriptor] = 1, 0
        self._epoll.register(descriptor, select.EPOLLIN)

    def drop(self, transport: Reading) -> None:
        self._epoll.unregister(transport.socket.fileno())
        del self._transports[transport.socket.fileno()]
        transport.socket.close()

    async def run(self) -> None:
        """Until cancelled."""
        due = 0.0
        while True:
            if self.nap:
                await trio.sleep(self.nap)
            else:
                with trio.move_on_at(due):
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
            now = trio.current_time()
            self._receive(now)
            if now >= due:
                self._tick(now)
                due = now + TICK

    def close(self) -> None:
        """All sockets, once nobody sends any more."""
        for transport in self._transports.values():
            transport.socket.close()
        self._epoll.close()

    def _tick(self, now: float) -> None:
        """Who connects is in a hurry; the others take turns, so that not all checks of a crowd come at once."""
        self._round += 1
        for n, transport in enumerate(list(self._transports.values())):
            if (n + self._round) % ROUNDS == 0 or not transport.connected.is_set():
                transport.tick(now)

    def _receive(self, now: float) -> None:
        receiver, wall = self.receiver, time.time_ns()
        for n in range(receiver.receive(self._epoll.fileno())):
            kept = receiver.kept[n]
            transport = self._transports.get(kept.descriptor)
            if transport is not None:
                data = bytes(receiver.view[kept.offset : kept.offset + kept.length])
                ip = socket.inet_ntoa(struct.pack("=I", kept.ip))
                ago = max(0, wall - kept.arrived) / 1e9 if kept.arrived else 0.0
                transport.take(data, Address("udp", ip, kept.port), kept.arrived, now - ago)
