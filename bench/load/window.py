"""One case under one load: settle, then count for a while. What every case of forwarding has in common."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import trio
from load.peers import Member
from load.pool import Pool
from load.servers import MOST_STOLEN, Load, Server, stolen

JOIN_LIMIT = 60.0
SETTLE = 2.0
NAP = 0.003
JOINING_AT_ONCE = 8
Row = dict[str, float]


class Sending(Protocol):
    """A publisher, to who counts."""

    identity: str
    sent: int
    crowded: int


class Connection(Protocol):
    """The receiving end of somebody."""

    full: bool
    missing: int
    latencies: list[float]

    @property
    def dropped(self) -> int: ...

    @property
    def packets(self) -> int: ...


class Counting(Protocol):
    """A sink, to who counts."""

    identity: str

    @property
    def subscriber(self) -> Connection: ...


@contextlib.asynccontextmanager
async def crowd() -> AsyncIterator[tuple[Pool, trio.Nursery]]:
    """A pool that runs, and a nursery for its members; both end with the block."""
    pool = Pool()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run)
            yield pool, nursery
            nursery.cancel_scope.cancel()
    finally:
        pool.close()


async def join_all(members: Sequence[Member], nursery: trio.Nursery) -> None:
    """Until all are connected with what they have."""
    limit = trio.CapacityLimiter(JOINING_AT_ONCE)

    async def join(member: Member) -> None:
        async with limit:
            nursery.start_soon(member.run)
            await member.ready()

    with trio.fail_after(JOIN_LIMIT):
        async with trio.open_nursery() as joining:
            for member in members:
                joining.start_soon(join, member)


class Window:
    """What a server, and we, use from now on. `end` comes after whatever was measured."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop_began = time.monotonic() + 1.0  # The second in which we begin has turns from before.
        self._load, self._waited, self.began = Load(), server.waited(), time.monotonic()
        self._stolen = stolen()
        self._cpu = server.cpu()

    def end(self) -> Row:
        """`cpu` and `elapsed` in seconds; the longest stall by the clock, and by the CPU of the longest turn of each
        second, from servers that know it."""
        used, share, ended = self.server.cpu() - self._cpu, self._load.share(), time.monotonic()
        elapsed = ended - self.began
        row = {
            "cpu": used,
            "elapsed": elapsed,
            "server_core": round(used / elapsed, 3),
            "server_waited": round((self.server.waited() - self._waited) / elapsed, 4),
            "server_core_stolen": round((stolen() - self._stolen) / elapsed, 4),
            "generator_core": round(share, 3),
        }
        loop = self.server.loop()
        if loop is not None:
            seconds = [entry for entry in loop["seconds"] if int(self._loop_began) <= entry["second"] <= ended]
            row["longest_stall_ms"] = max((entry["longest_turn_ms"] for entry in seconds), default=0.0)
            row["longest_stall_cpu_ms"] = max((entry["longest_turn_cpu_ms"] for entry in seconds), default=0.0)
            row["collector_ms_per_second"] = sum(e["collector_ms"] for e in seconds) / max(1, len(seconds))
        return row


async def start(publishers: Sequence[Member], members: Sequence[Member], nursery: trio.Nursery) -> None:
    """All streams; returns when everybody has media and the rates have settled."""
    for publisher in publishers:
        for cid in publisher.streams:
            nursery.start_soon(publisher.stream, cid)
    with trio.fail_after(JOIN_LIMIT):
        for member in members:
            if all(publisher is not member for publisher in publishers):
                await member.subscriber.first_media.wait()
                member.subscriber.pool.nap = NAP
    await trio.sleep(SETTLE)


async def measure(
    server: Server, publishers: Sequence[Member], members: Sequence[Member], nursery: trio.Nursery, seconds: float
) -> Row:
    """Start all streams, wait until everybody has media, settle, count. Every member gets what all others send."""
    await start(publishers, members, nursery)
    return await count(server, publishers, members, seconds)


async def count(server: Server, publishers: Sequence[Sending], members: Sequence[Counting], seconds: float) -> Row:
    """One window of what runs."""
    others = [m for m in members if any(publisher.identity != m.identity for publisher in publishers)]
    full = [member for member in others if member.subscriber.full]
    for member in full:
        member.subscriber.latencies.clear()
        member.subscriber.missing = 0
    dropped = sum(member.subscriber.dropped for member in others)
    received = {member.identity: member.subscriber.packets for member in others}
    sent = {publisher.identity: (publisher.sent, publisher.crowded) for publisher in publishers}
    window = Window(server)
    await trio.sleep(seconds)
    delivered = sum(member.subscriber.packets - received[member.identity] for member in others)
    counts = {p.identity: p.sent - sent[p.identity][0] for p in publishers}
    offered = sum(counts[p.identity] for p in publishers for member in others if member.identity != p.identity)
    crowded = sum(publisher.crowded - sent[publisher.identity][1] for publisher in publishers)
    used = window.end()
    dropped = sum(member.subscriber.dropped for member in others) - dropped
    latencies = sorted(latency for member in full for latency in member.subscriber.latencies)
    cpu, elapsed = used.pop("cpu"), used.pop("elapsed")
    return {
        "offered": offered,
        "delivered": delivered,
        "loss": round(max(0.0, 1 - delivered / offered), 5),
        "dropped_by_generator": round(dropped / offered, 5),
        "missing_at_full_sinks": sum(member.subscriber.missing for member in full),
        "sent_in_bursts": round(crowded / max(1, sum(counts.values())), 3),
        "cpu_us_per_packet": round(cpu / delivered * 1e6, 2),
        "packets_per_second": round(delivered / elapsed),
        "latency_p50_ms": round(_part(latencies, 0.5) * 1000, 3),
        "latency_p99_ms": round(_part(latencies, 0.99) * 1000, 3),
        **used,
    }


def marks(row: Row) -> list[str]:
    """Who had a hand in a row that says nothing about the server: "generator": it was the limit; "machine": it took the
    core away."""
    limited = row.get("generator_core", 0.0) > Load.LIMIT or row.get("stopped_by_the_generator", 0.0) > 0
    stolen = row.get("server_core_stolen", 0.0) > MOST_STOLEN
    return ["generator"] * limited + ["machine"] * stolen


def _part(ordered: Sequence[float], share: float) -> float:
    """That part of them is below; 0 without any."""
    return ordered[int(len(ordered) * share)] if ordered else 0.0


def spread(count: int) -> list[bool]:
    """Which of so many sinks are full: one in twenty, and the first."""
    return [n % 20 == 0 for n in range(count)]
