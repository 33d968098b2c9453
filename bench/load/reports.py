"""What a browser that watches a video sends back: receiver reports, and the bitrate that it could take (REMB).

Chromium 156, by a look at the loopback device: four times a second a report with an estimate behind it, and besides
about once a second a report for each stream. LiveKit asks for estimates, unless it is told to make them itself.
"""

from __future__ import annotations

import trio
from load.pool import Transport

from lkactor.wire.rtcp import ReceiverReport, Remb, ReportBlock, RtcpPacket, build_rtcp

ESTIMATES, INTERVAL = 4, 0.25
"""Of so many reports one comes without an estimate, too; seconds between two estimates."""
OWN_SSRC, ESTIMATE, JITTER = 1, 20_000_000, 90
"""The SSRC that browsers report by, bits per second, and 1 ms at 90 kHz."""


async def report(sink: Transport, phase: float) -> None:
    """Until cancelled. `phase`: seconds until the first one."""
    await sink.first_media.wait()
    await trio.sleep(phase)
    begun = trio.current_time()
    number = 0
    while True:
        block = ReportBlock(sink.ssrc, 0, 0, sink.highest_sequence, JITTER, 0, 0)
        seen: list[RtcpPacket] = [ReceiverReport(OWN_SSRC, (block,))]
        if number % ESTIMATES == 0:
            sink.send_rtcp(build_rtcp(seen))
        sink.send_rtcp(build_rtcp([*seen, Remb(OWN_SSRC, ESTIMATE, (sink.ssrc,))]))
        number += 1
        await trio.sleep_until(begun + number * INTERVAL)
