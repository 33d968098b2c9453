"""What browsers say of media: receiver reports, the bitrate that they could take (REMB), transport-wide numbers.

Chromium 156, by a look at the loopback device. Who watches: four times a second a report with an estimate behind it,
and about once a second a report for each stream. LiveKit asks for estimates, unless it is told to make them itself.
Who publishes: a transport-wide number in each packet, and about nine times a second it is told when they came.
"""

from __future__ import annotations

import re

import trio
from load.pool import Transport

from lkactor.wire.extensions import TRANSPORT_CC
from lkactor.wire.rtcp import ReceiverReport, Remb, ReportBlock, RtcpPacket, build_rtcp

ESTIMATES, INTERVAL = 4, 0.25
"""Of so many reports one comes without an estimate, too; seconds between two estimates."""
OWN_SSRC, ESTIMATE, JITTER = 1, 20_000_000, 90
"""The SSRC that browsers report by, bits per second, and 1 ms at 90 kHz."""

TRANSPORT_CC_ID = 14


def with_transport_cc(sdp: str) -> str:
    """An offer that says the packets of each section have the number."""
    lines = f"a=extmap:{TRANSPORT_CC_ID} {TRANSPORT_CC}\r\na=rtcp-fb:* transport-cc\r\n"
    return re.sub(r"(a=mid:[^\r]*\r\n)", rf"\1{lines}", sdp)


async def estimate(sink: Transport, phase: float) -> None:
    """Of somebody who gets many streams: a report on none of them with an estimate behind it. Until cancelled."""
    await sink.first_media.wait()
    await trio.sleep(phase)
    while True:
        sink.send_rtcp(build_rtcp([ReceiverReport(OWN_SSRC, ()), Remb(OWN_SSRC, ESTIMATE, (sink.ssrc,))]))
        await trio.sleep(INTERVAL)


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
