"""All sockets of the load generator behind one epoll, read with recvmmsg: datagrams are counted, few are opened.

A generator in Python keeps up with the servers only because of this: a counted datagram costs it about 3 us.
"""

from __future__ import annotations

import ctypes
import random
import select
import socket
import struct
import time
from collections.abc import Callable

import trio

from lkactor.dtls import Certificate
from lkactor.ice import host_candidates
from lkactor.peer import PeerConnection, PeerEvent, PeerState
from lkactor.wire.address import Address
from lkactor.wire.rtcp import Pli
from lkactor.wire.rtp import RtpPacket

CERTIFICATE = Certificate.generate()
BATCH, SIZE = 64, 2048
TICK, TICK_IDLE = 0.01, 0.05
STAMP = 8
"""The last octets of a payload say when it was sent, in nanoseconds."""


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_IoVector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class Receiver:
    """recvmmsg into one arena that all sockets share."""

    def __init__(self) -> None:
        self._arena = bytearray(BATCH * SIZE)
        self._names = bytearray(BATCH * 16)
        self.view = memoryview(self._arena)
        arena = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        names = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        self._vectors = (_IoVector * BATCH)(*(_IoVector(arena + n * SIZE, SIZE) for n in range(BATCH)))
        self.messages = (_Message * BATCH)()
        for n in range(BATCH):
            header = self.messages[n].header
            header.name, header.name_length = names + n * 16, 16
            header.vector, header.vectors = ctypes.pointer(self._vectors[n]), 1
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg

    def receive(self, descriptor: int) -> int:
        """How many datagrams there are; 0: none."""
        return max(0, int(self._recvmmsg(descriptor, self.messages, BATCH, socket.MSG_DONTWAIT, None)))

    def source(self, n: int) -> Address:
        port, *ip = struct.unpack_from("!H4B", self._names, n * 16 + 2)
        return Address("udp", ".".join(map(str, ip)), port)


class Transport:
    """One peer connection on a UDP socket of its own. `full`: every packet is decrypted and checked for continuity."""

    def __init__(self, pool: Pool, *, controlling: bool, full: bool = False) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        self.socket.bind(("127.0.0.1", 0))
        port = self.socket.getsockname()[1]
        self.rng = random.Random(port)
        candidates = host_candidates(["127.0.0.1"], port, None)
        self.peer = PeerConnection(
            rng=self.rng, certificate=CERTIFICATE, candidates=candidates, controlling=controlling
        )
        self.full = full
        self.packets = 0
        self.connected, self.first_media = trio.Event(), trio.Event()
        self.latencies: list[float] = []
        self.missing = 0
        """Packets that a full sink never saw, by sequence number."""
        self._expected: dict[int, int] = {}
        self.key_frame_wanted = True
        self.on_event: Callable[[PeerEvent], None] = lambda _: None
        self.due = 0.0
        pool.add(self)

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

    def drain(self, receiver: Receiver, now: float) -> None:
        told = False
        count = receiver.receive(self.socket.fileno())
        for n in range(count):
            start = n * SIZE
            first, second = receiver.view[start], receiver.view[start + 1]
            media = first >= 128 and not 192 <= second <= 223
            self.packets += media
            if not media or self.full or not self.first_media.is_set():
                data = bytes(receiver.view[start : start + receiver.messages[n].length])
                self.peer.receive_datagram(data, receiver.source(n), now)
                told = told or not media
        if self.full or not self.first_media.is_set():
            self._open()
        if told:
            if any(isinstance(packet, Pli) for packet in self.peer.take_rtcp()):
                self.key_frame_wanted = True
            self.flush()

    def _open(self) -> None:
        for packet in self.peer.take_rtp():
            sent = int.from_bytes(packet.payload[-STAMP:], "big")
            if sent < 1 << 32:
                continue  # Padding, which some servers begin with: no media yet.
            self.first_media.set()
            self.latencies.append(time.monotonic() - sent / 1e9)
            self._check(packet)

    def _check(self, packet: RtpPacket) -> None:
        expected = self._expected.get(packet.ssrc)
        ahead = 0 if expected is None else (packet.sequence - expected) & 0xFFFF
        if ahead < 0x8000:
            self.missing += ahead
            self._expected[packet.ssrc] = (packet.sequence + 1) & 0xFFFF
        else:
            self.missing -= 1  # Late, and counted before.


class Pool:
    """The transports of one run."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._transports: dict[int, Transport] = {}
        self._receiver = Receiver()

    def add(self, transport: Transport) -> None:
        self._transports[transport.socket.fileno()] = transport
        self._epoll.register(transport.socket.fileno(), select.EPOLLIN)

    def drop(self, transport: Transport) -> None:
        self._epoll.unregister(transport.socket.fileno())
        del self._transports[transport.socket.fileno()]
        transport.socket.close()

    async def run(self) -> None:
        """Until cancelled; then all sockets are closed."""
        transports, due = self._transports, 0.0
        try:
            while True:
                with trio.move_on_at(due):
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                now = trio.current_time()
                for descriptor, _ in self._epoll.poll(0):
                    transports[descriptor].drain(self._receiver, now)
                if now >= due:
                    busy = False
                    for transport in list(transports.values()):
                        transport.tick(now)
                        busy = busy or not transport.connected.is_set()
                    due = now + (TICK if busy else TICK_IDLE)
        finally:
            for transport in transports.values():
                transport.socket.close()
            self._epoll.close()
