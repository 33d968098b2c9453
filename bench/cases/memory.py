"""B7 memory: after start, and for each idle participant with two connections and open channels."""

from __future__ import annotations

import trio
from load.peers import Member
from load.servers import Server
from load.window import Row, crowd, join_all

SETTLE = 3.0


async def memory(server: Server, n: int, seconds: float) -> Row:
    """`n` participants. A server that has worked before has other figures: let the suite start it."""
    await trio.sleep(1.0)
    empty = server.pss()
    async with crowd() as (pool, nursery):
        members = [Member(server, pool, "b7", f"member-{i}", data=True) for i in range(n)]
        await join_all(members, nursery)
        with trio.fail_after(30):
            for member in members:
                await member.subscriber.connected.wait()
        await trio.sleep(SETTLE)
        full, cpu, at = server.pss(), server.cpu(), trio.current_time()
        await trio.sleep(seconds)
        idle = (server.cpu() - cpu) / (trio.current_time() - at)
    return {
        "after_start_mb": round(empty / 1e6, 1),
        "per_participant_kb": round((full - empty) / n / 1000, 1),
        "idle_cpu_us_per_participant_second": round(idle / n * 1e6, 1),
    }
