"""B1 livestream, B2 audio conference, B3 meeting: CPU of the server per delivered packet, and latency."""

from __future__ import annotations

from collections.abc import Sequence

from load.peers import AUDIO, MEETING_VIDEO, VIDEO, VIDEO_FAST, Member, Stream
from load.servers import Server
from load.window import Row, crowd, join_all, measure, spread

TALKERS = 6


async def livestream(server: Server, n: int, seconds: float, stream: Stream = VIDEO) -> Row:
    """One publisher, `n` sinks."""
    async with crowd() as (pool, nursery):
        room = f"b1-{stream.rate:.0f}-{n}"
        publisher = Member(server, pool, room, "publisher", streams=[stream], subscribe=False)
        sinks = [Member(server, pool, room, f"sink-{i}", full=full) for i, full in enumerate(spread(n))]
        await join_all([publisher, *sinks], nursery)
        return await measure(server, [publisher], sinks, nursery, seconds)


async def livestream_fast(server: Server, n: int, seconds: float) -> Row:
    """At 1000 packets a second."""
    return await livestream(server, n, seconds, VIDEO_FAST)


async def audio(server: Server, n: int, seconds: float) -> Row:
    """`n` in the room, TALKERS of them talk, everybody hears everybody else."""
    return await _conference(server, "b2", n, [[AUDIO] if i < TALKERS else [] for i in range(n)], seconds)


async def meeting(server: Server, n: int, seconds: float) -> Row:
    """`n` people who send sound and pictures, and get those of all others."""
    return await _conference(server, "b3", n, [[AUDIO, MEETING_VIDEO]] * n, seconds)


async def _conference(server: Server, case: str, n: int, streams: Sequence[Sequence[Stream]], seconds: float) -> Row:
    async with crowd() as (pool, nursery):
        members = [
            Member(server, pool, f"{case}-{n}", f"member-{i}", streams=own, full=full)
            for i, (own, full) in enumerate(zip(streams, spread(n), strict=True))
        ]
        await join_all(members, nursery)
        return await measure(server, [member for member in members if member.streams], members, nursery, seconds)


async def saturation(server: Server, n: int, seconds: float) -> Row:
    """More and more packets a second to `n` sinks until half a per cent is lost; the last rate before that."""
    best: Row = {}
    rate = 400.0
    while True:
        row = await livestream(server, n, seconds, Stream("video", rate, 1100))
        generator_is_the_limit = row["generator_core"] > 0.9 and row["server_core"] < 0.95
        if row["loss"] > 0.005 or generator_is_the_limit:
            return best | {"stopped_by_the_generator": float(generator_is_the_limit)}
        best = row | {"rate": rate}
        if row["server_core"] > 0.98 and row["packets_per_second"] < rate * n * 0.98:
            return best
        rate *= 1.25
