"""One published track: its layers in, its legs out. The forwarding plane of the server.

Per burst: every packet is looked at once (`Frame`), then each leg writes the whole burst: select, renumber, copy into a
slot, protect in place, one `send_run`. No object is made per packet and leg but a memoryview. Source of the rules:
livekit-media sections 3.4 to 3.6 and 4.1 to 4.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from weakref import proxy

from livekit.protocol import models

from lkactor.sfu.catchup import RecentKeyFrames
from lkactor.sfu.fanout import FanoutMaker, PythonFanout
from lkactor.sfu.format import TrackFormat
from lkactor.sfu.frame import Frame
from lkactor.sfu.keyframes import KeyFrameRequests
from lkactor.sfu.layers import layer_for_dimensions, layer_for_quality
from lkactor.sfu.leg import MAX_TEMPORAL, Egress, Leg
from lkactor.sfu.rates import Offer, RateMeter
from lkactor.sfu.reading import FrameReader
from lkactor.sfu.receiver import LayerReceiver
from lkactor.sfu.reports import PAUSE, due_nacks, receiver_reports, report_to_legs
from lkactor.sfu.resending import Resender
from lkactor.sfu.source import Source
from lkactor.sfu.svc import Rewrite, select
from lkactor.sfu.switching import Switcher
from lkactor.sfu.thinning import Vp8Thinner
from lkactor.sfu.writing import SLOTS, PacketWriter
from lkactor.wire.extensions import abs_send_time
from lkactor.wire.rtcp import ReportBlock, RtcpPacket, SenderReport, build_rtcp
from lkactor.wire.rtp import RtpPacket
from lkactor.wire.sequence import seq_diff

REPORT_INTERVAL = 1.0


class TrackForwarder:
    """Verbs: `receive` per burst and layer, `on_*` for feedback, `next_timeout`, `handle_timeout`.

    Feedback for the publisher goes to `publisher`, whose egress is bound by the caller.
    """

    def __init__(self, format: TrackFormat, fanouts: FanoutMaker = PythonFanout.of) -> None:
        self._source = source = Source(format)
        self._layers, self.counters = source.layers, source.counters
        self.legs: list[Leg] = []
        self._switcher = Switcher(source)
        self._writer = PacketWriter(source)
        self._resender = Resender(source, self._writer)
        me = proxy(self)  # What is ours does not keep us: nobody has to look for a track that is gone.
        self._key_frames = KeyFrameRequests(
            source,
            self._switcher,
            self.legs,
            lambda legs, layer, most, now: int(me._catch_up(legs, layer, most, now)),
            lambda packets: me._to_publisher(packets),
        )
        self._recent = RecentKeyFrames()
        self._reader = FrameReader(source)
        self._meter = RateMeter(screen=format.screen)
        self._fanouts = fanouts
        self._fanout = fanouts(format.kind, format.red_types)
        self._publisher: Egress | None = None
        self.nacks_sent = 0
        self._report_due: float | None = None
        self._legs_due: float | None = None
        """Reports to legs."""

    def set_format(self, format: TrackFormat) -> None:
        """The media of a codec that was only announced before is there."""
        self._source.adopt(format)
        self._reader.reset()
        self._recent = RecentKeyFrames()
        self._meter = RateMeter(screen=format.screen)
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
            self._fanout.feed(receiver, self._publisher, self._source.format)

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
        self._key_frames.want(now)

    def remove_leg(self, leg: Leg) -> None:
        if leg in self.legs:
            self.legs.remove(leg)
            self._fanout.set_legs(self.legs)

    def set_wanted(self, leg: Leg, quality: int, width: int, height: int, now: float, fps: int = 0) -> None:
        """What the subscriber asked for: a size wins over a quality (livekit-media 4.14)."""
        layers = self._source.format.layers
        if width and height and any(layer.width and layer.height for layer in layers):
            leg.wanted_layer = layer_for_dimensions(width, height, layers)
        else:
            leg.wanted_layer = layer_for_quality(quality, layers)
        leg.wanted_fps = fps
        leg.wanted_temporal = leg.offer.temporal_for(fps, leg.wanted_layer, MAX_TEMPORAL)
        self._retarget(leg)
        self._key_frames.want(now)

    def set_limit(self, leg: Leg, layer: int, temporal: int, halted: bool, now: float) -> None:
        """What the subscriber's downlink has room for."""
        leg.limit_layer, leg.limit_temporal, leg.halted = max(layer, 0), max(temporal, 0), halted
        self._retarget(leg)
        self._set_closed(leg, now)
        self._key_frames.want(now)

    def _retarget(self, leg: Leg) -> None:
        before = leg.target_layer
        leg.target_layer = min(leg.wanted_layer, leg.limit_layer)
        leg.target_temporal = min(leg.wanted_temporal, leg.limit_temporal)
        if leg.target_temporal < MAX_TEMPORAL and leg.thinner is None and self._source.format.mime == "video/vp8":
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
                self._key_frames.want(now)

    def set_muted(self, muted: bool, now: float) -> None:
        """The publisher says so; its packets, if any come, are not for the subscribers."""
        if self.muted and not muted:
            for leg in self.legs:
                leg.need_switch = leg.munger.started
            for layer in self._layers:
                if layer is not None:
                    layer.report = None  # From before the pause: its clock may have jumped.
            self._key_frames.want(now)
        self._source.muted = muted
        self._fanout.set_muted(muted)
        for leg in self.legs:
            self._offer(leg)

    def _offer(self, leg: Leg) -> None:
        """Tell a leg what there is to choose from."""
        format = self._source.format
        if format.kind == "video":
            several = len(format.layers) > 1
            leg.offer = Offer(self._meter.rates, self._meter.frames, self.muted, format.screen, several)

    def _measure(self, now: float) -> None:
        if self._source.format.kind != "video":
            return
        self._meter.measure(self._layers, now, layered=bool(self._source.format.layered))
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
        """Packets that the forwarding plane has received, in order, to the legs that it has left then. Once such a leg
        has begun the plane serves it with what still waits: written by Python, a stream for a hundred legs takes longer
        than it lasts, and who was late once would stay so."""
        receiver = self._layers[layer]
        for packet in packets:
            if receiver is None or packet.ssrc != receiver.ssrc or self.muted:
                continue
            extended = receiver.highest + seq_diff(packet.sequence, receiver.highest & 0xFFFF)
            frame = self._reader.again(packet, extended, keyframe=not self._source.video)
            if frame is None:
                continue
            for leg in self._fanout.forward(layer, [frame], now):
                if leg.open and leg.munger.newest < extended:
                    self._forward(leg, layer, [frame], now)

    def _receive(self, layer: int, packets: Iterable[RtpPacket], now: float) -> None:
        receiver = self._receiver(layer, now)
        frames: list[Frame] = []
        for packet in packets:
            restarts = receiver.restarts
            extended = receiver.receive(packet)
            if extended < 0:
                continue
            if receiver.restarts != restarts:
                frames.clear()
                self._source_restarted(layer, now)
            read = self._reader.read(receiver, packet, extended, self.legs)
            if self._source.video and any(frame.keyframe for frame in read):
                self._key_frames.came(layer)
                self._recent.note(layer, extended, packet)
            frames += read
        if frames and not self.muted:
            for leg in self._fanout.forward(layer, frames, now):
                if leg.open:
                    self._forward(leg, layer, frames, now)
        if receiver.nack.next_timeout() is not None:
            self._send_nacks(now)

    def _source_restarted(self, layer: int, now: float) -> None:
        """Another SSRC, or a jump: what the legs count by is of the past."""
        self._reader.reset()
        self._recent.forget(layer)
        for leg in self.legs:
            if leg.current_layer == layer:
                leg.need_switch = True
        self._key_frames.want(now)

    def _receiver(self, layer: int, now: float) -> LayerReceiver:
        receiver = self._layers[layer]
        if receiver is None:
            receiver = self._layers[layer] = self._fanout.receiver(
                layer, self._source.clock_rate, self._source.format.history
            )
            self._feed()
            self._report_due = self._report_due or now + REPORT_INTERVAL
            self._key_frames.want(now)
        return receiver

    def _catch_up(self, legs: Sequence[Leg], layer: int, most: int, now: float) -> int:
        """Legs that have not begun are served from the last key frame on, if that is not long ago, until `most` is
        reached. What it has cost, in packets that Python writes."""
        new = [leg for leg in legs if not leg.munger.started]
        frames = self._past(layer, now) if new else []
        if not frames:
            return 0
        begun: list[Leg] = []
        cost, each = 0, self._fanout.past_cost(len(frames))
        for leg in new:
            if cost >= most:
                break
            self._forward(leg, layer, frames[:1], now)
            if leg.munger.started:
                begun.append(leg)
                cost += each
        for leg in self._fanout.serve_past(begun, layer, frames[1:], now):
            self._forward(leg, layer, frames[1:], now)
        return cost

    def _past(self, layer: int, now: float) -> list[Frame]:
        """From the last key frame on; nothing of a stream whose layers are chosen per leg."""
        receiver = self._layers[layer]
        if receiver is None or self._source.format.layered or self.muted:
            return []
        past = enumerate(self._recent.since(layer, receiver, now))
        read = [self._reader.again(packet, number, keyframe=not index) for index, (number, packet) in past]
        return [frame for frame in read if frame is not None]

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
                if switching and not (frame.keyframe and self._switcher.switch(leg, layer, frame, now)):
                    continue
            elif not leg.munger.started or leg.need_switch:
                self._switcher.start_audio(leg, frame, now)
            if frame.recovered and not self._writer.extracts_red(leg, frame.packet):
                continue
            if not frame.payload or self._writer.unreadable(leg, frame):
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
            segment = self._writer.write(leg, layer, frame, len(segments), stamp, now, rewrite)
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

    # -- feedback of subscribers ------------------------------------------------------------------------------------

    def on_nack(self, leg: Leg, sequences: Sequence[int], now: float) -> None:
        """Send again what is still there (livekit-media 4.7)."""
        self._resender.on_nack(leg, sequences, now)

    def on_probe(self, leg: Leg, octets: int, now: float) -> None:
        """Send about so many octets more (livekit-media 4.9)."""
        self._resender.on_probe(leg, octets, now)

    def on_key_frame_request(self, leg: Leg, now: float) -> None:
        if leg.current_layer >= 0:
            self._key_frames.request(leg.current_layer, now)
        else:
            self._key_frames.want(now)

    def on_report_block(self, leg: Leg, block: ReportBlock, now: float) -> None:
        if leg.playout is not None:
            screen, rate = self._source.format.screen, self._source.clock_rate
            jitter = None if screen else block.jitter * 1000 // rate
            leg.playout.reported(block.highest_sequence, jitter, leg.nacks, leg.last_sequence, now)
            leg.playout_delay = leg.playout.element

    # -- reports ----------------------------------------------------------------------------------------------------

    def on_sender_report(self, layer: int, report: SenderReport, arrival: float, now: float) -> None:
        """`arrival`: when it came, which may be a moment ago."""
        receiver = self._layers[layer]
        if receiver is None:
            self.counters.count("rtcp.sr_before_media")
            return
        if receiver.on_report(report, arrival):
            self._report_to_legs(now)
        else:
            self.counters.count("rtcp.sr_stale")

    def _report_to_legs(self, now: float) -> None:
        left = report_to_legs(self._source, self.legs, now)
        self._legs_due = now + PAUSE if left else None

    def _send_nacks(self, now: float) -> None:
        nacks = due_nacks(self._source, now)
        self.nacks_sent += sum(len(nack.sequences) for nack in nacks)
        for nack in nacks:
            self._to_publisher([nack])

    def _to_publisher(self, packets: Sequence[RtcpPacket]) -> None:
        if packets and self.publisher is not None and self.publisher.ready:
            self.publisher.send_rtcp(build_rtcp(packets))

    # -- time -------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        deadlines = [self._report_due, self._legs_due, self._key_frames.next_timeout()]
        deadlines += [receiver.nack.next_timeout() for receiver in self.receivers]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        self._send_nacks(now)
        self._key_frames.handle_timeout(now)
        if self._report_due is not None and now >= self._report_due:
            self._to_publisher(receiver_reports(self._source, now))
            self._legs_due = now
            self._measure(now)
            self._key_frames.look(now)
            # Also while nothing comes: what comes then may not be shown to this object.
            self._report_due = now + REPORT_INTERVAL
        if self._legs_due is not None and now >= self._legs_due:
            self._report_to_legs(now)

    # -- reading ----------------------------------------------------------------------------------------------------

    def wanted_quality(self) -> int:
        """The highest quality that an open leg wants; -1: none (livekit-media 3.10)."""
        qualities = sorted(
            {layer.quality for layer in self._source.format.layers if layer.quality != models.VideoQuality.OFF}
        )
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
        return self._source.receivers

    @property
    def muted(self) -> bool:
        """By the publisher."""
        return self._source.muted

    @property
    def plis_sent(self) -> int:
        return self._key_frames.sent

    @property
    def clock_rate(self) -> int:
        return self._source.clock_rate
