"""Packets as all legs need them: looked at once, when they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from lkactor.errors import ProtocolViolation
from lkactor.sdp import Codec
from lkactor.sfu.frame import Frame
from lkactor.sfu.leg import Leg
from lkactor.sfu.receiver import TEMPORALS, LayerReceiver
from lkactor.sfu.source import Source
from lkactor.sfu.svc import LayerReader, Layers, place_of
from lkactor.wire import codecs
from lkactor.wire.codecs import red, vp8
from lkactor.wire.rtp import RtpPacket

RECOVERED_KEPT = 16


class FrameReader:
    """What a packet tells of rates and layers is noted at its receiver; what cannot be read is counted and left out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._layers: LayerReader | None = None
        self._recovered: deque[int] = deque(maxlen=RECOVERED_KEPT)

    def reset(self) -> None:
        """Another codec, or a stream that has begun anew."""
        self._layers = None

    def read(self, receiver: LayerReceiver, packet: RtpPacket, extended: int, legs: Sequence[Leg]) -> list[Frame]:
        """None or one, and before it the lost ones that it repeats, if any of `legs` needs those."""
        codec = self._source.codecs.get(packet.payload_type)
        if codec is None:
            self._source.counters.count("rtp.payload_type")
            return []
        if self._source.video and packet.payload:
            try:
                return [self._read_video(receiver, packet, extended, codec)]
            except ProtocolViolation as violation:
                self._source.counters.count(violation.reason)
                return []
        frames = self._recover(receiver, packet, extended, legs) if codec.mime == "audio/red" else []
        frames.append(Frame(packet, extended, packet.payload, not self._source.video, None))
        return frames

    def again(self, packet: RtpPacket, extended: int, *, keyframe: bool) -> Frame | None:
        """A packet that has been read before; None: it was of no known payload type. Padding is a frame of nothing, so
        that legs count over it."""
        codec, payload = self._source.codecs.get(packet.payload_type), packet.payload
        if codec is None:
            return None
        descriptor = vp8.parse_descriptor(payload) if payload and codec.mime == "video/vp8" else None
        return Frame(packet, extended, payload, keyframe, descriptor)

    def _read_video(self, receiver: LayerReceiver, packet: RtpPacket, extended: int, codec: Codec) -> Frame:
        """Raises ProtocolViolation."""
        payload, descriptor, layers = packet.payload, None, None
        if codec.mime == "video/vp8":
            descriptor = vp8.parse_descriptor(payload)
            keyframe = descriptor.begins_keyframe(payload)
            temporal = descriptor.tid if descriptor.tid > 0 else 0
            receiver.spread[temporal] += len(payload)
            receiver.begun[temporal] += descriptor.start
        else:
            keyframe = codecs.is_keyframe(codec.mime, payload)
            if codec.mime == self._source.format.layered:
                layers = self._layer_reader(codec.mime).read(packet)
            _note_layers(receiver, packet, layers)
        return Frame(packet, extended, payload, keyframe, descriptor, 0, layers)

    def _layer_reader(self, mime: str) -> LayerReader:
        if self._layers is None:
            self._layers = LayerReader(mime, self._source.format.dependency_id, self._source.counters)
        return self._layers

    def _recover(self, receiver: LayerReceiver, packet: RtpPacket, extended: int, legs: Sequence[Leg]) -> list[Frame]:
        """Lost packets that this one repeats, for legs without RED (livekit-media 3.8)."""
        number, payload = packet.payload_type, packet.payload
        if not any(number in leg.payload_types and number not in leg.red_payload_types for leg in legs):
            return []
        try:
            blocks = red.parse(payload)
        except ProtocolViolation as violation:
            self._source.counters.count(violation.reason)
            return []
        frames = []
        for index, block in enumerate(blocks[:-1]):
            missing = extended - (len(blocks) - 1 - index)
            known = missing in self._recovered or receiver.packet(missing) is not None
            if block.timestamp_offset and missing > receiver.first and not known:
                self._recovered.append(missing)
                frames.append(
                    Frame(packet, missing, payload[block.start : block.end], True, None, block.timestamp_offset)
                )
        return frames


def _note_layers(receiver: LayerReceiver, packet: RtpPacket, layers: Layers | None) -> None:
    """For the rates of the layers inside a stream, and its frames."""
    if layers is None:
        receiver.begun[0] += packet.marker  # One marker per frame: RFC 6184, RFC 7798; AV1 without layers.
    else:
        spatial, temporal, begins = place_of(layers)
        receiver.spread[spatial * TEMPORALS + temporal] += len(packet.data)
        receiver.begun[temporal] += begins
