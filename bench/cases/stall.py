"""B8: what media feel of the rest: the loop's longest stall, and latency while the API or joins take the core."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio
from cases.forwarding import cast, gathering, saturation
from load.heartbeat import heartbeat
from load.peers import AUDIO, MEETING_VIDEO, VIDEO, VIDEO_FAST, Stream
from load.servers import CORES, Server
from load.window import Row, count, crowd, join_all, start

SINKS = 100
STALL_SECONDS = 3
"""So much longer are windows in which a maximum is looked for."""
INTERFERENCE_SINKS = 50
CONNECTIONS, JOINS_PER_SECOND = 32, 20
LEAD = 3.0
"""Seconds that the second generator has to get under way, and goes on after the window."""
PAUSE, RECOVERED = 0.6, 3.0
"""Seconds that nobody runs the server, and until it is to be what it was."""
_most: dict[str, float] = {}
"""By server, the rate at saturation: it is looked for once."""


async def stall(server: Server, n: int, seconds: float) -> Row:
    """`n` per cent of the highest rate that the server reaches with SINKS; that is looked for in short windows.

    `longest_machine_stop_ms`: for so long at a time nobody at all had the server's core; a stall may be no more."""
    if server.name not in _most:
        _most[server.name] = (await saturation(server, SINKS, 1.0))["rate"]
    most = _most[server.name]
    async with crowd() as (pool, nursery):
        stream = Stream("video", most * n / 100, VIDEO.size)
        publisher, sinks = cast(server, pool, f"b8-stall-{n}", SINKS, stream)
        await join_all([publisher, *sinks], nursery)
        await start([publisher], sinks, nursery)
        with heartbeat(CORES[0]) as beat:
            row = await count(server, [publisher], sinks, STALL_SECONDS * seconds)
    if beat.longest is not None:
        row["longest_machine_stop_ms"] = beat.longest
    return row | {"rate": most * n / 100}


async def pause(server: Server, n: int, seconds: float) -> Row:
    """A meeting of `n` before and after nobody ran the server for PAUSE, as when a machine is moved. What was lost
    meanwhile is a gap in every stream, and what came waits: a server that does not get through it stays behind."""
    async with crowd() as (pool, nursery):
        members = gathering(server, pool, f"b8-pause-{n}", [[AUDIO, MEETING_VIDEO]] * n)
        await join_all(members, nursery)
        await start(members, members, nursery)
        before = await count(server, members, members, seconds)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await trio.sleep(PAUSE)
        finally:
            os.kill(server.pid, signal.SIGCONT)  # Who is stopped does not end when it is told to.
        await trio.sleep(RECOVERED)
        after = await count(server, members, members, seconds)
    return {
        **after,
        "before_p50_ms": before["latency_p50_ms"],
        "before_cpu_us_per_packet": before["cpu_us_per_packet"],
        "p50_by_before": round(after["latency_p50_ms"] / before["latency_p50_ms"], 2),
    }


async def api(server: Server, n: int, seconds: float) -> Row:
    """The latency of media alone, then while CONNECTIONS call the API."""
    return await _interference(server, n, seconds, "api", CONNECTIONS)


async def joins(server: Server, n: int, seconds: float) -> Row:
    """The latency of media alone, then while JOINS_PER_SECOND come to another room and leave again."""
    return await _interference(server, n, seconds, "joins", JOINS_PER_SECOND)


async def _interference(server: Server, n: int, seconds: float, kind: str, number: int) -> Row:
    async with crowd() as (pool, nursery):
        publisher, sinks = cast(server, pool, f"b8-{kind}-{n}", n, VIDEO_FAST)
        await join_all([publisher, *sinks], nursery)
        await start([publisher], sinks, nursery)
        calm = await count(server, [publisher], sinks, seconds)
        script = Path(__file__).parent.parent / "load" / "disturbing.py"
        arguments = [kind, server.url, server.key, server.secret, str(number), str(seconds + 2 * LEAD)]
        # Nicer than we are: what is to be measured is how the server divides its core, not how we divide ours.
        command = ["nice", "-n", "5", sys.executable, str(script), *arguments]
        process = await trio.to_thread.run_sync(partial(subprocess.Popen, command, stdout=subprocess.PIPE))
        try:
            await trio.sleep(LEAD)
            busy = await count(server, [publisher], sinks, seconds)
            output, _ = await trio.to_thread.run_sync(process.communicate)
        finally:
            process.kill()
    done = json.loads(output)
    return {
        "alone_p50_ms": calm["latency_p50_ms"],
        "alone_p99_ms": calm["latency_p99_ms"],
        **busy,
        "p99_by_alone": round(busy["latency_p99_ms"] / calm["latency_p99_ms"], 2),
        "alone_server_core": calm["server_core"],
        **done,
    }
