"""One packet for one leg: renumbered, copied into a slot, protected in place."""

from __future__ import annotations

import struct

from lkactor.errors import ProtocolViolation
from lkactor.sfu.frame import Frame
from lkactor.sfu.leg import HISTORY, Leg, Rewritten
from lkactor.sfu.munger import write_vp8
from lkactor.sfu.source import Source
from lkactor.sfu.svc import Rewrite
from lkactor.sfu.trailers import trailer_size
from lkactor.srtp import PacketBuffer
from lkactor.wire.codecs import red, vp8
from lkactor.wire.rtp import RtpPacket

SLOTS, SLOT_SIZE = 64, 1664
_HEADER = struct.Struct(">BBHII")


class PacketWriter:
    """`buffer` has SLOTS slots of SLOT_SIZE octets; whoever sends a run fills them in order."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.buffer = PacketBuffer(SLOTS, SLOT_SIZE)
        self._view = self.buffer.view

    def write(
        self, leg: Leg, layer: int, frame: Frame, slot: int, stamp: int, now: float, rewrite: Rewrite | None = None
    ) -> memoryview | None:
        """One packet into one slot, protected. None: it has no place in this leg's numbering any more."""
        packet, munger = frame.packet, leg.munger
        payload_type = leg.payload_types.get(packet.payload_type)
        if payload_type is None:
            self._source.counters.count("leg.codec")
            return None
        newest = frame.extended > munger.newest
        sequence = munger.sequence(frame.extended)
        if sequence < 0:
            self._source.counters.count("leg.late")
            return None
        timestamp = (frame.timestamp + munger.timestamp_offset) & 0xFFFFFFFF
        if newest:
            munger.last_timestamp = timestamp
            leg.last_sent_at = now
        ids: Rewritten = rewrite
        if frame.descriptor is not None:
            dropped = 0 if newest or leg.thinner is None else leg.thinner.dropped_since(frame.descriptor)
            ids = leg.vp8.map(frame.descriptor, newest, dropped)
        leg.history[sequence & (HISTORY - 1)] = (sequence, frame.extended, layer, ids, now, 0, timestamp)
        return self.emit(leg, frame.packet, frame.payload, payload_type, sequence, timestamp, leg.ssrc, slot, stamp,
                          frame.descriptor, ids, recovered=frame.recovered)  # fmt: skip

    def emit(
        self,
        leg: Leg,
        packet: RtpPacket,
        payload: memoryview | bytes,
        payload_type: int,
        sequence: int,
        timestamp: int,
        ssrc: int,
        slot: int,
        stamp: int,
        descriptor: vp8.Vp8Descriptor | None,
        ids: Rewritten,
        original: int = -1,
        recovered: bool = False,
    ) -> memoryview | None:
        """Header, payload, protection. `original` >= 0 makes it a retransmission (RFC 4588)."""
        srtp = leg.egress.srtp
        view, start = self._view, slot * SLOT_SIZE
        layered = ids if isinstance(ids, Rewrite) else None
        second = payload_type | 128 if (packet.marker if layered is None else layered.marker) else payload_type
        at = start + 12
        dependency = layered.descriptor if layered is not None and leg.dependency_id else b""
        if dependency or leg.playout_delay:
            _HEADER.pack_into(view, start, 0x90, second, sequence, timestamp, ssrc)
            block = _extensions(leg, stamp, dependency)
            view[at : at + len(block)] = block
            at += len(block)
        elif leg.abs_send_time_id:
            _HEADER.pack_into(view, start, 0x90, second, sequence, timestamp, ssrc)
            view[at : at + 8] = b"\xbe\xde\x00\x01" + ((leg.abs_send_time_id << 28) | 0x2000000 | stamp).to_bytes(
                4, "big"
            )
            at += 8
        else:
            _HEADER.pack_into(view, start, 0x80, second, sequence, timestamp, ssrc)
        if original >= 0:
            view[at] = original >> 8
            view[at + 1] = original & 0xFF
            at += 2
        inner = leg.red_payload_types.get(packet.payload_type)
        if inner is not None:
            payload = red.with_payload_type(payload, inner)
        elif leg.kind == "audio" and not recovered and self._source.is_red(packet):
            payload = self._primary(payload)
        if leg.strips_trailers and second & 128:
            payload = payload[: len(payload) - trailer_size(payload)]
        size = len(payload)
        end = at + size
        if srtp is None or end - start > SLOT_SIZE - 160:
            self._source.counters.count("leg.oversize")
            return None
        view[at:end] = payload
        if descriptor is not None and ids is not None and not isinstance(ids, Rewrite):
            write_vp8(view, at, descriptor, ids)
        length = srtp.protect_rtp_into(self.buffer, start, end - start)
        leg.packets += 1
        leg.octets += size
        return view[start : start + length]

    def extracts_red(self, leg: Leg, packet: RtpPacket) -> bool:
        """The publisher sends RED and this leg cannot take it."""
        number = packet.payload_type
        return self._source.is_red(packet) and number in leg.payload_types and number not in leg.red_payload_types

    def unreadable(self, leg: Leg, frame: Frame) -> bool:
        """RED that was counted as malformed already holds nothing for a leg that needs what is inside."""
        if frame.recovered or not self.extracts_red(leg, frame.packet):
            return False
        try:
            red.parse(frame.payload)
        except ProtocolViolation:
            return True
        return False

    def _primary(self, payload: memoryview | bytes) -> memoryview | bytes:
        """The newest block of a RED packet, for a subscriber without RED."""
        try:
            block = red.parse(payload)[-1]
        except ProtocolViolation as violation:
            self._source.counters.count(violation.reason)
            return b""
        return payload[block.start : block.end]


def _extensions(leg: Leg, stamp: int, dependency: bytes) -> bytes:
    """The header extension block of a packet: one-byte elements where a dependency descriptor fits (RFC 8285
    section 4.2), else two-byte ones (4.3)."""
    elements = []
    if leg.abs_send_time_id:
        elements.append((leg.abs_send_time_id, stamp.to_bytes(3, "big")))
    if leg.playout_delay:
        elements.append((leg.playout_delay >> 28, (leg.playout_delay & 0xFFFFFF).to_bytes(3, "big")))
    if dependency:
        elements.append((leg.dependency_id, dependency))
    if len(dependency) <= 16:
        profile, block = 0xBEDE, b"".join(bytes((number << 4 | len(value) - 1,)) + value for number, value in elements)
    else:
        profile, block = 0x1000, b"".join(bytes((number, len(value))) + value for number, value in elements)
    block += bytes(-len(block) % 4)
    return ((profile << 16) | len(block) // 4).to_bytes(4, "big") + block
