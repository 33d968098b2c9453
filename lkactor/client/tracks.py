"""Tracks of a session: one that we send, one that we receive. Nothing here waits."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from livekit.protocol import models

from lkactor.client.transport import Transport
from lkactor.errors import ProtocolViolation
from lkactor.media.depacketize import Assembler
from lkactor.media.frame import Frame
from lkactor.media.packetize import Packetizer
from lkactor.sfu.receiver import LayerReceiver
from lkactor.wire.rtcp import Nack, Pli, ReceiverReport, RtcpPacket, Sdes, SenderReport
from lkactor.wire.rtp import RtpPacket, build_rtp

NTP_OFFSET = 2208988800
HISTORY = 1024
"""Packets kept for retransmission, about 8 s of 1 Mbit/s."""
REPORT_INTERVAL = 1.0
PLI_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class TrackSpec:
    """What to publish."""

    mime: str
    name: str
    source: models.TrackSource
    width: int = 0
    height: int = 0
    clock_rate: int = 90000
    channels: int = 1

    @property
    def kind(self) -> str:
        return self.mime.partition("/")[0]


class LocalTrack:
    """A published track: frames in, RTP out."""

    def __init__(self, spec: TrackSpec, cid: str, rng: random.Random) -> None:
        self.spec, self.cid = spec, cid
        self.info: models.TrackInfo | None = None
        self.ssrc = rng.randrange(1, 1 << 32)
        self._transport: Transport | None = None
        self._packetizer = Packetizer(spec.mime, rng, size=(spec.width, spec.height))
        self._sequence = rng.randrange(1 << 15)
        self._base = rng.randrange(1 << 32)
        self._payload_type: int | None = None
        self._history: OrderedDict[int, bytes] = OrderedDict()
        self._last_timestamp = self._base
        self._last_at = 0.0
        self._reported = float("-inf")
        self.keyframe_requests = 0
        self.packets = self.octets = self.retransmitted = self.frames = 0

    @property
    def ready(self) -> bool:
        transport = self._transport
        return self._payload_type is not None and transport is not None and transport.connected.is_set()

    @property
    def sid(self) -> str:
        return "" if self.info is None else str(self.info.sid)

    @property
    def has_codec(self) -> bool:
        """The answer has a codec for it."""
        return self._payload_type is not None

    def attach(self, transport: Transport) -> None:
        """A connection, maybe a new one: what was agreed and sent on the old one is history."""
        self._transport, self.info, self._payload_type = transport, None, None
        self._history.clear()

    def agreed(self, payload_type: int) -> None:
        self._payload_type = payload_type

    def payloads(self, frame: Frame) -> list[bytes]:
        """Raises ProtocolViolation for a frame that is none."""
        return self._packetizer.packetize(frame)

    def send_payloads(self, payloads: Sequence[bytes], at: float, *, ends: bool = True) -> None:
        """`at` in seconds from the track's beginning; `ends`: the frame is complete. Dropped before `ready`."""
        transport = self._transport
        if self._payload_type is None or transport is None or not payloads:
            return
        timestamp = (self._base + round(at * self.spec.clock_rate)) & 0xFFFFFFFF
        self._last_timestamp, self._last_at = timestamp, time.time()
        for index, payload in enumerate(payloads):
            packet = build_rtp(
                payload_type=self._payload_type,
                sequence=self._sequence,
                timestamp=timestamp,
                ssrc=self.ssrc,
                marker=ends and index == len(payloads) - 1 if self.spec.kind == "video" else self.packets == 0,
                payload=payload,
            )
            sent = transport.send_rtp(packet)
            if sent is not None:
                self._history[self._sequence] = sent
                if len(self._history) > HISTORY:
                    self._history.popitem(last=False)
                self.packets += 1
                self.octets += len(payload)
            self._sequence = (self._sequence + 1) & 0xFFFF
        self.frames += ends

    def receive_rtcp(self, packets: Sequence[RtcpPacket]) -> None:
        transport = self._transport
        for packet in packets:
            if isinstance(packet, Nack) and packet.media_ssrc == self.ssrc:
                for sequence in packet.sequences:
                    # Without RTX the same packet goes out once more (RFC 4585 section 6.2.1).
                    if transport is not None and (sent := self._history.get(sequence)) is not None:
                        transport.send_raw(sent)
                        self.retransmitted += 1
            elif isinstance(packet, Pli) and packet.media_ssrc == self.ssrc:
                self.keyframe_requests += 1

    def report(self, now: float) -> list[RtcpPacket]:
        """A sender report once a second: receivers need it to play audio and video in step."""
        if not self.packets or now - self._reported < REPORT_INTERVAL:
            return []
        self._reported = now
        wall = time.time()
        since = max(0.0, wall - self._last_at)
        stamp = (self._last_timestamp + round(since * self.spec.clock_rate)) & 0xFFFFFFFF
        ntp = int((wall + NTP_OFFSET) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
        report = SenderReport(self.ssrc, ntp, stamp, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)
        return [report, Sdes(((self.ssrc, ((1, b"lkactor"),)),))]


class RemoteTrack:
    """A subscribed track: RTP in, frames out, feedback to the server. `payload_types` maps to the mime."""

    def __init__(self, info: models.TrackInfo, participant: models.ParticipantInfo, mid: str) -> None:
        self.info, self.participant, self.mid = info, participant, mid
        self.mime = ""
        self.on_frame: Callable[[bytes, int, bool], None] | None = None
        self.on_packet: Callable[[RtpPacket], None] | None = None
        self.receiver: LayerReceiver | None = None
        self.media_bytes = 0
        self.lost = self.expected = 0
        self._assembler: Assembler | None = None
        self._reported = self._asked = float("-inf")

    def receive(self, packet: RtpPacket, mime: str, clock_rate: int) -> None:
        receiver = self.receiver
        if receiver is None:
            receiver = self.receiver = LayerReceiver(clock_rate, 1024)
        if receiver.receive(packet) < 0:
            return
        self.media_bytes += packet.payload_end - packet.payload_offset
        if self.on_packet is not None:
            self.on_packet(packet)
        if self.on_frame is None:
            self.mime = self.mime or mime
            return
        if mime != self.mime or self._assembler is None:
            self.mime = mime
            try:
                self._assembler = Assembler(mime, clock_rate)
            except ProtocolViolation:
                return
        self._assembler.receive(packet, packet.arrival)
        self._deliver()

    def finish(self) -> None:
        """The last frames."""
        if self._assembler is not None:
            self._assembler.flush()
            self._deliver()

    def feedback(self, now: float, ssrc: int) -> list[RtcpPacket]:
        """What is due: NACK, PLI, and a receiver report each second."""
        receiver = self.receiver
        if receiver is None:
            return []
        out: list[RtcpPacket] = []
        missing = [number & 0xFFFF for number in receiver.nack.due(now)]
        if missing:
            out.append(Nack(ssrc, receiver.ssrc, tuple(missing)))
        asks = self._assembler is not None and self._assembler.wants_keyframe
        if asks and now - self._asked >= PLI_INTERVAL and now - receiver.last_arrival < PLI_INTERVAL:
            self._asked = now
            out.append(Pli(ssrc, receiver.ssrc))
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            expected, lost = receiver.window()
            self.expected, self.lost = self.expected + expected, self.lost + max(0, lost)
            block = receiver.report_block(now)
            if block is not None:
                out.insert(0, ReceiverReport(ssrc, (block,)))
        return out

    def _deliver(self) -> None:
        if self._assembler is not None and self.on_frame is not None:
            for frame, timestamp, keyframe in self._assembler.take():
                self.on_frame(frame, timestamp, keyframe)
