"""The subscriber connection of a session: the server's offers, our answers, and the tracks that come."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence

import trio
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from lkactor.client.events import DataReceived, SessionEvent, TrackEnded, TrackSubscribed
from lkactor.client.publication import CODECS
from lkactor.client.tracks import RemoteTrack
from lkactor.client.transport import Transport
from lkactor.peer import PeerEvent
from lkactor.peer.negotiation import AnswerNegotiation, AnswerReady
from lkactor.sctp import MessageReceived
from lkactor.sdp import Answerer, Codec, ReceiveMedia
from lkactor.sfu.twcc import TwccRecorder
from lkactor.wire.extensions import MID, TRANSPORT_CC, text
from lkactor.wire.rtcp import RtcpPacket, SenderReport
from lkactor.wire.rtp import RtpPacket, unwrap_rtx

MAX_UNBOUND = 64


class Subscriber:
    """`participants` by SID is the session's, and read only."""

    def __init__(
        self,
        transport: Transport,
        rng: random.Random,
        post: Callable[[rtc.SessionDescription], None],
        on_event: Callable[[SessionEvent], None],
        participants: Mapping[str, models.ParticipantInfo],
    ) -> None:
        self.transport = transport
        self.tracks: dict[str, RemoteTrack] = {}
        self.last_answer = rtc.SessionDescription()
        self._post, self._on_event, self._participants = post, on_event, participants
        self._answers = AnswerNegotiation(Answerer(codecs=CODECS), transport.peer)
        self._media: dict[str, ReceiveMedia] = {}
        self._by_ssrc: dict[int, tuple[RemoteTrack, ReceiveMedia]] = {}
        self._ssrc = rng.randrange(1, 1 << 32)
        self._twcc = TwccRecorder()
        self._twcc_id = 0
        transport.negotiation = self._answers
        transport.on_rtp, transport.on_rtcp = self._on_rtp, self._on_rtcp
        transport.on_turn = self._on_turn

    def on_offer(self, offer: rtc.SessionDescription) -> None:
        """Raises ProtocolViolation if it cannot be answered."""
        self._answers.receive_offer(offer.sdp, offer.id, {}, trio.current_time())
        while (event := self._answers.next_event()) is not None:
            if isinstance(event, AnswerReady):
                self.last_answer = rtc.SessionDescription(type="answer", sdp=event.sdp, id=event.offer_id)
                self._post(self.last_answer)
                self._bind(event.media)
        self.transport.wake()

    def on_peer_event(self, event: PeerEvent) -> None:
        if isinstance(event, MessageReceived):
            packet = models.DataPacket()
            with contextlib.suppress(DecodeError):
                packet.ParseFromString(event.data)
                self._on_event(DataReceived(packet))

    def finish(self) -> None:
        """The last frames of every track, which has ended."""
        for track in self.tracks.values():
            track.finish()
            self._on_event(TrackEnded(track))
        self.tracks.clear()
        self._by_ssrc.clear()

    # -- which section carries which track --------------------------------------------------------------------------

    def _bind(self, media: Sequence[ReceiveMedia]) -> None:
        """After each offer."""
        self._media = {section.mid: section for section in media}
        found: dict[str, RemoteTrack] = {}
        self._by_ssrc.clear()
        for section in media:
            self._twcc_id = section.extensions.get(TRANSPORT_CC, self._twcc_id)
            sid = next((name for name in (section.cid, section.stream_id.partition("|")[2]) if name[:2] == "TR"), "")
            if not sid:
                continue
            known = self.tracks.get(sid)
            track = known if known is not None and known.mid == section.mid else self._track(sid, section)
            found[sid] = track
            for ssrc in section.ssrcs:
                self._by_ssrc[ssrc] = (track, section)
        for sid, track in list(self.tracks.items()):
            if found.get(sid) is not track:
                track.finish()
                del self.tracks[sid]
                self._on_event(TrackEnded(track))
        for sid, track in found.items():
            if sid not in self.tracks:
                self.tracks[sid] = track
                self._on_event(TrackSubscribed(track))

    def _track(self, sid: str, section: ReceiveMedia) -> RemoteTrack:
        for participant in self._participants.values():
            for info in participant.tracks:
                if info.sid == sid:
                    return RemoteTrack(info, participant, section.mid)
        kind = models.TrackType.AUDIO if section.kind == "audio" else models.TrackType.VIDEO
        owner = models.ParticipantInfo(sid=section.stream_id.partition("|")[0])
        return RemoteTrack(models.TrackInfo(sid=sid, type=kind), owner, section.mid)

    def _bind_late(self, packet: RtpPacket) -> tuple[RemoteTrack, ReceiveMedia] | None:
        """A source the offer does not name says its section itself (RFC 8843 section 9.2)."""
        if len(self._by_ssrc) > MAX_UNBOUND + 4 * len(self._media):
            return None
        for section in self._media.values():
            value = packet.extension(section.extensions.get(MID, 0)) if MID in section.extensions else None
            if value is not None and text(value) == section.mid:
                for track in self.tracks.values():
                    if track.mid == section.mid:
                        self._by_ssrc[packet.ssrc] = (track, section)
                        return track, section
        return None

    # -- media ------------------------------------------------------------------------------------------------------

    def _on_rtp(self, packets: list[RtpPacket]) -> None:
        self._twcc.note_packets(packets, self._twcc_id)
        for packet in packets:
            bound = self._by_ssrc.get(packet.ssrc) or self._bind_late(packet)
            if bound is None:
                continue
            track, section = bound
            original = section.rtx_of.get(packet.ssrc)
            codec = _codec_of(section, packet.payload_type, original is not None)
            if codec is None:
                continue
            if original is not None:
                inner = unwrap_rtx(packet, payload_type=codec.payload_type, ssrc=original)
                if inner is None:
                    continue
                packet = inner
            track.receive(packet, codec.mime, codec.clock_rate)

    def _on_rtcp(self, packets: list[RtcpPacket]) -> None:
        now = trio.current_time()
        for packet in packets:
            if isinstance(packet, SenderReport) and packet.ssrc in self._by_ssrc:
                receiver = self._by_ssrc[packet.ssrc][0].receiver
                if receiver is not None:
                    receiver.on_report(packet, now)

    def _on_turn(self, now: float) -> None:
        self._answers.next_event()
        for track in self.tracks.values():
            self.transport.send_rtcp(track.feedback(now, self._ssrc))
        self.transport.send_rtcp(list(self._twcc.feedback(now)))


def _codec_of(section: ReceiveMedia, payload_type: int, rtx: bool) -> Codec | None:
    for codec in section.codecs:
        if payload_type == (codec.rtx_payload_type if rtx else codec.payload_type):
            return codec
    return None
