"""The rows of one subscriber: wanted, negotiated, granted, revoked."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from typing import Any

from actors.egress import TransportEgress
from actors.kernel import ActorDead, ActorRef, MailboxFull
from actors.messages.participant import DownlinkQuality, ParticipantMessage, TrackReceived, UnsupportedCodec
from actors.messages.track import AddLeg, LegKeyFrameRequest, LegNack, LegProbe, LegReport, LimitLeg, RemoveLeg
from actors.messages.transport import OutgoingTrack
from lkactor.config import PlayoutDelayConfig
from lkactor.counters import Counters
from lkactor.plane import Plane
from lkactor.sdp import SendMedia, SendTrack, pick_codec
from lkactor.sfu import Leg
from lkactor.sfu.downlink import DownlinkScores
from lkactor.sfu.playout import PlayoutDelay
from lkactor.sfu.quality import WINDOW
from lkactor.sfu.reports import note_round_trip
from lkactor.wire import extensions
from lkactor.wire.rtcp import Nack, ReportBlock

FEEDBACK_LINK_CAPACITY = 256


class LegTable:
    """Legs by track sid and by SSRC. A leg is granted once it is negotiated and its peer can be written to."""

    def __init__(
        self,
        *,
        subscriber: str,
        egress: TransportEgress,
        owner: ActorRef[ParticipantMessage],
        rng: random.Random,
        plane: Plane,
        playout_delay: PlayoutDelayConfig | None = None,
    ) -> None:
        self._plane = plane
        self._playout_delay = playout_delay
        """What the room asks for; None: nothing."""
        self._subscriber = subscriber
        self._egress = egress
        self._owner = owner
        self._rng = rng
        self._wanted: dict[str, OutgoingTrack] = {}
        self._ssrcs: dict[str, tuple[int, int]] = {}
        self._legs: dict[str, Leg] = {}
        self._sections: dict[str, SendMedia] = {}
        """What the peer agreed to receive, by track."""
        self._undecodable: set[str] = set()
        """Tracks of which the owner has been told so."""
        self._granted: set[str] = set()
        self._by_ssrc: dict[int, Leg] = {}
        self._scores = DownlinkScores()
        self._window_ends: float | None = None
        self.counters = Counters()

    def set_wanted(self, tracks: Sequence[OutgoingTrack]) -> list[SendTrack] | None:
        """The new set as the negotiation takes it; None if nothing has changed."""
        wanted = {track.sid: track for track in tracks}
        changed = wanted.keys() != self._wanted.keys()
        for sid in self._wanted.keys() - wanted.keys():
            self._revoke(sid)
            self._ssrcs.pop(sid, None)
            self._sections.pop(sid, None)
            self._undecodable.discard(sid)
        before, self._wanted = self._wanted, wanted
        for sid, section in self._sections.items():
            if sid in before and (before[sid].codecs, before[sid].mimes) != (wanted[sid].codecs, wanted[sid].mimes):
                self._make_leg(wanted[sid], section)
        if not changed:
            return None
        return [self._send_track(track) for track in tracks]

    def _send_track(self, track: OutgoingTrack) -> SendTrack:
        if track.sid not in self._ssrcs:
            self._ssrcs[track.sid] = (self._new_ssrc(), self._new_ssrc() if track.kind == "video" else 0)
        ssrc, rtx_ssrc = self._ssrcs[track.sid]
        return SendTrack(
            track_id=track.sid,
            stream_id=track.stream_id,
            kind=track.kind,
            ssrc=ssrc,
            rtx_ssrc=rtx_ssrc or None,
            stereo=track.stereo,
            mimes=tuple(dict.fromkeys(mime for mime, _, _ in track.codecs)),
        )

    def _new_ssrc(self) -> int:
        return self._rng.randrange(1, 1 << 32)

    def negotiated(self, media: Sequence[SendMedia]) -> None:
        """What the peer agreed to receive."""
        for section in media:
            track = self._wanted.get(section.track_id)
            if track is not None:
                self._sections[track.sid] = section
                self._make_leg(track, section)
        self.grant()

    def _make_leg(self, track: OutgoingTrack, section: SendMedia) -> None:
        leg = self._legs.get(track.sid)
        if leg is None:
            ssrc, rtx_ssrc = self._ssrcs[track.sid]
            leg = self._plane.leg(
                track_id=track.sid,
                subscriber=self._subscriber,
                kind=track.kind,
                ssrc=ssrc,
                rtx_ssrc=rtx_ssrc,
                cname=track.stream_id,
                egress=self._egress,
            )
            if self._playout_delay is not None and track.kind == "video":
                leg.playout = PlayoutDelay(self._playout_delay.min, self._playout_delay.max)
        types: dict[int, int] = {}
        rtx: dict[int, int] = {}
        inner: dict[int, int] = {}
        for mime, fmtp, payload_type in track.codecs:
            codec = pick_codec(section, mime, fmtp)
            opus = pick_codec(section, "audio/opus", "") if mime == "audio/red" else None
            if codec is not None:
                types[payload_type] = codec.payload_type
                if opus is not None:
                    inner[payload_type] = opus.payload_type
                if codec.rtx_payload_type is not None:
                    rtx[codec.payload_type] = codec.rtx_payload_type
            elif opus is not None and not track.encrypted:
                types[payload_type] = opus.payload_type
        decodable = {mime for mime, _, payload_type in track.codecs if payload_type in types}
        leg.codecs = tuple(mime for mime in track.mimes if mime in decodable)
        leg.fixed_codec, leg.strips_trailers = track.fixed_codec, track.strips_trailers
        if not leg.codecs:
            if track.sid not in self._undecodable:
                self._undecodable.add(track.sid)
                self._tell_owner(UnsupportedCodec(track.sid))
            return
        with self._plane.lock:  # It may be in use: a new round of negotiation.
            leg.payload_types, leg.rtx_payload_types, leg.red_payload_types = types, rtx, inner
            if leg.playout is not None:
                leg.playout.negotiated(section.extensions.get(extensions.PLAYOUT_DELAY, 0), leg.last_sequence)
                leg.playout_delay = leg.playout.element
        leg.abs_send_time_id = section.extensions.get(extensions.ABS_SEND_TIME, 0) if track.kind == "video" else 0
        leg.dependency_id = section.extensions.get(extensions.DEPENDENCY_DESCRIPTOR, 0) if track.kind == "video" else 0
        self._legs[track.sid] = leg
        self._by_ssrc[leg.ssrc] = leg

    def legs(self) -> Collection[Leg]:
        """Those that media can flow on."""
        return self._by_ssrc.values()

    @property
    def last_sent_at(self) -> float:
        """When a packet last left on any of them; minus infinity: none has."""
        return max((leg.last_sent_at for leg in self._by_ssrc.values() if leg.munger.started), default=-math.inf)

    # -- quality ----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        return self._window_ends

    def handle_timeout(self, now: float) -> None:
        if self._window_ends is not None and now >= self._window_ends:
            self._window_ends = now + WINDOW if self._granted else None
            self._tell_owner(DownlinkQuality(self._scores.window(self._by_ssrc.values(), now)))

    # -- granting ---------------------------------------------------------------------------------------------------

    def grant(self) -> None:
        """Hand out every leg that can be written to and is not granted yet."""
        if not self._egress.ready:
            return
        for sid, leg in self._legs.items():
            if sid not in self._granted and self.tell_track(sid, AddLeg(leg)):
                self._granted.add(sid)
                self._tell_owner(TrackReceived(sid))

    def regrant(self, track: ActorRef[Any]) -> None:
        """A track actor was restarted and knows no legs."""
        for sid, outgoing in self._wanted.items():
            if outgoing.track == track and sid in self._granted:
                self.tell_track(sid, AddLeg(self._legs[sid]))

    def revoke_all(self) -> None:
        for sid in list(self._legs):
            self._revoke(sid)

    def _revoke(self, sid: str) -> None:
        leg = self._legs.pop(sid, None)
        if leg is None:
            return
        leg.revoked = True
        self._scores.forget(leg)
        self._by_ssrc.pop(leg.ssrc, None)
        if sid in self._granted:
            self._granted.discard(sid)
            self.tell_track(sid, RemoveLeg(leg))

    # -- feedback of the subscriber ---------------------------------------------------------------------------------

    def on_nack(self, nack: Nack, now: float) -> None:
        leg = self._by_ssrc.get(nack.media_ssrc)
        if leg is None:
            self.counters.count("rtcp.nack_unknown_ssrc")
        else:
            self.feed_back(leg, LegNack(leg, nack.sequences))

    def on_key_frame_request(self, ssrc: int, *, fir: bool = False) -> None:
        leg = self._by_ssrc.get(ssrc)
        if leg is None:
            self.counters.count("rtcp.pli_unknown_ssrc")
        else:
            leg.plis += not fir
            leg.firs += fir
            self.feed_back(leg, LegKeyFrameRequest(leg))

    def on_blocks(self, blocks: Sequence[ReportBlock], now: float) -> None:
        for block in blocks:
            leg = self._by_ssrc.get(block.ssrc)
            if leg is not None:
                if self._window_ends is None:
                    self._window_ends = now + WINDOW
                leg.report = block
                self._scores.report(leg, block, now)
                note_round_trip(leg, block.lsr, block.dlsr, now)
                if leg.playout is not None:
                    self.feed_back(leg, LegReport(leg, block))

    def feed_back(self, leg: Leg, item: LegNack | LegKeyFrameRequest | LegReport | LegProbe) -> None:
        track = self._wanted.get(leg.track_id)
        if track is not None:
            try:
                track.track.link(f"feedback-{self._subscriber}", FEEDBACK_LINK_CAPACITY).push(item)
            except ActorDead:
                self.counters.count("rtcp.track_gone")

    def tell_track(self, sid: str, message: AddLeg | RemoveLeg | LimitLeg) -> bool:
        track = self._wanted.get(sid)
        if track is None:
            return False
        try:
            track.track.tell(message)
        except (ActorDead, MailboxFull):
            self.counters.count("leg.track_unreachable")
            return False
        return True

    def _tell_owner(self, message: TrackReceived | UnsupportedCodec | DownlinkQuality) -> None:
        try:
            self._owner.tell(message)
        except (ActorDead, MailboxFull):
            self.counters.count("leg.owner_unreachable")
