"""What forwarding costs: one publisher, N sinks with full signalling, ICE and DTLS.

    python bench/forwarding.py [--sinks 1,10,100] [--rate 200] [--burst 1] [--seconds 10] [--plane kernel]

The server runs on one core, the clients on the other. Prints JSON: per N the packets offered and delivered in the
window, CPU of the server's process per delivered packet (us), the packets per second that one core would carry at that
cost, loss, and the latency of the authenticated 1 in 20 (ms, same clock).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import trio
from rig.peers import Publisher, Sink
from rig.process import KEY, SECRET, Server, server

SETTLE = 2.0


async def measure(host: Server, sinks: int, rate: float, burst: int, seconds: float) -> dict[str, float]:
    async with trio.open_nursery() as nursery:
        publisher = Publisher(host.url, KEY, SECRET, f"bench-{sinks}", "publisher")
        await publisher.run(nursery)
        nursery.start_soon(publisher.stream, rate, burst)
        audience = [Sink(host.url, KEY, SECRET, f"bench-{sinks}", f"sink-{n}") for n in range(sinks)]
        for sink in audience:
            await sink.run(nursery)
            await sink.joined.wait()
        with trio.fail_after(60):
            for sink in audience:
                await sink.transport.first_media.wait()
        await trio.sleep(SETTLE)
        for sink in audience:
            sink.transport.latencies.clear()
        sent, cpu, at = publisher.sent, host.cpu(), time.monotonic()
        before = sum(sink.transport.media_packets for sink in audience)
        await trio.sleep(seconds)
        delivered = sum(sink.transport.media_packets for sink in audience) - before
        offered, used = (publisher.sent - sent) * sinks, host.cpu() - cpu
        latencies = sorted(latency for sink in audience for latency in sink.transport.latencies)
        nursery.cancel_scope.cancel()
    per_packet = used / delivered * 1e6
    return {
        "n": sinks,
        "offered": offered,
        "delivered": delivered,
        "seconds": round(time.monotonic() - at, 2),
        "server_cpu": round(used, 2),
        "cpu_us_per_packet": round(per_packet, 1),
        "packets_per_second_per_core": round(1e6 / per_packet),
        "loss": round(max(0.0, 1 - delivered / offered), 5),
        "latency_p50_ms": round(statistics.median(latencies) * 1000, 2),
        "latency_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sinks", default="1,10,100")
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--plane", choices=("auto", "kernel", "python"), default="auto")
    arguments = parser.parse_args()
    results = []
    with server(plane=arguments.plane) as host:
        for sinks in (int(n) for n in arguments.sinks.split(",")):
            results.append(trio.run(measure, host, sinks, arguments.rate, arguments.burst, arguments.seconds))
    print(json.dumps({"rate": arguments.rate, "burst": arguments.burst, "results": results}, indent=2))


if __name__ == "__main__":
    main()
