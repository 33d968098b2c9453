"""B1 livestream, B2 audio conference, B3 meeting: CPU of the server per delivered packet, and latency."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio
from load.peers import AUDIO, MEETING_PICTURES, MEETING_VIDEO, PICTURES, VIDEO, VIDEO_FAST, Member, Stream
from load.pool import Pool, Transport
from load.reports import INTERVAL, estimate, report
from load.servers import Load, Server
from load.window import Row, count, crowd, join_all, measure, spread, start

TALKERS = 6
FIRST_RATE, FIRST_STEP, LAST_STEP = 400.0, 1.25, 1.05
"""Packets a second, and how much more each time; after the first loss the steps get smaller."""
RAMP = 1.0
MOST_LOST = 0.005
IDLE, PATIENCE = 0.8, 4
"""A server that uses less of its core than that and loses packets gets so many more tries in all."""


async def livestream(server: Server, n: int, seconds: float, stream: Stream = VIDEO, *, reports: bool = False) -> Row:
    """One publisher, `n` sinks."""
    async with crowd() as (pool, nursery):
        publisher, sinks = cast(server, pool, f"b1-{stream.rate:.0f}-{n}", n, stream)
        await join_all([publisher, *sinks], nursery)
        if reports:
            say(report, sinks, nursery)
        return await measure(server, [publisher], sinks, nursery, seconds)


def cast(
    server: Server, pool: Pool, room: str, n: int, stream: Stream, full: Sequence[bool] = ()
) -> tuple[Member, list[Member]]:
    """Who takes part in a livestream. `full`: which sinks are, unless one in twenty."""
    publisher = Member(server, pool, room, "publisher", streams=[stream], subscribe=False)
    return publisher, [Member(server, pool, room, f"sink-{i}", full=full) for i, full in enumerate(full or spread(n))]


async def livestream_fast(server: Server, n: int, seconds: float) -> Row:
    """At 1000 packets a second."""
    return await livestream(server, n, seconds, VIDEO_FAST)


async def livestream_pictures(server: Server, n: int, seconds: float) -> Row:
    """The same 200 packets a second, a picture's at a time, as a browser sends them."""
    return await livestream(server, n, seconds, PICTURES)


async def livestream_reports(server: Server, n: int, seconds: float) -> Row:
    """The same pictures, and all who watch report on them as browsers do."""
    return await livestream(server, n, seconds, PICTURES, reports=True)


def talking(n: int) -> Sequence[Sequence[Stream]]:
    """What each of `n` sends where some talk."""
    return [[AUDIO] if i < TALKERS else [] for i in range(n)]


def meeting_of(video: Stream, n: int) -> Sequence[Sequence[Stream]]:
    """What each of `n` sends who meet."""
    return [[AUDIO, video]] * n


async def audio(server: Server, n: int, seconds: float) -> Row:
    """`n` in the room, TALKERS of them talk, everybody hears everybody else."""
    return await _conference(server, "b2", n, talking(n), seconds)


async def meeting(server: Server, n: int, seconds: float, video: Stream = MEETING_VIDEO) -> Row:
    """`n` people who send sound and pictures, and get those of all others."""
    return await _conference(server, "b3", n, meeting_of(video, n), seconds)


async def meeting_pictures(server: Server, n: int, seconds: float) -> Row:
    """The same, a picture's packets at a time, as browsers send them."""
    return await meeting(server, n, seconds, MEETING_PICTURES)


async def meeting_browsers(server: Server, n: int, seconds: float) -> Row:
    """The same, and what browsers say of it: transport-wide numbers up, estimates down."""
    return await _conference(server, "b3", n, meeting_of(MEETING_PICTURES, n), seconds, browsers=True)


async def _conference(
    server: Server, case: str, n: int, streams: Sequence[Sequence[Stream]], seconds: float, *, browsers: bool = False
) -> Row:
    async with crowd() as (pool, nursery):
        members = gathering(server, pool, f"{case}-{n}", streams, browsers=browsers)
        await join_all(members, nursery)
        if browsers:
            say(estimate, members, nursery)
        return await measure(server, [member for member in members if member.streams], members, nursery, seconds)


def gathering(
    server: Server, pool: Pool, room: str, streams: Sequence[Sequence[Stream]], *, browsers: bool = False
) -> list[Member]:
    """Who takes part in a conference: one for each of `streams`, who sends these."""
    return [
        Member(server, pool, room, f"member-{i}", streams=own, full=full, browser=browsers)
        for i, (own, full) in enumerate(zip(streams, spread(len(streams)), strict=True))
    ]


def say(what: Callable[[Transport, float], Awaitable[None]], members: Sequence[Member], nursery: trio.Nursery) -> None:
    """All of them, one after the other within an interval."""
    for number, member in enumerate(members):
        nursery.start_soon(what, member.subscriber, INTERVAL * number / len(members))


async def saturation(server: Server, n: int, seconds: float) -> Row:
    """The most packets a second to `n` sinks with less than MOST_LOST lost; nothing else of the load changes."""
    async with crowd() as (pool, nursery):
        stream = Stream("video", FIRST_RATE, 1100)
        publisher, sinks = cast(server, pool, f"b1-saturation-{n}", n, stream, full=[True] + [False] * (n - 1))
        await join_all([publisher, *sinks], nursery)
        await start([publisher], sinks, nursery)

        async def at(rate: float) -> Row:
            publisher.rate = rate
            await trio.sleep(RAMP)
            return await count(server, [publisher], sinks, seconds)

        return await climb(at, n)


async def climb(at: Callable[[float], Awaitable[Row]], n: int) -> Row:
    """The row of the highest rate that `at` reaches; `stopped_by_the_generator` when it was not the server's limit."""
    best: Row = {}
    rate, step, patience = FIRST_RATE, FIRST_STEP, PATIENCE
    while step > LAST_STEP:
        row = await at(rate * step if best else rate)
        ours = row["packets_per_second"] < rate * n * 0.97 and row["loss"] <= MOST_LOST
        ours = ours or row["dropped_by_generator"] > MOST_LOST / 5
        if ours or (row["generator_core"] > Load.LIMIT and row["server_core"] < 0.9):
            return (best or row) | {"stopped_by_the_generator": 1.0}
        if row["loss"] > MOST_LOST:
            if row["server_core"] < IDLE and patience:
                patience -= 1  # Something else on the machine: a server that has time loses nothing.
            elif best:
                step = math.sqrt(step)  # Once more, not so far.
            else:
                rate /= 2
            await at(FIRST_RATE / 8)  # What was queued is gone after that.
        else:
            rate = rate * step if best else rate
            best = row | {"rate": round(rate)}
    return best | {"stopped_by_the_generator": 0.0}
