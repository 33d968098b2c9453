"""RTCP: RFC 3550 section 6, RFC 4585 (NACK, PLI), RFC 5104 (FIR), RFC 3611 (XR), transport-wide feedback, REMB.

`parse_rtcp` takes compounds and reduced-size packets (RFC 5506). What it does not know comes out as `UnknownRtcp`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from lkactor.errors import ProtocolViolation
from lkactor.wire import twcc

SR, RR, SDES, BYE, RTPFB, PSFB, XR = 200, 201, 202, 203, 205, 206, 207
AFB = 15
"""Application layer feedback: the format of a REMB."""
_REPORTS = frozenset((SR, RR, SDES, XR))
_MOST = (1 << 64) - 1


class Urgency(IntEnum):
    """How soon a compound has to be read."""

    USUAL = 0
    """Reports of who receives, and estimates no less than the last one: while nothing is short they tell nothing."""
    SOON = 1
    """Other reports and estimates: nobody is worse off if they are read a moment later."""
    URGENT = 2
    """A request, or nobody knows what."""


_BLOCK = struct.Struct(">IIIIII")
_SENDER = struct.Struct(">IIIIII")
_U16U16 = struct.Struct(">HH")
_U32 = struct.Struct(">I")
CNAME, MID_ITEM = 1, 15


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """One source as its receiver saw it. `fraction_lost` is in 1/256, `lsr` and `dlsr` in 1/65536 s."""

    ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_sequence: int
    jitter: int
    lsr: int
    dlsr: int


@dataclass(frozen=True, slots=True)
class SenderReport:
    """`ntp` is 32.32 fixed point seconds since 1900."""

    ssrc: int
    ntp: int
    rtp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Sdes:
    """Chunks: (ssrc, ((item type, value), ...))."""

    chunks: tuple[tuple[int, tuple[tuple[int, bytes], ...]], ...]


@dataclass(frozen=True, slots=True)
class Bye:
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """`sequences` are the lost packets, PID and bitmask unfolded."""

    sender_ssrc: int
    media_ssrc: int
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pli:
    sender_ssrc: int
    media_ssrc: int


@dataclass(frozen=True, slots=True)
class FirEntry:
    ssrc: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Fir:
    sender_ssrc: int
    entries: tuple[FirEntry, ...]


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """Transport-wide feedback. `arrivals`: (sequence, seconds or None for lost), ascending from the first."""

    sender_ssrc: int
    media_ssrc: int
    feedback_count: int
    arrivals: tuple[tuple[int, float | None], ...]


@dataclass(frozen=True, slots=True)
class Remb:
    """Receiver estimated maximum bitrate, bits/s."""

    sender_ssrc: int
    bitrate: int
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnknownRtcp:
    packet_type: int
    count: int
    body: bytes


RtcpPacket = SenderReport | ReceiverReport | Sdes | Bye | Nack | Pli | Fir | TransportFeedback | Remb | UnknownRtcp


# -- parsing


def parse_rtcp(data: bytes) -> list[RtcpPacket]:
    """Every packet of a compound. Raises ProtocolViolation("rtcp....") if any is malformed."""
    packets: list[RtcpPacket] = []
    at, size = 0, len(data)
    if not size:
        raise ProtocolViolation("rtcp.truncated")
    while at < size:
        if size - at < 4 or data[at] >> 6 != 2:
            raise ProtocolViolation("rtcp.header")
        end = at + 4 + (((data[at + 2] << 8) | data[at + 3]) << 2)
        if end > size:
            raise ProtocolViolation("rtcp.truncated")
        body_end = end
        if data[at] & 32:
            body_end -= data[end - 1]
            if data[end - 1] == 0 or body_end < at + 4:
                raise ProtocolViolation("rtcp.padding")
        packets.append(_parse_one(data[at + 1], data[at] & 31, data[at + 4 : body_end]))
        at = end
    return packets


def urgency(compound: bytes, estimate: int) -> tuple[Urgency, int]:
    """How soon it has to be read, and the last estimate of the bitrate (REMB) then, in bits per second. `estimate`: the
    last one before, 0 without. Never raises; as `lkactor/plane/reports.c`."""
    at, size, found = 0, len(compound), Urgency.USUAL
    while at + 4 <= size:
        kind, end = compound[at + 1], at + 4 + 4 * ((compound[at + 2] << 8) | compound[at + 3])
        if compound[at] >> 6 != 2 or end > size:
            return Urgency.URGENT, estimate
        if kind == PSFB and compound[at] & 31 == AFB and compound[at + 12 : at + 16] == b"REMB" and end >= at + 20:
            before, exponent = estimate, compound[at + 17] >> 2
            mantissa = (compound[at + 17] & 3) << 16 | compound[at + 18] << 8 | compound[at + 19]
            estimate = mantissa << exponent if exponent <= 45 else _MOST
            if estimate < before:
                found = Urgency.SOON
        elif kind not in _REPORTS:
            return Urgency.URGENT, estimate
        elif kind == SR:
            found = Urgency.SOON
        at = end
    return (found if at == size else Urgency.URGENT), estimate


def supersedes(compound: bytes, older: bytes) -> bool:
    """All that `older` says is in `compound`, as it is now: reports on the same streams, and else the same octets. Both
    are USUAL; as `lkactor/plane/reports.c`."""
    at, size = 0, len(compound)
    if size != len(older):
        return False
    while at < size:
        end = at + 4 + 4 * ((compound[at + 2] << 8) | compound[at + 3])
        if compound[at + 1] != RR:
            if compound[at + 1] == XR or compound[at:end] != older[at:end]:
                return False
        elif compound[at : at + 12] != older[at : at + 12] or end != at + 8 + 24 * (compound[at] & 31):
            return False  # The first block is another stream's.
        else:
            for block in range(at + 32, end, 24):
                if compound[block : block + 4] != older[block : block + 4]:
                    return False
        at = end
    return True


def _parse_one(kind: int, count: int, body: bytes) -> RtcpPacket:
    if kind == SR:
        if len(body) < 24 + 24 * count:
            raise ProtocolViolation("rtcp.sr")
        ssrc, high, low, rtp, packets, octets = _SENDER.unpack_from(body)
        return SenderReport(ssrc, (high << 32) | low, rtp, packets, octets, _blocks(body, 24, count))
    if kind == RR:
        if len(body) < 4 + 24 * count:
            raise ProtocolViolation("rtcp.rr")
        return ReceiverReport(_U32.unpack_from(body)[0], _blocks(body, 4, count))
    if kind == SDES:
        return _parse_sdes(body, count)
    if kind == BYE:
        if len(body) < 4 * count:
            raise ProtocolViolation("rtcp.bye")
        return Bye(struct.unpack_from(f">{count}I", body))
    if kind == RTPFB:
        return _parse_rtpfb(count, body)
    if kind == PSFB:
        return _parse_psfb(count, body)
    return UnknownRtcp(kind, count, body)


def _blocks(body: bytes, at: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for index in range(count):
        ssrc, lost, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(body, at + 24 * index)
        total = lost & 0xFFFFFF
        if total & 0x800000:
            total -= 0x1000000
        blocks.append(ReportBlock(ssrc, lost >> 24, total, highest, jitter, lsr, dlsr))
    return tuple(blocks)


def _parse_sdes(body: bytes, count: int) -> Sdes:
    chunks, at = [], 0
    for _ in range(count):
        if len(body) < at + 4:
            raise ProtocolViolation("rtcp.sdes")
        ssrc = _U32.unpack_from(body, at)[0]
        at += 4
        items = []
        while True:
            if at >= len(body):
                raise ProtocolViolation("rtcp.sdes")
            kind = body[at]
            if kind == 0:
                at += 4 - at % 4
                break
            if at + 2 > len(body) or at + 2 + body[at + 1] > len(body):
                raise ProtocolViolation("rtcp.sdes")
            items.append((kind, body[at + 2 : at + 2 + body[at + 1]]))
            at += 2 + body[at + 1]
        chunks.append((ssrc, tuple(items)))
    return Sdes(tuple(chunks))


def _parse_rtpfb(fmt: int, body: bytes) -> RtcpPacket:
    if len(body) < 8:
        raise ProtocolViolation("rtcp.feedback")
    sender, media = struct.unpack_from(">II", body)
    if fmt == 1:
        sequences: list[int] = []
        for at in range(8, len(body) - 3, 4):
            pid, mask = _U16U16.unpack_from(body, at)
            sequences.append(pid)
            sequences.extend((pid + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1)
        return Nack(sender, media, tuple(sequences))
    if fmt == 15:
        count, arrivals = twcc.decode(body[8:])
        return TransportFeedback(sender, media, count, arrivals)
    return UnknownRtcp(RTPFB, fmt, body)


def _parse_psfb(fmt: int, body: bytes) -> RtcpPacket:
    if len(body) < 8:
        raise ProtocolViolation("rtcp.feedback")
    sender, media = struct.unpack_from(">II", body)
    if fmt == 1:
        return Pli(sender, media)
    if fmt == 4:
        entries = tuple(FirEntry(_U32.unpack_from(body, at)[0], body[at + 4]) for at in range(8, len(body) - 7, 8))
        return Fir(sender, entries)
    if fmt == 15 and body[8:12] == b"REMB" and len(body) >= 16:
        count, exponent = body[12], body[13] >> 2
        mantissa = ((body[13] & 3) << 16) | (body[14] << 8) | body[15]
        if len(body) < 16 + 4 * count:
            raise ProtocolViolation("rtcp.remb")
        return Remb(sender, mantissa << exponent, struct.unpack_from(f">{count}I", body, 16))
    return UnknownRtcp(PSFB, fmt, body)


# -- building


def build_rtcp(packets: Iterable[RtcpPacket]) -> bytes:
    """A compound, in the order given."""
    return b"".join(_build_one(packet) for packet in packets)


def _packet(kind: int, count: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(">BBH", 0x80 | count, kind, len(body) // 4) + body


def _build_one(packet: RtcpPacket) -> bytes:
    match packet:
        case SenderReport(ssrc=ssrc, ntp=ntp, rtp=rtp, packets=count, octets=octets, reports=reports):
            head = _SENDER.pack(
                ssrc, ntp >> 32, ntp & 0xFFFFFFFF, rtp & 0xFFFFFFFF, count & 0xFFFFFFFF, octets & 0xFFFFFFFF
            )
            return _packet(SR, len(reports), head + _build_blocks(reports))
        case ReceiverReport(ssrc=ssrc, reports=reports):
            return _packet(RR, len(reports), _U32.pack(ssrc) + _build_blocks(reports))
        case Sdes(chunks=chunks):
            return _packet(SDES, len(chunks), b"".join(_build_chunk(ssrc, items) for ssrc, items in chunks))
        case Bye(ssrcs=ssrcs):
            return _packet(BYE, len(ssrcs), struct.pack(f">{len(ssrcs)}I", *ssrcs))
        case Nack(sender_ssrc=sender, media_ssrc=media, sequences=sequences):
            return _packet(RTPFB, 1, struct.pack(">II", sender, media) + _build_nack(sequences))
        case Pli(sender_ssrc=sender, media_ssrc=media):
            return _packet(PSFB, 1, struct.pack(">II", sender, media))
        case Fir(sender_ssrc=sender, entries=entries):
            body = b"".join(struct.pack(">IBxxx", entry.ssrc, entry.sequence) for entry in entries)
            return _packet(PSFB, 4, struct.pack(">II", sender, 0) + body)
        case TransportFeedback(sender_ssrc=sender, media_ssrc=media, feedback_count=count, arrivals=arrivals):
            return _packet(RTPFB, 15, struct.pack(">II", sender, media) + twcc.encode(count, arrivals))
        case Remb(sender_ssrc=sender, bitrate=bitrate, ssrcs=ssrcs):
            return _packet(PSFB, 15, struct.pack(">II", sender, 0) + _build_remb(bitrate, ssrcs))
        case UnknownRtcp(packet_type=kind, count=count, body=body):
            return _packet(kind, count, body)


def _build_blocks(reports: Sequence[ReportBlock]) -> bytes:
    return b"".join(
        _BLOCK.pack(
            block.ssrc,
            (block.fraction_lost << 24) | (max(-0x800000, min(0x7FFFFF, block.packets_lost)) & 0xFFFFFF),
            block.highest_sequence & 0xFFFFFFFF,
            block.jitter & 0xFFFFFFFF,
            block.lsr,
            block.dlsr,
        )
        for block in reports
    )


def _build_chunk(ssrc: int, items: Iterable[tuple[int, bytes]]) -> bytes:
    body = _U32.pack(ssrc) + b"".join(bytes((kind, len(value))) + value for kind, value in items)
    return body + bytes(4 - len(body) % 4)


def _build_nack(sequences: Sequence[int]) -> bytes:
    """Fold into (PID, bitmask of the 16 that follow) pairs; `sequences` ascend in wrapping order."""
    pairs: list[list[int]] = []
    for sequence in sequences:
        distance = ((sequence - pairs[-1][0]) & 0xFFFF) if pairs else 0
        if pairs and 1 <= distance <= 16:
            pairs[-1][1] |= 1 << (distance - 1)
        else:
            pairs.append([sequence & 0xFFFF, 0])
    return b"".join(_U16U16.pack(pid, mask) for pid, mask in pairs)


def _build_remb(bitrate: int, ssrcs: Sequence[int]) -> bytes:
    exponent = max(0, bitrate.bit_length() - 18)
    mantissa = bitrate >> exponent
    head = bytes((len(ssrcs), (exponent << 2) | (mantissa >> 16), (mantissa >> 8) & 255, mantissa & 255))
    return b"REMB" + head + struct.pack(f">{len(ssrcs)}I", *ssrcs)
