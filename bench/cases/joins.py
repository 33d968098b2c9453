"""B4 join storm: signalling, ICE, DTLS and the first authenticated packet, `n` at once."""

from __future__ import annotations

import statistics
import time

import trio
from livekit.protocol import rtc
from load.peers import Member, Stream
from load.servers import Server
from load.window import Row, Window, crowd, join_all

JOIN_LIMIT = 30.0
STREAM = Stream("video", 100, 1100)


async def joins(server: Server, n: int, seconds: float) -> Row:
    """As many joins as fit into `seconds`, `n` at once, into a room with one publisher; each leaves at once again."""
    async with crowd() as (pool, nursery):
        room, durations, number = f"b4-{n}", [], 0
        publisher = Member(server, pool, room, "publisher", streams=[STREAM], subscribe=False)
        await join_all([publisher], nursery)
        nursery.start_soon(publisher.stream, next(iter(publisher.streams)))

        async def join(identity: str) -> None:
            begun = time.monotonic()
            member = Member(server, pool, room, identity)
            async with trio.open_nursery() as own:
                own.start_soon(member.run)
                with trio.fail_after(JOIN_LIMIT):
                    await member.subscriber.first_media.wait()
                durations.append(time.monotonic() - begun)
                await member.send(leave=rtc.LeaveRequest())
                own.cancel_scope.cancel()
            member.close()

        async def keep_joining(lane: int) -> None:
            nonlocal number
            while time.monotonic() < ends:
                number += 1
                await join(f"sink-{lane}-{number}")

        await trio.sleep(1.0)
        window = Window(server)
        ends = window.began + seconds
        async with trio.open_nursery() as lanes:
            for lane in range(n):
                lanes.start_soon(keep_joining, lane)
        used = window.end()
        cpu, elapsed = used.pop("cpu"), used.pop("elapsed")
    return {
        "joins": len(durations),
        "joins_per_second": round(len(durations) / elapsed, 1),
        "cpu_ms_per_join": round(cpu / len(durations) * 1000, 2),
        "to_first_media_ms": round(statistics.median(durations) * 1000, 1),
        "to_first_media_p95_ms": round(sorted(durations)[int(len(durations) * 0.95)] * 1000, 1),
        **used,
    }
