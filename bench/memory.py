"""Memory: what the server holds after its start, and for each idle participant (two connections, channels open).

    python bench/memory.py [--participants 50]

Proportional set size of the process. Prints JSON.
"""

from __future__ import annotations

import argparse
import json

import trio
from rig.peers import Sink
from rig.process import KEY, SECRET, Server, server


async def measure(host: Server, participants: int) -> dict[str, float]:
    await trio.sleep(1.0)
    idle = host.pss()
    async with trio.open_nursery() as nursery:
        for number in range(participants):
            sink = Sink(host.url, KEY, SECRET, "memory", f"sink-{number}")
            await sink.run(nursery)
            with trio.fail_after(30):
                await sink.transport.connected.wait()
        await trio.sleep(2.0)
        full = host.pss()
        nursery.cancel_scope.cancel()
    return {
        "after_start_mb": round(idle / 1e6, 1),
        "participants": participants,
        "per_participant_kb": round((full - idle) / participants / 1000, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=50)
    arguments = parser.parse_args()
    with server() as host:
        print(json.dumps(trio.run(measure, host, arguments.participants), indent=2))


if __name__ == "__main__":
    main()
