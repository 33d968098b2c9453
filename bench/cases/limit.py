"""The loads of B1 to B3 through what forwards and does nothing else: `limit/limit.c`, `limit/least.py` in Python."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import trio
from cases.forwarding import climb
from limit.common import HOST, keys
from load.pace import Departures
from load.peers import VIDEO, Stream
from load.pool import STAMP, Pool, dropped, enlarge
from load.servers import CORES, Server
from load.window import NAP, Row, count, crowd

from lkactor.srtp import SrtpSender
from lkactor.wire.address import Address
from lkactor.wire.rtp import build_rtp

PORT = 17960
ALL_C, ALL_PYTHON = "serve.py", "least.py"
"""Of `bench/limit`."""


class Forwarder(Server):
    """The process; it has no URL."""

    def __init__(self, pid: int) -> None:
        super().__init__("all-C", "", "", "", pid)

    def loop(self) -> None:
        return None


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    return sock


class Sink:
    """A socket that only counts, without times. What Pool and `count` want of a subscriber and of its connection."""

    def __init__(self, pool: Pool, identity: str) -> None:
        self.identity = identity
        self.full, self.missing, self.latencies = False, 0, list[float]()
        self.socket = _bound()
        enlarge(self.socket)
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
    """RTP of the sizes, rates and spacings of `streams`, from the socket of `identity`, or one of its own; their SSRCs
    are its port's, so that no two sources share one. `srtp` None: plain. `rate`: of all of them, not their own."""

    def __init__(
        self,
        identity: str,
        port: int,
        streams: Sequence[Stream],
        *,
        payload_type: int,
        srtp: SrtpSender | None,
        sock: socket.socket | None = None,
    ) -> None:
        self.identity, self._sock, self._to, self._streams = identity, sock or _bound(), (HOST, port), streams
        self._payload_type, self._srtp = payload_type, srtp
        self.sent = self.crowded = 0
        self.rate = 0.0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(self._streams):
                nursery.start_soon(self._send, stream, self._sock.getsockname()[1] << 8 | number)

    async def _send(self, stream: Stream, ssrc: int) -> None:
        padding, sequence = bytes(stream.size - 12 - STAMP), 0
        with Departures(stream.together) as departures:
            while True:
                self.crowded += await departures.next(self.rate or stream.rate)
                packet = build_rtp(
                    payload_type=self._payload_type,
                    sequence=sequence & 0xFFFF,
                    timestamp=sequence & 0xFFFFFFFF,
                    ssrc=ssrc,
                    marker=True,
                    payload=padding + time.time_ns().to_bytes(STAMP, "big"),
                    extensions={1: bytes(2)},
                )
                self._sock.sendto(self._srtp.protect_rtp(packet) if self._srtp is not None else packet, self._to)
                self.sent += 1
                sequence += 1


@contextlib.asynccontextmanager
async def forwarder(program: str, sinks: list[Sink], *, gso: bool) -> AsyncIterator[Forwarder]:
    """Pinned as every server."""
    ports = [str(sink.socket.getsockname()[1]) for sink in sinks]
    script = Path(__file__).parent.parent / "limit" / program
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


At = Callable[[float, float], Awaitable[Row]]
"""What counts: at so many packets a second of each stream, 0: at its own rate, for so many seconds."""


@contextlib.asynccontextmanager
async def load(
    program: str, members: Sequence[Sequence[Stream]], apart: Sequence[Stream] = (), *, gso: bool = False
) -> AsyncIterator[At]:
    """`members`: what each sends who gets what all others send. `apart`: what somebody sends who gets nothing."""
    async with crowd() as (pool, nursery):
        sinks = [Sink(pool, f"member-{i}") for i in range(len(members))]
        source_of = partial(Source, port=PORT, payload_type=96)
        sources = [
            source_of(sink.identity, streams=own, srtp=SrtpSender(keys(0)), sock=sink.socket)
            for sink, own in zip(sinks, members, strict=True)
            if own
        ]
        if apart:
            sources.append(source_of("publisher", streams=apart, srtp=SrtpSender(keys(0))))
        async with forwarder(program, sinks, gso=gso) as host:
            for source in sources:
                nursery.start_soon(source.run)
            pool.nap = NAP

            async def at(rate: float, seconds: float) -> Row:
                for source in sources:
                    source.rate = rate
                await trio.sleep(1.0)
                row = await count(host, sources, sinks, seconds)
                return {figure: value for figure, value in row.items() if not figure.startswith("latency")}

            yield at


async def broadcast(stream: Stream, program: str, n: int, seconds: float) -> Row:
    """What B1 costs with nothing but what has to be."""
    async with load(program, [()] * n, (stream,)) as at:
        return await at(0, seconds)


async def conference(streams: Callable[[int], Sequence[Sequence[Stream]]], program: str, n: int, seconds: float) -> Row:
    """The same of B2 and B3."""
    async with load(program, streams(n)) as at:
        return await at(0, seconds)


async def limit(n: int, seconds: float, *, gso: bool) -> Row:
    """CPU per packet at VIDEO's rate, and the highest rate as in B1 saturation."""
    async with load(ALL_C, [()] * n, (VIDEO,), gso=gso) as at:
        calm = await at(VIDEO.rate, seconds)
        most = await climb(lambda rate: at(rate, seconds), n)
        return most | {"cpu_us_per_packet_at_200": calm["cpu_us_per_packet"]}


async def sendmmsg(n: int, seconds: float) -> Row:
    return await limit(n, seconds, gso=False)


async def segmented(n: int, seconds: float) -> Row:
    return await limit(n, seconds, gso=True)
