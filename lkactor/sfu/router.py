"""Which packet belongs to which section and layer of a peer connection (livekit-media 3.1, RFC 9143 section 9.2).

An SSRC is bound once and for ever: senders stop naming mid and rid as soon as they have seen a receiver report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sdp import ReceiveMedia
from lkactor.wire import extensions
from lkactor.wire.rtp import RtpPacket, unwrap_rtx

MAX_UNKNOWN_SSRCS = 25
MAX_BOUND_SSRCS = 1000


@dataclass(slots=True)
class _Binding:
    """`rtx_payload_types` maps the retransmission's payload type to the original's; `primary` is 0 for media."""

    mid: str
    layer: int
    primary: int
    rtx_payload_types: Mapping[int, int]


class RtpRouter:
    """Groups bursts by (mid, layer), retransmissions unwrapped."""

    def __init__(self) -> None:
        self._media: dict[str, ReceiveMedia] = {}
        self._layers: dict[str, Mapping[str, int]] = {}
        self._bindings: dict[int, _Binding] = {}
        self._unknown: dict[int, int] = {}
        self._primaries: dict[tuple[str, int], int] = {}
        self._announced: list[tuple[str, int, int, int]] = []
        self._silent: set[int] = set()
        """Described, and not seen yet."""
        self.transport_cc_id = 0
        self.counters = Counters()

    def set_media(self, media: Sequence[ReceiveMedia]) -> None:
        """The sections on which the peer sends, after each of its offers."""
        self._media = {section.mid: section for section in media}
        self._unknown.clear()
        silent, self._silent = self._silent, set()
        for section in media:
            self.transport_cc_id = section.extensions.get(extensions.TRANSPORT_CC, self.transport_cc_id)
            if not section.rids:
                for ssrc in section.ssrcs:
                    if ssrc not in section.rtx_of:
                        if ssrc in silent or ssrc not in self._bindings:
                            self._silent.add(ssrc)
                        self._bind(ssrc, section.mid, 0)
                for rtx_ssrc, primary in section.rtx_of.items():
                    self._bind(rtx_ssrc, section.mid, 0, primary)

    def set_layers(self, mid: str, layers: Mapping[str, int]) -> None:
        self._layers[mid] = layers

    def lookup(self, ssrc: int) -> tuple[str, int] | None:
        """(mid, layer) of a bound SSRC of media, not of retransmissions."""
        binding = self._bindings.get(ssrc)
        return (binding.mid, binding.layer) if binding is not None and not binding.primary else None

    def take_bound(self) -> list[tuple[str, int, int, int]]:
        """Streams of which a first packet has come since the last call: (mid, layer, SSRC or 0, SSRC of RTX or 0)."""
        bound, self._announced = self._announced, []
        return bound

    def route(self, packets: Sequence[RtpPacket]) -> dict[tuple[str, int], list[RtpPacket]]:
        groups: dict[tuple[str, int], list[RtpPacket]] = {}
        for packet in packets:
            binding = self._bindings.get(packet.ssrc) or self._first_packet(packet)
            if binding is None:
                continue
            if binding.primary:
                original = self._unwrap(packet, binding)
                if original is None:
                    continue
                packet = original
            key = (binding.mid, binding.layer)
            group = groups.get(key)
            if group is None:
                groups[key] = [packet]
            else:
                group.append(packet)
        if self._silent:
            self._notice(packets)
        return groups

    def _notice(self, packets: Sequence[RtpPacket]) -> None:
        """The first packets of what was described."""
        for ssrc in self._silent.intersection(packet.ssrc for packet in packets):
            self._silent.discard(ssrc)
            binding = self._bindings.get(ssrc)
            if binding is not None:
                self._announced.append((binding.mid, binding.layer, ssrc, 0))

    def _unwrap(self, packet: RtpPacket, binding: _Binding) -> RtpPacket | None:
        payload_type = binding.rtx_payload_types.get(packet.payload_type)
        if payload_type is None:
            self.counters.count("rtx.payload_type")
            return None
        try:
            original = unwrap_rtx(packet, payload_type=payload_type, ssrc=binding.primary)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            return None
        if original is None:
            self.counters.count("rtx.padding")
        return original

    def _first_packet(self, packet: RtpPacket) -> _Binding | None:
        ssrc = packet.ssrc
        if ssrc == 0:
            self.counters.count("rtp.ssrc_zero_probe")
            return None
        section = self._section_of(packet)
        if section is None:
            self._unknown[ssrc] = self._unknown.get(ssrc, 0) + 1
            if len(self._unknown) > MAX_UNKNOWN_SSRCS:
                del self._unknown[next(iter(self._unknown))]
                self.counters.count("rtp.too_many_ssrcs")
            else:
                self.counters.count("rtp.unknown_ssrc")
            return None
        rid = self._text(packet, section, extensions.RID)
        repaired = self._text(packet, section, extensions.REPAIRED_RID)
        layer = 0
        if section.rids:
            name = rid or repaired
            if name is None:
                self.counters.count("rtp.no_rid")
                return None
            known = self._layers.get(section.mid)
            if known is None:
                # A binding is for ever: not before the track has said which rid is which layer.
                self.counters.count("rtp.layers_unknown")
                return None
            layer = known.get(name, 0)
        if repaired or packet.payload_type in self._rtx_types(section):
            primary = self._primaries.get((section.mid, layer))
            if primary is None:
                self.counters.count("rtx.before_media")
                return None
            self._announced.append((section.mid, layer, 0, ssrc))
            return self._bind(ssrc, section.mid, layer, primary)
        self._announced.append((section.mid, layer, ssrc, 0))
        return self._bind(ssrc, section.mid, layer)

    def _section_of(self, packet: RtpPacket) -> ReceiveMedia | None:
        for section in self._media.values():
            mid = self._text(packet, section, extensions.MID)
            if mid is not None:
                return self._media.get(mid)
        # No mid on the packet: the only section with this payload type (RFC 9143 9.2, last resort).
        fitting = [
            section
            for section in self._media.values()
            if any(packet.payload_type in (c.payload_type, c.rtx_payload_type) for c in section.codecs)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _text(self, packet: RtpPacket, section: ReceiveMedia, uri: str) -> str | None:
        id = section.extensions.get(uri)
        value = packet.extension(id) if id else None
        return extensions.text(value) if value is not None else None

    def _rtx_types(self, section: ReceiveMedia) -> dict[int, int]:
        return {c.rtx_payload_type: c.payload_type for c in section.codecs if c.rtx_payload_type is not None}

    def _bind(self, ssrc: int, mid: str, layer: int, primary: int = 0) -> _Binding:
        if len(self._bindings) >= MAX_BOUND_SSRCS:
            del self._bindings[next(iter(self._bindings))]
        binding = _Binding(mid, layer, primary, self._rtx_types(self._media[mid]))
        self._bindings[ssrc] = binding
        self._unknown.pop(ssrc, None)
        if not primary:
            self._primaries[mid, layer] = ssrc
        return binding
