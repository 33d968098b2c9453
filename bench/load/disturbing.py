"""A generator beside the generator: `disturbing.py api|joins URL KEY SECRET NUMBER SECONDS` prints what it did, JSON.

`api`: NUMBER connections call UpdateRoomMetadata and ListParticipants in turn, each as fast as it is answered.
`joins`: NUMBER clients a second join a room, wait for media and leave.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import trio
from cases.api import Connection
from livekit.protocol import room, rtc
from load.peers import Member, Stream
from load.servers import CORES, Server
from load.window import crowd, join_all

STREAM = Stream("video", 50, 1100)
JOIN_LIMIT = 20.0


async def call(server: Server, connections: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    ends = time.monotonic() + seconds
    first = Connection(server, as_json=False)
    await first.open()
    await first.call("CreateRoom", room.CreateRoomRequest(name="b6", empty_timeout=600).SerializeToString())

    async def lane(number: int) -> None:
        connection = Connection(server, as_json=False)
        await connection.open()
        for n in itertools.count():
            metadata = room.UpdateRoomMetadataRequest(room="b6", metadata=f"{number} {n}")
            begun = time.monotonic()
            if begun > ends:
                return
            if n % 2:
                await connection.call("ListParticipants", room.ListParticipantsRequest(room="b6").SerializeToString())
            else:
                await connection.call("UpdateRoomMetadata", metadata.SerializeToString())
            latencies.append(time.monotonic() - begun)

    async with trio.open_nursery() as nursery:
        for number in range(connections):
            nursery.start_soon(lane, number)
    latencies.sort()
    return {
        "calls_per_second": round(len(latencies) / seconds),
        "calls_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
    }


async def join(server: Server, rate: int, seconds: float) -> dict[str, float]:
    durations: list[float] = []
    failed = 0
    async with crowd() as (pool, nursery):
        publisher = Member(server, pool, "b8-joins", "publisher", streams=[STREAM], subscribe=False)
        await join_all([publisher], nursery)
        nursery.start_soon(publisher.stream, next(iter(publisher.streams)))

        async def one(identity: str) -> None:
            nonlocal failed
            begun = time.monotonic()
            member = Member(server, pool, "b8-joins", identity)
            async with trio.open_nursery() as own:
                own.start_soon(member.run)
                with trio.move_on_after(JOIN_LIMIT) as limit:
                    await member.subscriber.first_media.wait()
                    durations.append(time.monotonic() - begun)
                    await member.send(leave=rtc.LeaveRequest())
                failed += limit.cancelled_caught
                own.cancel_scope.cancel()
            member.close()

        begun = trio.current_time()
        async with trio.open_nursery() as joining:
            for n in range(int(rate * seconds)):
                await trio.sleep_until(begun + n / rate)
                joining.start_soon(one, f"sink-{n}")
        elapsed = trio.current_time() - begun
    durations.sort()
    return {
        "joins_per_second": round(len(durations) / elapsed, 1),
        "joins_p50_ms": round(durations[len(durations) // 2] * 1000, 1),
        "joins_failed": failed,
    }


def main(kind: str, url: str, key: str, secret: str, number: str, seconds: str) -> None:
    os.sched_setaffinity(0, {CORES[-1]})
    server = Server("", url, key, secret, 0)
    work = {"api": call, "joins": join}[kind]
    print(json.dumps(trio.run(work, server, int(number), float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
