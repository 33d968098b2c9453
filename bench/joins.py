"""Joins: how many a second, and what each costs, one at a time and eight at once; each until its first media.

    python bench/joins.py [--joins 40]

One publisher is in the room; a join is signalling, ICE, DTLS and the first authenticated packet. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import trio
from livekit.protocol import rtc
from rig.peers import Publisher, Sink
from rig.process import KEY, SECRET, Server, server


async def measure(host: Server, joins: int, at_once: int) -> dict[str, float]:
    durations: list[float] = []
    async with trio.open_nursery() as nursery:
        publisher = Publisher(host.url, KEY, SECRET, f"joins-{at_once}", "publisher")
        await publisher.run(nursery)
        nursery.start_soon(publisher.stream, 100.0)
        await publisher.transport.connected.wait()
        limit = trio.CapacityLimiter(at_once)

        async def join(number: int) -> None:
            async with limit, trio.open_nursery() as own:
                begun = time.monotonic()
                sink = Sink(host.url, KEY, SECRET, f"joins-{at_once}", f"sink-{number}")
                await sink.run(own)
                with trio.fail_after(30):
                    await sink.transport.first_media.wait()
                durations.append(time.monotonic() - begun)
                await sink.send(leave=rtc.LeaveRequest())
                own.cancel_scope.cancel()

        await trio.sleep(1.0)
        cpu, begun = host.cpu(), time.monotonic()
        async with trio.open_nursery() as joining:
            for number in range(joins):
                joining.start_soon(join, number)
        used, elapsed = host.cpu() - cpu, time.monotonic() - begun
        nursery.cancel_scope.cancel()
    return {
        "at_once": at_once,
        "joins": joins,
        "joins_per_second": round(joins / elapsed, 1),
        "server_cpu_ms_per_join": round(used / joins * 1000, 1),
        "to_first_media_ms_median": round(statistics.median(durations) * 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joins", type=int, default=40)
    arguments = parser.parse_args()
    results = []
    for at_once in (1, 8):
        with server() as host:
            results.append(trio.run(measure, host, arguments.joins, at_once))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
