"""The all-C limit: the load of B1 through `limit/limit.c`, which forwards and does nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import trio
from cases.forwarding import climb
from load.pace import Departures
from load.peers import VIDEO, Stream
from load.pool import STAMP, Pool, dropped, enlarge
from load.servers import CORES, Server
from load.window import NAP, Row, count, crowd

from lkactor.wire.address import Address
from lkactor.wire.rtp import build_rtp

PORT = 17960
TAG = 16


class Forwarder(Server):
    """The process; it has no URL."""

    def __init__(self, pid: int) -> None:
        super().__init__("all-C", "", "", "", pid)

    def loop(self) -> None:
        return None


class Sink:
    """A socket that only counts. What Pool and `count` want of a subscriber and of its connection."""

    def __init__(self, pool: Pool, identity: str) -> None:
        self.identity = identity
        self.full, self.missing, self.latencies = False, 0, list[float]()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(self.socket)
        self.socket.bind(("127.0.0.1", 0))
        self._receiver = pool.receiver
        self.connected = trio.Event()
        self.connected.set()
        pool.add(self)
        pool.receiver.keep[self.socket.fileno()] = 0

    @property
    def subscriber(self) -> Sink:
        return self

    @property
    def dropped(self) -> int:
        return dropped(self.socket)

    @property
    def packets(self) -> int:
        return int(self._receiver.media[self.socket.fileno()])

    def tick(self, now: float) -> None:
        """Nothing is ever due."""

    def take(self, data: bytes, source: Address, arrived: int, now: float) -> None:
        """Nothing is sent but RTP."""


class Source:
    """Plain RTP of the size, rate and spacing of `stream`; `tag` octets more, as SRTP has."""

    identity = "publisher"

    def __init__(self, port: int, stream: Stream, *, payload_type: int, tag: int) -> None:
        self.sent = self.crowded = 0
        self.rate, self._together = stream.rate, stream.together
        self._to, self._size, self._payload_type, self._tag = ("127.0.0.1", port), stream.size, payload_type, bytes(tag)

    async def run(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        padding = bytes(self._size - 12 - STAMP)
        with sock, Departures(self._together) as departures:
            while True:
                self.crowded += await departures.next(self.rate)
                packet = build_rtp(
                    payload_type=self._payload_type,
                    sequence=self.sent & 0xFFFF,
                    timestamp=self.sent & 0xFFFFFFFF,
                    ssrc=1,
                    marker=True,
                    payload=padding + time.time_ns().to_bytes(STAMP, "big"),
                    extensions={1: bytes(2)},
                )
                sock.sendto(packet + self._tag, self._to)
                self.sent += 1


@contextlib.asynccontextmanager
async def forwarder(sinks: list[Sink], *, gso: bool) -> AsyncIterator[Forwarder]:
    """Pinned as every server."""
    ports = [str(sink.socket.getsockname()[1]) for sink in sinks]
    script = Path(__file__).parent.parent / "limit" / "serve.py"
    command = [sys.executable, str(script), str(PORT), str(int(gso)), *ports]
    process = await trio.to_thread.run_sync(partial(subprocess.Popen, command, stdout=subprocess.PIPE))
    try:
        assert process.stdout is not None
        await trio.to_thread.run_sync(process.stdout.readline)
        found = Forwarder(process.pid)
        found.pin()
        os.sched_setaffinity(0, {CORES[-1]})
        yield found
    finally:
        os.sched_setaffinity(0, CORES)
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def load(n: int, stream: Stream, *, gso: bool) -> AsyncIterator[Callable[[float, float], Awaitable[Row]]]:
    """What counts: at so many packets a second, for so many seconds."""
    async with crowd() as (pool, nursery):
        sinks = [Sink(pool, f"sink-{i}") for i in range(n)]
        async with forwarder(sinks, gso=gso) as host:
            source = Source(PORT, stream, payload_type=96, tag=TAG)
            nursery.start_soon(source.run)
            pool.nap = NAP

            async def at(rate: float, seconds: float) -> Row:
                source.rate = rate
                await trio.sleep(1.0)
                return await count(host, [source], sinks, seconds)

            yield at


async def floor(n: int, seconds: float, stream: Stream) -> Row:
    """What the load of `stream` costs with nothing but what has to be."""
    async with load(n, stream, gso=False) as at:
        return await at(stream.rate, seconds)


async def limit(n: int, seconds: float, *, gso: bool) -> Row:
    """CPU per packet at VIDEO's rate, and the highest rate as in B1 saturation."""
    async with load(n, VIDEO, gso=gso) as at:
        calm = await at(VIDEO.rate, seconds)
        most = await climb(lambda rate: at(rate, seconds), n)
        return most | {"cpu_us_per_packet_at_200": calm["cpu_us_per_packet"]}


async def sendmmsg(n: int, seconds: float) -> Row:
    return await limit(n, seconds, gso=False)


async def segmented(n: int, seconds: float) -> Row:
    return await limit(n, seconds, gso=True)
