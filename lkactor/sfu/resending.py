"""What is sent once more: what a subscriber has missed (RFC 4588), and probes of its path."""

from __future__ import annotations

from collections.abc import Sequence

from lkactor.sfu.leg import HISTORY, Leg, Sent
from lkactor.sfu.source import Source
from lkactor.sfu.svc import Rewrite
from lkactor.sfu.writing import SLOT_SIZE, SLOTS, PacketWriter
from lkactor.wire.codecs import vp8
from lkactor.wire.extensions import abs_send_time
from lkactor.wire.rtp import build_rtp

NACK_SUPPRESS = 0.1
MAX_RESENDS = 3
PROBE_DEPTH = 8
"""A probe sends the last packets again, so many of them."""
PROBE_PADDING = 255
"""Octets; the count is in the last one (RFC 3550 section 5.1)."""


class Resender:
    """Out of the histories of the legs, which know what was sent, and of the layers, which have it."""

    def __init__(self, source: Source, writer: PacketWriter) -> None:
        self._source = source
        self._writer = writer

    def on_nack(self, leg: Leg, sequences: Sequence[int], now: float) -> None:
        """Send again what is still there (livekit-media 4.7)."""
        leg.nacks += len(sequences)
        if not leg.open:
            return
        segments: list[memoryview] = []
        suppress = min(NACK_SUPPRESS, 2 * leg.rtt)
        for sequence in sequences:
            entry = leg.history[sequence & (HISTORY - 1)]
            if entry is None or entry[0] != sequence:
                leg.unanswered_nacks += 1
                continue
            _, extended, layer, ids, sent_at, tries, timestamp = entry
            if now - sent_at < suppress:
                continue
            leg.repeated_nacks += tries > 0
            if tries >= MAX_RESENDS:
                continue
            octets = leg.octets
            segment = self._resend(leg, entry, len(segments), now)
            if segment is not None:
                leg.history[sequence & (HISTORY - 1)] = (sequence, extended, layer, ids, now, tries + 1, timestamp)
                leg.resent += 1
                leg.resent_octets += leg.octets - octets
                segments.append(segment)
                if len(segments) == SLOTS:
                    leg.egress.send_run(segments)
                    segments = []
        if segments:
            leg.egress.send_run(segments)

    def on_probe(self, leg: Leg, octets: int, now: float) -> None:
        """Send about so many octets more: the last packets again, as retransmissions, or else padding where only those
        would be (livekit-media 4.9). Counted with what was sent again."""
        if leg.revoked or not leg.egress.ready or not leg.munger.started:
            return
        if not leg.rtx_ssrc or not leg.rtx_payload_types:
            self._source.counters.count("leg.no_probe")
            return
        entries = self._resendable(leg)
        segments: list[memoryview] = []
        sent = 0
        while sent < octets and len(segments) < SLOTS:
            slot = len(segments)
            segment = self._resend(leg, entries[slot % len(entries)], slot, now) if entries else None
            if segment is None:
                entries, segment = [], self._pad(leg, slot, now)
            if segment is None:
                break
            segments.append(segment)
            sent += len(segment)
        leg.resent_octets += sent
        if segments:
            leg.egress.send_run(segments)

    def _resendable(self, leg: Leg) -> list[Sent]:
        """The last packets that are still there, newest first."""
        newest, entries = leg.munger.last_sequence, []
        for back in range(PROBE_DEPTH):
            sequence = (newest - back) & 0xFFFF
            entry = leg.history[sequence & (HISTORY - 1)]
            receiver = self._source.layers[entry[2]] if entry is not None and entry[0] == sequence else None
            if entry is not None and receiver is not None and receiver.packet(entry[1]) is not None:
                entries.append(entry)
        return entries

    def _pad(self, leg: Leg, slot: int, now: float) -> memoryview | None:
        """Padding alone, on the stream of the retransmissions, where it leaves no hole in the media's numbers."""
        srtp, view, start = leg.egress.srtp, self._writer.buffer.view, slot * SLOT_SIZE
        if srtp is None:
            return None
        leg.rtx_sequence = (leg.rtx_sequence + 1) & 0xFFFF
        packet = build_rtp(
            payload_type=next(iter(leg.rtx_payload_types.values())),
            sequence=leg.rtx_sequence,
            timestamp=leg.munger.last_timestamp,
            ssrc=leg.rtx_ssrc,
            marker=False,
            payload=b"",
            extensions={leg.abs_send_time_id: abs_send_time(now).to_bytes(3, "big")} if leg.abs_send_time_id else {},
            padding=PROBE_PADDING,
        )
        view[start : start + len(packet)] = packet
        return view[start : start + srtp.protect_rtp_into(self._writer.buffer, start, len(packet))]

    def _resend(
        self,
        leg: Leg,
        entry: Sent,
        slot: int,
        now: float,
    ) -> memoryview | None:
        sequence, extended, layer, ids, _, _, timestamp = entry
        receiver = self._source.layers[layer]
        packet = receiver.packet(extended) if receiver is not None else None
        payload_type = leg.payload_types.get(packet.payload_type) if packet is not None else None
        if packet is None or payload_type is None:
            leg.unanswered_nacks += 1
            return None
        vp8_ids = ids is not None and not isinstance(ids, Rewrite)
        descriptor = vp8.parse_descriptor(packet.payload) if vp8_ids else None
        stamp = abs_send_time(now) if leg.abs_send_time_id else 0
        rtx_type = leg.rtx_payload_types.get(payload_type)
        again = (leg, packet, packet.payload)
        if rtx_type is None or not leg.rtx_ssrc:
            return self._writer.emit(*again, payload_type, sequence, timestamp, leg.ssrc, slot, stamp, descriptor, ids)
        leg.rtx_sequence = (leg.rtx_sequence + 1) & 0xFFFF
        return self._writer.emit(
            *again, rtx_type, leg.rtx_sequence, timestamp, leg.rtx_ssrc, slot, stamp, descriptor, ids, original=sequence
        )
