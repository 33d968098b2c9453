"""One case under one load: settle, then count for a while. What every case of forwarding has in common."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import AsyncIterator, Sequence

import trio
from load.peers import Member
from load.pool import Pool
from load.servers import Load, Server

JOIN_LIMIT = 60.0
SETTLE = 2.0
JOINING_AT_ONCE = 8
Row = dict[str, float]


@contextlib.asynccontextmanager
async def crowd() -> AsyncIterator[tuple[Pool, trio.Nursery]]:
    """A pool that runs, and a nursery for its members; both end with the block."""
    async with trio.open_nursery() as nursery:
        pool = Pool()
        nursery.start_soon(pool.run)
        yield pool, nursery
        nursery.cancel_scope.cancel()


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


async def measure(
    server: Server, publishers: Sequence[Member], members: Sequence[Member], nursery: trio.Nursery, seconds: float
) -> Row:
    """Start all streams, wait until everybody has media, settle, count. Every member gets what all others send."""
    for publisher in publishers:
        for cid in publisher.streams:
            nursery.start_soon(publisher.stream, cid)
    others = [member for member in members if any(publisher is not member for publisher in publishers)]
    with trio.fail_after(JOIN_LIMIT):
        for member in others:
            await member.subscriber.first_media.wait()
    await trio.sleep(SETTLE)
    full = [member for member in others if member.subscriber.full]
    for member in full:
        member.subscriber.latencies.clear()
        member.subscriber.missing = 0
    received = {member.identity: member.subscriber.packets for member in others}
    sent = {publisher.identity: publisher.sent for publisher in publishers}
    load, cpu, at = Load(), server.cpu(), trio.current_time()
    await trio.sleep(seconds)
    used, share, elapsed = server.cpu() - cpu, load.share(), trio.current_time() - at
    delivered = sum(member.subscriber.packets - received[member.identity] for member in others)
    offered = sum(
        publisher.sent - sent[publisher.identity]
        for publisher in publishers
        for member in others
        if member is not publisher
    )
    latencies = sorted(latency for member in full for latency in member.subscriber.latencies)
    return {
        "offered": offered,
        "delivered": delivered,
        "loss": round(max(0.0, 1 - delivered / offered), 5),
        "missing_at_full_sinks": sum(member.subscriber.missing for member in full),
        "cpu_us_per_packet": round(used / delivered * 1e6, 2),
        "packets_per_second": round(delivered / elapsed),
        "server_core": round(used / elapsed, 3),
        "generator_core": round(share, 3),
        "latency_p50_ms": round(statistics.median(latencies) * 1000, 3),
        "latency_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 3),
    }


def spread(count: int) -> list[bool]:
    """Which of so many sinks are full: one in twenty, and the first."""
    return [n % 20 == 0 for n in range(count)]
