"""RTCP reports of a track (RFC 3550 section 6): its sender's to the subscribers, the receiver's to the publisher."""

from __future__ import annotations

from collections.abc import Iterable

from lkactor.sfu.leg import Leg
from lkactor.sfu.source import Source
from lkactor.wire.rtcp import CNAME, Nack, ReceiverReport, RtcpPacket, Sdes, SenderReport, build_rtcp

SENDER_REPORT_INTERVAL = 3.0
AT_ONCE, PAUSE = 25, 0.01
"""Legs that are reported to in one go, and seconds until the next ones are: a report costs some 50 us."""
_SHIFT32 = 1 << 32


def report_to_legs(source: Source, legs: Iterable[Leg], now: float) -> bool:
    """Sender reports in the publisher's clock, so that what it sent together plays together (livekit-media 4.6). True:
    enough for once, some may be left."""
    if all(receiver.report is None for receiver in source.receivers):
        return False
    told = 0
    for leg in legs:
        if now < leg.reports_due or not leg.open or leg.current_layer < 0 or not leg.munger.started:
            continue
        receiver = source.layers[leg.current_layer]
        if receiver is None or receiver.report is None:
            continue
        elapsed = now - receiver.report_arrival
        ntp = (receiver.report.ntp + int(elapsed * _SHIFT32)) & 0xFFFFFFFFFFFFFFFF
        rtp = leg.munger.timestamp((receiver.report.rtp + int(elapsed * source.clock_rate)) & 0xFFFFFFFF)
        report = SenderReport(leg.ssrc, ntp, rtp, leg.packets, leg.octets)
        sdes = Sdes(((leg.ssrc, ((CNAME, leg.cname.encode()[:255]),)),))
        leg.egress.send_rtcp(build_rtcp([report, sdes]))
        leg.report_ntp, leg.report_sent_at = ntp, now
        leg.reports_due = now + SENDER_REPORT_INTERVAL
        told += 1
        if told == AT_ONCE:
            return True
    return False


def receiver_reports(source: Source, now: float) -> list[RtcpPacket]:
    """One of each layer that comes."""
    live = [receiver for receiver in source.receivers if receiver.live(now)]
    blocks = [(receiver.ssrc, receiver.report_block(now)) for receiver in live]
    return [ReceiverReport(ssrc, (block,)) for ssrc, block in blocks if block is not None]


def due_nacks(source: Source, now: float) -> list[Nack]:
    """What the publisher is to send again, of each layer."""
    due = [(receiver.ssrc, receiver.nack.due(now)) for receiver in source.receivers]
    return [Nack(ssrc, ssrc, tuple(sequence & 0xFFFF for sequence in missing)) for ssrc, missing in due if missing]


def note_round_trip(leg: Leg, lsr: int, dlsr: int, now: float) -> None:
    """From what the subscriber says of our last sender report (RFC 3550 section 6.4.1)."""
    if lsr and lsr == (leg.report_ntp >> 16) & 0xFFFFFFFF:
        rtt = now - leg.report_sent_at - dlsr / 65536
        if 0 <= rtt < 10:
            leg.rtt += (rtt - leg.rtt) / 4
