"""B1 with Janus' streaming plugin in the server's place: RTP in, N viewers out."""

from __future__ import annotations

import trio
from cases.limit import Source
from load.janus import PAYLOAD_TYPE, RTP_PORT, Viewer
from load.peers import VIDEO
from load.servers import Server
from load.window import JOIN_LIMIT, JOINING_AT_ONCE, NAP, SETTLE, Row, count, crowd, spread


async def streaming(server: Server, n: int, seconds: float) -> Row:
    """CPU per delivered packet at VIDEO's rate."""
    async with crowd() as (pool, nursery):
        viewers = [Viewer(pool, f"viewer-{i}", full=full) for i, full in enumerate(spread(n))]
        source = Source("publisher", RTP_PORT, [VIDEO], payload_type=PAYLOAD_TYPE, srtp=None)
        nursery.start_soon(source.run)
        limit = trio.CapacityLimiter(JOINING_AT_ONCE)

        async def watch(viewer: Viewer) -> None:
            async with limit:
                await viewer.watch()

        with trio.fail_after(JOIN_LIMIT):
            async with trio.open_nursery() as joining:
                for viewer in viewers:
                    joining.start_soon(watch, viewer)
        pool.nap = NAP
        await trio.sleep(SETTLE)
        return await count(server, [source], viewers, seconds)
