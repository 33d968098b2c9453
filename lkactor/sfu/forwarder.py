"""One published track: its layers in, its legs out. The forwarding plane of the server.

Per burst: every packet is looked at once (`Frame`), then each leg writes the whole burst: select, renumber, copy into a
slot, protect in place, one `send_run`. No object is made per packet and leg but a memoryview. Source of the rules:
livekit-media sections 3.4 to 3.6 and 4.1 to 4.8.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from livekit.protocol import models

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.sdp import Codec, ReceiveMedia
from lkactor.sfu.catchup import RecentKeyFrames
from lkactor.sfu.fanout import FanoutMaker, PythonFanout
from lkactor.sfu.layers import (
    MAX_LAYERS,
    effective_target,
    layer_for_dimensions,
    layer_for_quality,
    takes_keyframe,
)
from lkactor.sfu.leg import HISTORY, MAX_TEMPORAL, Egress, Leg, Rewritten, Sent
from lkactor.sfu.munger import write_vp8
from lkactor.sfu.rates import Offer, RateMeter
from lkactor.sfu.receiver import TEMPORALS, LayerReceiver
from lkactor.sfu.svc import LayerReader, Layers, Rewrite, place_of, select
from lkactor.sfu.thinning import Vp8Thinner
from lkactor.sfu.trailers import trailer_size
from lkactor.srtp import SendBuffer
from lkactor.wire import codecs
from lkactor.wire.codecs import red, vp8
from lkactor.wire.extensions import AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR, abs_send_time
from lkactor.wire.rtcp import (
    CNAME,
    Nack,
    Pli,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    Sdes,
    SenderReport,
    build_rtcp,
)
from lkactor.wire.rtp import RtpPacket, build_rtp
from lkactor.wire.sequence import seq_diff

SLOTS, SLOT_SIZE = 64, 1664
REPORT_INTERVAL = 1.0
SENDER_REPORT_INTERVAL = 3.0
KEY_FRAME_RETRY = 0.2
SEEDING_INTERVAL = 1.0
DEFAULT_THROTTLE = (0.5, 1.0, 1.0)
NACK_SUPPRESS = 0.1
MAX_RESENDS = 3
PROBE_DEPTH = 8
"""A probe sends the last packets again, so many of them."""
PROBE_PADDING = 255
"""Octets; the count is in the last one (RFC 3550 section 5.1)."""
RESUME_SLACK = 0.2
RECOVERED_KEPT = 16
LAYERED_MIMES = ("video/vp9", "video/av1")
SWITCH_PATIENCE = 3.0
"""A layer whose sender reports never come is switched to by wall clock after this long."""
_HEADER = struct.Struct(">BBHII")
_SHIFT32 = 1 << 32


@dataclass(frozen=True, slots=True)
class TrackFormat:
    """What is known of a track when its actor starts."""

    kind: str
    codecs: tuple[Codec, ...]
    """As the publisher sends them, its payload types."""
    layers: tuple[models.VideoLayer, ...]
    simulcast: bool
    encrypted: bool
    history: int
    throttle: tuple[float, float, float] = DEFAULT_THROTTLE
    dependency_id: int = 0
    """The publisher's id of the dependency descriptor, 0 without."""
    screen: bool = False
    level_id: int = 0
    """The publisher's id of the audio level, 0 without."""

    @property
    def mime(self) -> str:
        """Of what comes; "" while nothing is known."""
        return self.codecs[0].mime if self.codecs else ""

    @property
    def layered(self) -> str:
        """The mime of a codec with layers inside its one stream, "" without."""
        mime = self.codecs[0].mime if self.codecs and not self.simulcast else ""
        return mime if mime in LAYERED_MIMES else ""

    @property
    def red_types(self) -> dict[int, int]:
        """The publisher's RED payload types, each with the type of the Opus inside."""
        opus = [codec.payload_type for codec in self.codecs if codec.mime == "audio/opus"]
        return {codec.payload_type: opus[0] if opus else -1 for codec in self.codecs if codec.mime == "audio/red"}


class Frame:
    """One input packet as all legs need it."""

    __slots__ = ("descriptor", "extended", "keyframe", "layers", "packet", "payload", "recovered", "timestamp")

    def __init__(
        self,
        packet: RtpPacket,
        extended: int,
        payload: memoryview,
        keyframe: bool,
        descriptor: vp8.Vp8Descriptor | None,
        age: int = 0,
        layers: Layers | None = None,
    ) -> None:
        """`age` > 0: not the packet itself but one before it that came as its redundancy, so much older."""
        self.timestamp = (packet.timestamp - age) & 0xFFFFFFFF
        self.recovered = age > 0
        self.packet = packet
        self.extended = extended
        self.payload = payload
        self.keyframe = keyframe
        self.descriptor = descriptor
        self.layers = layers


class TrackForwarder:
    """Verbs: `receive` per burst and layer, `on_*` for feedback, `next_timeout`, `handle_timeout`.

    Feedback for the publisher goes to `publisher`, whose egress is bound by the caller.
    """

    def __init__(self, format: TrackFormat, fanouts: FanoutMaker = PythonFanout.of) -> None:
        self._format = format
        self._codecs = {codec.payload_type: codec for codec in format.codecs}
        self._clock_rate = format.codecs[0].clock_rate if format.codecs else 90000
        self._reader: LayerReader | None = None
        self._layered = format.layered
        self._meter = RateMeter(screen=format.screen)
        self._layers: list[LayerReceiver | None] = [None] * MAX_LAYERS
        self.legs: list[Leg] = []
        self._fanouts = fanouts
        self._fanout = fanouts(format.kind, format.red_types)
        self._publisher: Egress | None = None
        self.muted = False
        self.nacks_sent = self.plis_sent = 0
        self.counters = Counters()
        self._buffer = SendBuffer(SLOTS, SLOT_SIZE)
        self._view = self._buffer.view
        self._recovered: deque[int] = deque(maxlen=RECOVERED_KEPT)
        self._recent = RecentKeyFrames()
        self._report_due: float | None = None
        self._key_frame_due: float | None = None
        self._last_pli = [float("-inf")] * MAX_LAYERS
        self._pli_pending: set[int] = set()
        """Layers of which a subscriber wants a key frame as soon as the throttle allows."""

    def set_format(self, format: TrackFormat) -> None:
        """The media of a codec that was only announced before is there."""
        self._format = format
        self._reader = None
        self._recent = RecentKeyFrames()
        self._layered = format.layered
        self._meter = RateMeter(screen=format.screen)
        self._codecs = {codec.payload_type: codec for codec in format.codecs}
        self._clock_rate = format.codecs[0].clock_rate if format.codecs else 90000
        self._fanout.close()
        self._fanout = self._fanouts(format.kind, format.red_types)
        self._fanout.set_muted(self.muted)
        self._fanout.set_legs(self.legs)
        self._feed()

    @property
    def publisher(self) -> Egress | None:
        return self._publisher

    @publisher.setter
    def publisher(self, publisher: Egress | None) -> None:
        self._publisher = publisher
        self._feed()

    def _feed(self) -> None:
        for receiver in self.receivers:
            self._fanout.feed(receiver, self._publisher, self._codecs, self._layered, self._format.level_id)

    def close(self) -> None:
        """The track is gone, or another forwarder is about to take over."""
        self._fanout.close()

    # -- legs -------------------------------------------------------------------------------------------------------

    def add_leg(self, leg: Leg, now: float) -> None:
        """Idempotent. A leg that has been served before goes on with its numbers, at a key frame."""
        if leg in self.legs:
            return
        if leg.munger.started:
            leg.need_switch = True
        self.legs.append(leg)
        self._fanout.set_legs(self.legs)
        self._offer(leg)
        self._want_key_frames(now)

    def remove_leg(self, leg: Leg) -> None:
        if leg in self.legs:
            self.legs.remove(leg)
            self._fanout.set_legs(self.legs)

    def set_wanted(self, leg: Leg, quality: int, width: int, height: int, now: float, fps: int = 0) -> None:
        """What the subscriber asked for: a size wins over a quality (livekit-media 4.14)."""
        layers = self._format.layers
        if width and height and any(layer.width and layer.height for layer in layers):
            leg.wanted_layer = layer_for_dimensions(width, height, layers)
        else:
            leg.wanted_layer = layer_for_quality(quality, layers)
        leg.wanted_fps = fps
        leg.wanted_temporal = leg.offer.temporal_for(fps, leg.wanted_layer, MAX_TEMPORAL)
        self._retarget(leg)
        self._want_key_frames(now)

    def set_limit(self, leg: Leg, layer: int, temporal: int, halted: bool, now: float) -> None:
        """What the subscriber's downlink has room for."""
        leg.limit_layer, leg.limit_temporal, leg.halted = max(layer, 0), max(temporal, 0), halted
        self._retarget(leg)
        self._set_closed(leg, now)
        self._want_key_frames(now)

    def _retarget(self, leg: Leg) -> None:
        before = leg.target_layer
        leg.target_layer = min(leg.wanted_layer, leg.limit_layer)
        leg.target_temporal = min(leg.wanted_temporal, leg.limit_temporal)
        if leg.target_temporal < MAX_TEMPORAL and leg.thinner is None and self._format.mime == "video/vp8":
            leg.thinner = Vp8Thinner(MAX_TEMPORAL)
        if leg.target_layer != before:
            leg.refused_since = None

    def set_paused(self, leg: Leg, paused: bool, now: float) -> None:
        """The subscriber's wish."""
        leg.disabled = paused
        self._set_closed(leg, now)

    def _set_closed(self, leg: Leg, now: float) -> None:
        paused = leg.disabled or leg.halted
        if leg.paused != paused:
            leg.paused = paused
            if not paused:
                leg.need_switch = leg.munger.started
                self._want_key_frames(now)

    def set_muted(self, muted: bool, now: float) -> None:
        """The publisher says so; its packets, if any come, are not for the subscribers."""
        if self.muted and not muted:
            for leg in self.legs:
                leg.need_switch = leg.munger.started
            for layer in self._layers:
                if layer is not None:
                    layer.report = None  # From before the pause: its clock may have jumped.
            self._want_key_frames(now)
        self.muted = muted
        self._fanout.set_muted(muted)
        for leg in self.legs:
            self._offer(leg)

    def _offer(self, leg: Leg) -> None:
        """Tell a leg what there is to choose from."""
        format = self._format
        if format.kind == "video":
            several = len(format.layers) > 1
            leg.offer = Offer(self._meter.rates, self._meter.frames, self.muted, format.screen, several)

    def _measure(self, now: float) -> None:
        if self._format.kind != "video":
            return
        self._meter.measure(self._layers, now, layered=bool(self._layered))
        for leg in self.legs:
            self._offer(leg)
            temporal = leg.offer.temporal_for(leg.wanted_fps, leg.wanted_layer, MAX_TEMPORAL)
            if temporal != leg.wanted_temporal:
                leg.wanted_temporal = temporal
                self._retarget(leg)

    # -- packets ----------------------------------------------------------------------------------------------------

    def receive(self, layer: int, packets: Sequence[RtpPacket], now: float) -> None:
        """A burst of one layer, in arrival order."""
        for rest, run in groupby(packets, attrgetter("rest")):
            if rest:
                self._serve_rest(layer, run, now)
            else:
                self._receive(layer, run, now)

    def _serve_rest(self, layer: int, packets: Iterable[RtpPacket], now: float) -> None:
        """Packets that the forwarding plane has received, in order, to the legs that it has left."""
        receiver = self._layers[layer]
        for packet in packets:
            codec = self._codecs.get(packet.payload_type)
            if receiver is None or codec is None or packet.ssrc != receiver.ssrc or self.muted:
                continue
            extended = receiver.highest + seq_diff(packet.sequence, receiver.highest & 0xFFFF)
            payload = packet.payload
            descriptor = vp8.parse_descriptor(payload) if codec.mime == "video/vp8" else None
            frames = (Frame(packet, extended, payload, self._format.kind != "video", descriptor),)
            for leg in self.legs:
                if leg.open and leg.munger.newest < extended:
                    self._forward(leg, layer, frames, now)

    def _receive(self, layer: int, packets: Iterable[RtpPacket], now: float) -> None:
        receiver = self._receiver(layer, now)
        video = self._format.kind == "video"
        frames: list[Frame] = []
        for packet in packets:
            restarts = receiver.restarts
            extended = receiver.receive(packet)
            if extended < 0:
                continue
            if receiver.restarts != restarts:
                frames.clear()
                self._source_restarted(layer, now)
            codec = self._codecs.get(packet.payload_type)
            if codec is None:
                self.counters.count("rtp.payload_type")
                continue
            payload = packet.payload
            keyframe, descriptor, layers = not video, None, None
            if video and payload:
                if codec.mime == "video/vp8":
                    try:
                        descriptor = vp8.parse_descriptor(payload)
                    except ProtocolViolation as violation:
                        self.counters.count(violation.reason)
                        continue
                    keyframe = descriptor.begins_keyframe(payload)
                    temporal = descriptor.tid if descriptor.tid > 0 else 0
                    receiver.spread[temporal] += len(payload)
                    if descriptor.start:
                        receiver.begun[temporal] += 1
                else:
                    keyframe = codecs.is_keyframe(codec.mime, payload)
                    if codec.mime == self._layered:
                        try:
                            layers = self._layer_reader(codec.mime).read(packet)
                        except ProtocolViolation as violation:
                            self.counters.count(violation.reason)
                            continue
                    _note_layers(receiver, packet, layers)
                receiver.keyframe_seen = receiver.keyframe_seen or keyframe
                if keyframe:
                    self._pli_pending.discard(layer)
                    self._recent.note(layer, extended, packet)
            if codec.mime == "audio/red":
                frames.extend(self._recover(receiver, packet, extended, payload))
            frames.append(Frame(packet, extended, payload, keyframe, descriptor, 0, layers))
        if frames and not self.muted:
            for leg in self._fanout.forward(layer, frames, now):
                if leg.open:
                    self._forward(leg, layer, frames, now)
        if receiver.nack.next_timeout() is not None:
            self._send_nacks(now)

    def _layer_reader(self, mime: str) -> LayerReader:
        if self._reader is None:
            self._reader = LayerReader(mime, self._format.dependency_id, self.counters)
        return self._reader

    def _recover(self, receiver: LayerReceiver, packet: RtpPacket, extended: int, payload: memoryview) -> list[Frame]:
        """Lost packets that this one repeats, for legs without RED (livekit-media 3.8)."""
        number = packet.payload_type
        if not any(number in leg.payload_types and number not in leg.red_payload_types for leg in self.legs):
            return []
        try:
            blocks = red.parse(payload)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
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

    def _source_restarted(self, layer: int, now: float) -> None:
        """Another SSRC, or a jump: what the legs count by is of the past."""
        self._reader = None
        self._recent.forget(layer)
        for leg in self.legs:
            if leg.current_layer == layer:
                leg.need_switch = True
        self._want_key_frames(now)

    def _receiver(self, layer: int, now: float) -> LayerReceiver:
        receiver = self._layers[layer]
        if receiver is None:
            receiver = self._layers[layer] = self._fanout.receiver(layer, self._clock_rate, self._format.history)
            self._feed()
            self._report_due = self._report_due or now + REPORT_INTERVAL
            self._want_key_frames(now)
        return receiver

    def _forward(self, leg: Leg, layer: int, frames: Sequence[Frame], now: float) -> None:
        """One leg, one burst: select, write, protect, one send."""
        video = leg.kind == "video"
        if video and layer != leg.current_layer and not any(frame.keyframe for frame in frames):
            return
        segments: list[memoryview] = []
        stamp = abs_send_time(now) if leg.abs_send_time_id else 0
        for frame in frames:
            if video:
                switching = layer != leg.current_layer or leg.need_switch
                if switching and not (frame.keyframe and self._switch(leg, layer, frame, now)):
                    continue
            elif not leg.munger.started or leg.need_switch:
                self._start_audio(leg, frame, now)
            if frame.recovered and not self._extracts_red(leg, frame.packet):
                continue
            if not frame.payload or self._unreadable(leg, frame):
                leg.munger.skip(frame.extended)
                continue
            rewrite: Rewrite | None = None
            if frame.layers is not None:
                late = frame.extended <= leg.munger.newest
                leg.svc, rewrite = select(
                    leg.svc, frame.packet, frame.layers, leg.target_layer, leg.target_temporal, late
                )
                if rewrite is None:
                    leg.munger.skip(frame.extended)
                    continue
            elif leg.thinner is not None and self._thinned(leg, leg.thinner, frame):
                continue
            segment = self._write(leg, layer, frame, len(segments), stamp, now, rewrite)
            if segment is not None:
                segments.append(segment)
                if len(segments) == SLOTS:
                    leg.egress.send_run(segments)
                    segments = []
        if segments:
            leg.egress.send_run(segments)

    def _thinned(self, leg: Leg, thinner: Vp8Thinner, frame: Frame) -> bool:
        """This packet is of a temporal layer that this leg does not get now."""
        descriptor, munger = frame.descriptor, leg.munger
        if descriptor is None:
            return False
        if frame.extended <= munger.newest:
            return thinner.was_dropped(descriptor)
        contiguous = frame.extended == munger.newest + 1
        goes, begins = thinner.takes(descriptor, leg.target_temporal, keyframe=frame.keyframe, contiguous=contiguous)
        if goes:
            if thinner.idle(leg.target_temporal):
                leg.thinner = None  # Everything goes out again.
            return False
        if begins:
            leg.vp8.drop()
        munger.skip(frame.extended)
        return True

    def _write(
        self, leg: Leg, layer: int, frame: Frame, slot: int, stamp: int, now: float, rewrite: Rewrite | None = None
    ) -> memoryview | None:
        """One packet into one slot, protected. None: it has no place in this leg's numbering any more."""
        packet, munger = frame.packet, leg.munger
        payload_type = leg.payload_types.get(packet.payload_type)
        if payload_type is None:
            self.counters.count("leg.codec")
            return None
        newest = frame.extended > munger.newest
        sequence = munger.sequence(frame.extended)
        if sequence < 0:
            self.counters.count("leg.late")
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
        return self._emit(leg, frame.packet, frame.payload, payload_type, sequence, timestamp, leg.ssrc, slot, stamp,
                          frame.descriptor, ids, recovered=frame.recovered)  # fmt: skip

    def _emit(
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
        elif leg.kind == "audio" and not recovered and self._codecs[packet.payload_type].mime == "audio/red":
            payload = self._primary(payload)
        if leg.strips_trailers and second & 128:
            payload = payload[: len(payload) - trailer_size(payload)]
        size = len(payload)
        end = at + size
        if srtp is None or end - start > SLOT_SIZE - 160:
            self.counters.count("leg.oversize")
            return None
        view[at:end] = payload
        if descriptor is not None and ids is not None and not isinstance(ids, Rewrite):
            write_vp8(view, at, descriptor, ids)
        length = srtp.protect_rtp_into(self._buffer, start, end - start)
        leg.packets += 1
        leg.octets += size
        return view[start : start + length]

    def _extracts_red(self, leg: Leg, packet: RtpPacket) -> bool:
        """The publisher sends RED and this leg cannot take it."""
        number = packet.payload_type
        red_in = self._codecs[number].mime == "audio/red"
        return red_in and number in leg.payload_types and number not in leg.red_payload_types

    def _unreadable(self, leg: Leg, frame: Frame) -> bool:
        """RED that was counted as malformed already holds nothing for a leg that needs what is inside."""
        if frame.recovered or not self._extracts_red(leg, frame.packet):
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
            self.counters.count(violation.reason)
            return b""
        return payload[block.start : block.end]

    # -- starting and switching -------------------------------------------------------------------------------------

    def _start_audio(self, leg: Leg, frame: Frame, now: float) -> None:
        if not leg.munger.started:
            leg.munger.start(frame.extended, frame.packet.timestamp)
        else:
            self._resume(leg, frame, now)
        leg.current_layer, leg.need_switch = 0, False
        leg.reports_due = 0.0

    def _resume(self, leg: Leg, frame: Frame, now: float) -> None:
        """The source after a pause or a restart: numbers go on. Time goes as the source's does if that fits the wall
        clock within RESUME_SLACK, else by the wall clock, and never back (livekit-media 4.5)."""
        munger, timestamp = leg.munger, frame.packet.timestamp
        out = munger.timestamp(timestamp)
        elapsed = max(1, int((now - leg.last_sent_at) * self._clock_rate))
        expected = (munger.last_timestamp + elapsed) & 0xFFFFFFFF
        slack = int(RESUME_SLACK * self._clock_rate)
        if _behind(out, munger.last_timestamp) >= 0 or abs(_behind(out, expected)) > slack:
            out = expected
        munger.switch(frame.extended, timestamp, out)

    def _switch(self, leg: Leg, layer: int, frame: Frame, now: float) -> bool:
        """At a key frame of `layer`: take it if it is a step towards the wish. False: not now."""
        target = self._target(leg, now)
        if layer != leg.current_layer and not (
            takes_keyframe(layer, leg.current_layer, target) or (leg.current_layer < 0 and target < 0)
        ):
            return False
        munger = leg.munger
        if not munger.started:
            munger.start(frame.extended, frame.packet.timestamp)
        elif layer == leg.current_layer or leg.current_layer < 0:
            self._resume(leg, frame, now)
        else:
            out = self._aligned(leg, layer, frame, now)
            if out is None:
                return False
            munger.switch(frame.extended, frame.packet.timestamp, out)
        if frame.descriptor is not None:
            leg.vp8.switch(frame.descriptor)
            if leg.thinner is not None:
                leg.thinner.switched(leg.target_temporal)
        leg.svc = None
        leg.current_layer, leg.need_switch = layer, False
        leg.key_frame_wanted_since = leg.refused_since = None
        leg.reports_due = 0.0
        return True

    def _aligned(self, leg: Leg, layer: int, frame: Frame, now: float) -> int | None:
        """The outgoing timestamp of the first packet of another layer, by both layers' sender reports.

        None: not yet (livekit-media 4.5). After SWITCH_PATIENCE wall clock has to do.
        """
        munger = leg.munger
        old, new = self._layers[leg.current_layer], self._layers[layer]
        elapsed = int((now - (old.last_arrival if old is not None else now)) * self._clock_rate)
        by_clock = (munger.last_timestamp + max(1, elapsed)) & 0xFFFFFFFF
        if old is None or not old.live(now):
            return by_clock  # Nothing of it overlaps the new one, so nobody can see the seam.
        if new is None or old.report is None or new.report is None:
            if leg.refused_since is None:
                leg.refused_since = now
            return by_clock if now - leg.refused_since > SWITCH_PATIENCE else None
        capture = new.report.ntp + ((_signed(frame.packet.timestamp - new.report.rtp) << 32) // self._clock_rate)
        in_old = old.report.rtp + ((capture - old.report.ntp) * self._clock_rate >> 32)
        out = munger.timestamp(in_old & 0xFFFFFFFF)
        behind = _behind(out, munger.last_timestamp)
        if behind > self._clock_rate // 20:
            if leg.refused_since is None:
                leg.refused_since = now
            return by_clock if now - leg.refused_since > SWITCH_PATIENCE else None
        return (munger.last_timestamp + 1) & 0xFFFFFFFF if behind >= 0 else out

    def _target(self, leg: Leg, now: float) -> int:
        live = [layer is not None and layer.live(now) for layer in self._layers]
        return effective_target(leg.target_layer, live)

    # -- key frames -------------------------------------------------------------------------------------------------

    def _want_key_frames(self, now: float) -> None:
        """Somebody waits anew: asked for now, not at the next look around. The throttle is in asking."""
        if self._format.kind == "video":
            self._key_frame_due = now

    def _ask_for_key_frames(self, now: float) -> None:
        """PLI for each layer that some leg waits for; again as long as one does."""
        wanted: set[int] = set()
        for leg in self.legs:
            if not leg.open:
                continue
            target = self._target(leg, now)
            deeper = leg.svc is not None and leg.svc.wants_key_frame
            waits = target >= 0 and (target != leg.current_layer or leg.need_switch or deeper)
            if waits and (now >= self._pli_allowed(target) or not self._catch_up(leg, target, now)):
                wanted.add(target)
        waiting = bool(wanted)
        for layer in wanted:
            self.request_key_frame(layer, now)
        # Layers that fall silent or come back change what is best: look again once in a while.
        interval = KEY_FRAME_RETRY if waiting else SEEDING_INTERVAL
        self._key_frame_due = now + interval if self.legs else None

    def _catch_up(self, leg: Leg, layer: int, now: float) -> bool:
        """A leg that has not begun is served from the last key frame on. False: it has to wait for the next one."""
        receiver = self._layers[layer]
        if receiver is None or leg.munger.started or self._layered or self.muted:
            return False
        frames: list[Frame] = []
        for extended, packet in self._recent.since(layer, receiver, now):
            codec = self._codecs.get(packet.payload_type)
            if codec is None or not packet.payload:
                continue
            descriptor = vp8.parse_descriptor(packet.payload) if codec.mime == "video/vp8" else None
            frames.append(Frame(packet, extended, packet.payload, not frames, descriptor))
        if frames:
            self._forward(leg, layer, frames, now)
        return leg.munger.started

    def request_key_frame(self, layer: int, now: float) -> None:
        """One PLI, throttled per layer: too early it is kept until the throttle allows it."""
        receiver = self._layers[layer]
        if receiver is None or self.muted:
            return
        if now < self._pli_allowed(layer):
            self._pli_pending.add(layer)
            return
        self._pli_pending.discard(layer)
        self._last_pli[layer] = now
        self.plis_sent += 1
        self._to_publisher([Pli(receiver.ssrc, receiver.ssrc)])

    def _pli_allowed(self, layer: int) -> float:
        return self._last_pli[layer] + self._format.throttle[layer]

    # -- feedback of subscribers ------------------------------------------------------------------------------------

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
            self.counters.count("leg.no_probe")
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
            receiver = self._layers[entry[2]] if entry is not None and entry[0] == sequence else None
            if entry is not None and receiver is not None and receiver.packet(entry[1]) is not None:
                entries.append(entry)
        return entries

    def _pad(self, leg: Leg, slot: int, now: float) -> memoryview | None:
        """Padding alone, on the stream of the retransmissions, where it leaves no hole in the media's numbers."""
        srtp, view, start = leg.egress.srtp, self._view, slot * SLOT_SIZE
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
        return view[start : start + srtp.protect_rtp_into(self._buffer, start, len(packet))]

    def _resend(
        self,
        leg: Leg,
        entry: Sent,
        slot: int,
        now: float,
    ) -> memoryview | None:
        sequence, extended, layer, ids, _, _, timestamp = entry
        receiver = self._layers[layer]
        packet = receiver.packet(extended) if receiver is not None else None
        payload_type = leg.payload_types.get(packet.payload_type) if packet is not None else None
        if packet is None or payload_type is None:
            leg.unanswered_nacks += 1
            return None
        vp8_ids = ids is not None and not isinstance(ids, Rewrite)
        descriptor = vp8.parse_descriptor(packet.payload) if vp8_ids else None
        stamp = abs_send_time(now) if leg.abs_send_time_id else 0
        rtx_type = leg.rtx_payload_types.get(payload_type)
        if rtx_type is None or not leg.rtx_ssrc:
            return self._emit(leg, packet, packet.payload, payload_type, sequence, timestamp, leg.ssrc, slot, stamp,
                              descriptor, ids)  # fmt: skip
        leg.rtx_sequence = (leg.rtx_sequence + 1) & 0xFFFF
        return self._emit(leg, packet, packet.payload, rtx_type, leg.rtx_sequence, timestamp, leg.rtx_ssrc, slot, stamp,
                          descriptor, ids, original=sequence)  # fmt: skip

    def on_key_frame_request(self, leg: Leg, now: float) -> None:
        if leg.current_layer >= 0:
            self.request_key_frame(leg.current_layer, now)
        else:
            self._want_key_frames(now)

    def on_report_block(self, leg: Leg, block: ReportBlock, now: float) -> None:
        """Round trip time from what the subscriber says of our last sender report (RFC 3550 6.4.1)."""
        if block.lsr and block.lsr == (leg.report_ntp >> 16) & 0xFFFFFFFF:
            rtt = now - leg.report_sent_at - block.dlsr / 65536
            if 0 <= rtt < 10:
                leg.rtt += (rtt - leg.rtt) / 4
        if leg.playout is not None:
            jitter = None if self._format.screen else block.jitter * 1000 // self._clock_rate
            leg.playout.reported(block.highest_sequence, jitter, leg.nacks, leg.last_sequence, now)
            leg.playout_delay = leg.playout.element

    # -- reports ----------------------------------------------------------------------------------------------------

    def on_sender_report(self, layer: int, report: SenderReport, now: float) -> None:
        receiver = self._layers[layer]
        if receiver is None:
            self.counters.count("rtcp.sr_before_media")
            return
        if receiver.on_report(report, now):
            self._report_to_legs(now)
        else:
            self.counters.count("rtcp.sr_stale")

    def _report_to_legs(self, now: float) -> None:
        """Sender reports in the publisher's clock, so that what it sent together plays together (livekit-media 4.6)."""
        for leg in self.legs:
            if now < leg.reports_due or not leg.open or leg.current_layer < 0 or not leg.munger.started:
                continue
            receiver = self._layers[leg.current_layer]
            if receiver is None or receiver.report is None:
                continue
            elapsed = now - receiver.report_arrival
            ntp = (receiver.report.ntp + int(elapsed * _SHIFT32)) & 0xFFFFFFFFFFFFFFFF
            rtp = leg.munger.timestamp((receiver.report.rtp + int(elapsed * self._clock_rate)) & 0xFFFFFFFF)
            report = SenderReport(leg.ssrc, ntp, rtp, leg.packets, leg.octets)
            sdes = Sdes(((leg.ssrc, ((CNAME, leg.cname.encode()[:255]),)),))
            leg.egress.send_rtcp(build_rtcp([report, sdes]))
            leg.report_ntp, leg.report_sent_at = ntp, now
            leg.reports_due = now + SENDER_REPORT_INTERVAL

    def _receiver_reports(self, now: float) -> None:
        reports: list[RtcpPacket] = []
        for receiver in self._layers:
            if receiver is not None and receiver.live(now):
                block = receiver.report_block(now)
                if block is not None:
                    reports.append(ReceiverReport(receiver.ssrc, (block,)))
        self._to_publisher(reports)

    def _send_nacks(self, now: float) -> None:
        for receiver in self._layers:
            if receiver is not None:
                due = receiver.nack.due(now)
                if due:
                    sequences = tuple(sequence & 0xFFFF for sequence in due)
                    self.nacks_sent += len(sequences)
                    self._to_publisher([Nack(receiver.ssrc, receiver.ssrc, sequences)])

    def _to_publisher(self, packets: Sequence[RtcpPacket]) -> None:
        if packets and self.publisher is not None and self.publisher.ready:
            self.publisher.send_rtcp(build_rtcp(packets))

    # -- time -------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        deadlines = [self._report_due, self._key_frame_due]
        deadlines += [layer.nack.next_timeout() for layer in self._layers if layer is not None]
        deadlines += [self._pli_allowed(layer) for layer in self._pli_pending]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        self._send_nacks(now)
        if self._key_frame_due is not None and now >= self._key_frame_due:
            self._ask_for_key_frames(now)
        for layer in list(self._pli_pending):
            if now >= self._pli_allowed(layer):
                self._pli_pending.discard(layer)
                self.request_key_frame(layer, now)
        if self._report_due is not None and now >= self._report_due:
            self._receiver_reports(now)
            self._report_to_legs(now)
            self._measure(now)
            # Also while nothing comes: what comes then may not be shown to this object.
            self._report_due = now + REPORT_INTERVAL

    # -- reading ----------------------------------------------------------------------------------------------------

    def wanted_quality(self) -> int:
        """The highest quality that an open leg wants; -1: none (livekit-media 3.10)."""
        qualities = sorted({layer.quality for layer in self._format.layers if layer.quality != models.VideoQuality.OFF})
        wanted = [leg.wanted_layer for leg in self.legs if not (leg.disabled or leg.revoked)]
        if not wanted:
            return -1
        top = max(wanted)
        return qualities[min(top, len(qualities) - 1)] if qualities else top

    def uplink_window(self, now: float) -> tuple[int, int]:
        """(packets expected, packets lost) of all layers since the last call."""
        windows = [layer.window() for layer in self._layers if layer is not None and layer.live(now)]
        return sum(expected for expected, _ in windows), sum(lost for _, lost in windows)

    @property
    def receivers(self) -> list[LayerReceiver]:
        """Of the layers that have been sent."""
        return [layer for layer in self._layers if layer is not None]

    @property
    def clock_rate(self) -> int:
        return self._clock_rate

    def leg_codecs(self) -> Mapping[int, Codec]:
        """The publisher's codecs by payload type."""
        return self._codecs


def _note_layers(receiver: LayerReceiver, packet: RtpPacket, layers: Layers | None) -> None:
    """For the rates of the layers inside a stream, and its frames."""
    if layers is None:
        receiver.begun[0] += packet.marker  # One marker per frame: RFC 6184, RFC 7798; AV1 without layers.
    else:
        spatial, temporal, begins = place_of(layers)
        receiver.spread[spatial * TEMPORALS + temporal] += len(packet.data)
        receiver.begun[temporal] += begins


def format_of(
    info: models.TrackInfo,
    media: ReceiveMedia,
    *,
    history: int,
    throttle: tuple[float, float, float],
    layers: Sequence[models.VideoLayer] = (),
) -> TrackFormat:
    """From what AddTrack announced and the offer negotiated; `layers` of a codec that has its own."""
    return TrackFormat(
        kind=media.kind,
        codecs=tuple(media.codecs),
        layers=tuple(layers or info.layers),
        simulcast=bool(media.rids),
        encrypted=info.encryption != models.Encryption.Type.NONE,
        history=history,
        throttle=throttle,
        dependency_id=media.extensions.get(DEPENDENCY_DESCRIPTOR, 0),
        level_id=media.extensions.get(AUDIO_LEVEL, 0) if media.kind == "audio" else 0,
        screen=info.source == models.TrackSource.SCREEN_SHARE,
    )


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


def _signed(value: int) -> int:
    """A 32-bit difference."""
    value &= 0xFFFFFFFF
    return value - _SHIFT32 if value & 0x80000000 else value


def _behind(value: int, reference: int) -> int:
    """How far a timestamp is behind another, wrapping; negative: ahead."""
    return _signed(reference - value)
