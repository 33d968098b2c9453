"""One peer connection of one participant: owns its ICE, DTLS, SRTP and SCTP state and the writes to its path.

Media comes in on a coalescing link, a burst at a time, and leaves on the links of the tracks it belongs to. What the
peer is to receive is a row (`Leg`) that this actor creates, grants to the track's actor and revokes. It dies with its
keys: a transport is never restarted in place, the client's reconnect is its restart.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import assert_never

from trio import current_time, sleep_forever

from actors.allocating import AllocationDesk
from actors.egress import TransportEgress
from actors.kernel import Actor, ActorRef, Exit, MailboxFull, MediaLink, Restarted, Terminated, Timer
from actors.legs import LegTable
from actors.messages import participant as to_owner
from actors.messages.track import MediaBurst, PlaneNews, PublisherReport
from actors.messages.transport import (
    BindTrack,
    FlushData,
    OutgoingTrack,
    PauseData,
    RemoteAnswer,
    RemoteCandidate,
    RemoteOffer,
    RestartIce,
    SendData,
    SendDataTrack,
    SetChannelCapacity,
    SetSendTracks,
    SetTrackPriority,
    Tick,
    TransportMessage,
    UseCandidates,
)
from actors.net import OfThePlane, Path, Ports
from lkactor.config import CongestionControlConfig, PlayoutDelayConfig
from lkactor.counters import Counters
from lkactor.dtls import Certificate
from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate
from lkactor.peer import KeysReady, Moved, PathChanged, PeerConnection, PeerEvent, PeerState, PeerStateChanged
from lkactor.peer.backlog import SHORT_WINDOW, SLICE_INTERVAL, Received
from lkactor.peer.channels import DATA_TRACK, LOSSY, RELIABLE, UNLABELLED, DataChannels, as_user_packet
from lkactor.peer.either import EitherNegotiation
from lkactor.peer.negotiation import (
    AnswerNegotiation,
    AnswerOverdue,
    AnswerReady,
    MediaAgreed,
    NegotiationEvent,
    OfferNegotiation,
    OfferReady,
    SectionsWanted,
)
from lkactor.sctp import (
    ChannelClosed,
    ChannelOpened,
    MessageReceived,
    SctpClosed,
    SctpConnected,
    SctpLimits,
    SctpSendBufferFull,
)
from lkactor.sdp import Answerer, Offerer, ReceiveMedia
from lkactor.sdp.either import EitherSide
from lkactor.sfu import RtpRouter, TwccRecorder
from lkactor.signal.join import ServerOffers
from lkactor.wire.address import Address
from lkactor.wire.rtcp import Fir, Nack, Pli, ReceiverReport, Remb, RtcpPacket, SenderReport, build_rtcp

OWNER_RETRY = 0.01
"""Seconds until received data is offered again to an owner whose mailbox was full."""
IN_VAIN = 0.05
"""Seconds by which a timer may be early. One that would be more so is set anew: a turn for nothing costs more."""
FAR, TOGETHER = 1.0, 0.25
"""Seconds. Timers that are further away than the first go off at multiples of the second: those of many connections
that have nothing to do but keep alive share a turn of the event loop."""
OF_DATA = (SendData, SendDataTrack, PauseData, FlushData)
"""Messages that move the data channels and nothing else."""
INBOUND_LINK_CAPACITY = 2048
"""Datagrams that may wait for this actor: a quarter of a second of a 60 Mbit/s publisher."""


@dataclass(frozen=True, slots=True)
class TransportSpec:
    """What a transport needs to know of its process and its participant."""

    role: to_owner.Role
    single: bool
    """Single peer connection: the publisher transport carries both directions."""
    owner: ActorRef[to_owner.ParticipantMessage]
    ports: Ports
    certificate: Certificate
    candidates: tuple[Candidate, ...]
    """Ours; of the process's UDP ports they name one."""
    rng: random.Random
    lite: bool
    codecs: tuple[str, ...]
    """Enabled mimes, lower case."""
    publish_codecs: tuple[str, ...]
    """Those that the client may send."""
    use: UseCandidates
    reuse_sections: bool
    subscriber_sid: str
    egress: TransportEgress
    congestion: CongestionControlConfig
    slow_threshold: int = 0
    """Bits per second, of those who read reliable data (`lkactor.peer.backlog`)."""
    server_offers: ServerOffers = "never"
    playout_delay: PlayoutDelayConfig | None = None
    """Of video that it carries down; None: players do as they please."""

    @property
    def udp_port(self) -> int:
        return next((candidate.port for candidate in self.candidates if candidate.transport == "udp"), 0)


class TransportActor(Actor[TransportMessage]):
    """The protocol states are in `lkactor.peer`; this actor adds sockets, timers, links and the rows it grants."""

    patient = True

    def __init__(self, spec: TransportSpec) -> None:
        self._spec = spec
        offers = spec.role == "subscriber"
        self._peer = PeerConnection(
            rng=spec.rng,
            certificate=spec.certificate,
            candidates=spec.candidates,
            controlling=(offers or spec.server_offers == "first") and not spec.lite,
            lite=spec.lite,
            sctp_limits=SctpLimits(receive_window=SHORT_WINDOW) if spec.slow_threshold else None,
            lock=spec.ports.plane.lock,
            srtp=spec.ports.plane.srtp,
        )
        self._use_candidates(spec.use)
        self._negotiation: OfferNegotiation | AnswerNegotiation | EitherNegotiation
        delayed = spec.playout_delay is not None
        if offers:
            offerer = Offerer(codecs=spec.codecs, reuse_sections=spec.reuse_sections, playout_delay=delayed)
            self._negotiation = OfferNegotiation(offerer, self._peer, spec.rng)
        elif spec.server_offers != "never":
            begins = spec.server_offers == "first"
            side = EitherSide(codecs=spec.codecs, playout_delay=delayed)
            self._negotiation = EitherNegotiation(side, self._peer, begins=begins)
        else:
            answerer = Answerer(
                codecs=spec.codecs, publish_codecs=spec.publish_codecs, single=spec.single, playout_delay=delayed
            )
            self._negotiation = AnswerNegotiation(answerer, self._peer)
        self.egress = spec.egress
        self._paths: dict[Address, Path] = {}
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._router = RtpRouter()
        self._twcc = TwccRecorder()
        self._channels = DataChannels(slow_threshold=spec.slow_threshold)
        self._channels_announced = False
        self._tracks_in: dict[str, BindTrack] = {}
        self._rows = LegTable(
            subscriber=spec.subscriber_sid,
            egress=spec.egress,
            owner=spec.owner,
            rng=spec.rng,
            plane=spec.ports.plane,
            playout_delay=spec.playout_delay,
        )
        self._allocation = AllocationDesk(
            self._rows,
            spec.egress.ingress,
            partial(_tell_states, spec.owner, self._peer.counters),
            enabled=spec.congestion.enabled,
            allow_pause=spec.congestion.allow_pause,
            eager=spec.playout_delay is not None,
            now=current_time(),
        )
        self._paused = self._flush_due = False
        self._unsent_to_owner = Received(sliced=spec.slow_threshold > 0)
        self._data_track_in: list[bytes] = []
        self._ufrags: list[str] = []
        self._told = PeerState.NEW
        """The state that the owner knows."""
        self._times: dict[str, float] = {}
        """When the set-up began, and when ICE and DTLS were done."""

    # -- lifecycle --------------------------------------------------------------------------------------------------

    async def started(self) -> None:
        self._link = self.context.ref.link("datagrams", INBOUND_LINK_CAPACITY)
        self._spec.egress.ingress.on_news = lambda: self._link.push((b"", OfThePlane.NEWS, 0.0))
        self._bind_ufrag()
        self.context.start_soon(self._keep_routes)

    async def _keep_routes(self) -> None:
        """As long as this actor lives, also when it is killed, datagrams find it."""
        try:
            await sleep_forever()
        finally:
            self._leave()

    def _leave(self) -> None:
        self.egress.revoke()
        while self._ufrags:
            self._spec.ports.unbind(self._ufrags.pop())

    async def stopping(self, exit: Exit) -> None:
        now = current_time()
        self._rows.revoke_all()
        self._peer.close(now)
        self._send_datagrams(self._peer.datagrams_to_send(now))
        self._leave()

    async def receive(self, message: TransportMessage) -> object:
        now = current_time()
        try:
            self._handle(message, now)
        except ProtocolViolation as violation:
            self._peer.counters.count(violation.reason)
            self._spec.owner.tell(to_owner.NegotiationFailed(self._spec.role, str(violation)))
        if isinstance(message, OF_DATA):
            self._pump_data(now)
        else:
            self._pump(now)
        return None

    def receive_media(self, link: MediaLink) -> None:
        peer, moved = self._peer, Moved.MEDIA
        for data, address, arrival in link.drain():
            if not isinstance(address, OfThePlane):
                moved = max(moved, peer.receive_datagram(data, address, arrival))
            elif address is OfThePlane.NEWS:
                self._take_news()
            elif address is OfThePlane.RTCP:
                peer.receive_rtcp(data, arrival)
            else:
                peer.receive_rtp(data, arrival, rest=address is OfThePlane.REST)
        now = current_time()
        if moved is Moved.MEDIA:
            # By far the most bursts: nothing in them can have moved ICE, DTLS or SCTP.
            self._forward_media(now)
            self._send_datagrams(peer.answers(now))
            self._schedule_at(self._twcc.next_timeout(), now)
        elif moved is Moved.DATA:
            self._pump_data(now)
        else:
            self._pump(now)

    def _handle(self, message: TransportMessage, now: float) -> None:
        match message:
            case Tick():
                self._timer, self._timer_at = None, float("inf")
                self._peer.ice.used_at = self._rows.last_sent_at
                self._peer.ice.path_heard(self.egress.ingress.heard)
                self._peer.handle_timeout(now)
                self._negotiation.handle_timeout(now)
                self._rows.handle_timeout(now)
                self._allocation.handle_timeout(now)
            case SendData(messages=messages):
                self._send_data(messages, now)
            case SendDataTrack(packets=packets):
                self._send_data_track(packets, now)
            case SetSendTracks(tracks=tracks):
                self._set_send_tracks(tracks, now)
            case SetChannelCapacity(bitrate=bitrate):
                self._allocation.impose(bitrate, now)
            case SetTrackPriority(sid=sid, priority=priority):
                self._allocation.set_priority(sid, priority, now)
            case RemoteOffer():
                self._on_offer(message, now)
            case RemoteAnswer(sdp=sdp):
                self._on_answer(sdp, now)
            case RemoteCandidate(candidate=candidate):
                if candidate:
                    self._add_candidate(candidate, now)
            case BindTrack(mid=mid):
                self._tracks_in[mid] = message
                self._router.set_layers(mid, message.layers)
            case RestartIce():
                self._negotiation.restart_ice(now)
            case UseCandidates():
                self._use_candidates(message)
            case PauseData(paused=paused):
                self._paused = paused
                if paused and self._peer.sctp is not None:
                    self._peer.sctp.pause_receive(True)
                self._flush_to_owner()
            case FlushData():
                self._flush_due = False
                self._flush_to_owner()
            case Restarted(ref=ref):
                self._rows.regrant(ref)
            case Terminated():
                pass  # The room withdraws the track; its row goes with SetSendTracks.
            case _:
                assert_never(message)

    # -- negotiation ------------------------------------------------------------------------------------------------

    def _use_candidates(self, use: UseCandidates) -> None:
        self._peer.use_candidates(tcp_only=use.tcp_only, check_timeout=use.check_timeout)

    def _add_candidate(self, candidate: str, now: float) -> None:
        """A relayed path is often known by its packets before the candidate comes that says what it is."""
        before = self._peer.path_kind
        self._peer.add_remote_candidate(candidate, now)
        path = self._peer.ice.selected
        if path is not None and self._peer.path_kind is not before:
            self._path_moved(path)

    def _path_moved(self, address: Address) -> None:
        if self._told in (PeerState.CONNECTED, PeerState.DISCONNECTED):
            kind = self._peer.path_kind
            detail = f"{kind.name.lower()} {address.ip}:{address.port}"
            self._spec.owner.tell(to_owner.PathMoved(self._spec.role, kind, detail))

    def _on_offer(self, offer: RemoteOffer, now: float) -> None:
        if isinstance(self._negotiation, OfferNegotiation):
            raise ProtocolViolation("negotiation.unexpected_offer")
        self._negotiation.receive_offer(offer.sdp, offer.offer_id, offer.preferences, now)
        self._bind_ufrag()
        self._rows.negotiated(self._negotiation.send_media())

    def _on_answer(self, sdp: str, now: float) -> None:
        if isinstance(self._negotiation, AnswerNegotiation):
            raise ProtocolViolation("negotiation.unexpected_answer")
        self._negotiation.receive_answer(sdp, now)
        self._rows.negotiated(self._negotiation.send_media())

    def _set_send_tracks(self, tracks: tuple[OutgoingTrack, ...], now: float) -> None:
        for track in tracks:
            self.context.watch(track.track)
        send_tracks = self._rows.set_wanted(tracks)
        if send_tracks is not None:
            self._negotiation.set_send_tracks(send_tracks, now)
        # The first offer waits for the first word of what there is to send, so that it holds all of it.
        self._negotiation.start(now)

    def _on_negotiation(self, event: NegotiationEvent) -> None:
        owner, role = self._spec.owner, self._spec.role
        match event:
            case OfferReady(sdp=sdp, offer_id=offer_id, mid_to_track_id=mids):
                self._bind_ufrag()
                owner.tell(to_owner.TransportOffer(role, sdp, offer_id, mids))
            case AnswerReady(sdp=sdp, offer_id=offer_id, mid_to_track_id=mids, media=media):
                self._set_media(media)
                owner.tell(to_owner.TransportAnswer(role, sdp, offer_id, mids, media))
            case MediaAgreed(media=media):
                self._set_media(media)
                owner.tell(to_owner.MediaChanged(media))
            case SectionsWanted(audios=audios, videos=videos):
                owner.tell(to_owner.SectionsNeeded(audios, videos))
            case AnswerOverdue():
                owner.tell(to_owner.NegotiationFailed(role, "the answer is overdue"))
            case _:
                assert_never(event)

    def _set_media(self, media: Sequence[ReceiveMedia]) -> None:
        self._router.set_media(media)
        self.egress.ingress.set_transport_cc(self._router.transport_cc_id)

    def _bind_ufrag(self) -> None:
        """Both generations of credentials stay bound: the old path works until the new one is nominated."""
        ufrag = self._peer.ice.local_ufrag
        if ufrag not in self._ufrags:
            self._ufrags.append(ufrag)
            self._spec.ports.bind(ufrag, self._link, self._spec.udp_port, self.egress.ingress)
            if len(self._ufrags) > 2:
                self._spec.ports.unbind(self._ufrags.pop(0))

    # -- the peer connection's output -------------------------------------------------------------------------------

    def _pump(self, now: float) -> None:
        """Everything the peer connection has to say: media, events, datagrams, the next timer."""
        self._take_in(now)
        while (step := self._negotiation.next_event()) is not None:
            self._on_negotiation(step)
        self._send_out(now)
        self.egress.set_consent(self._peer.ice.consent)
        self._schedule(now)

    def _pump_data(self, now: float) -> None:
        """The same where data channels have moved and nothing else but media has. What was scheduled for later than it
        is due now stays scheduled: the acknowledgement of one message is the next one's timer."""
        self._take_in(now)
        self._send_out(now)
        sctp = self._peer.sctp
        self._schedule_at(
            _earliest(
                sctp.next_timeout() if sctp is not None else None,
                self._twcc.next_timeout(),
                self._channels.next_timeout(now),
            ),
            now,
        )

    def _take_in(self, now: float) -> None:
        self._forward_media(now)
        received: list[tuple[bool, bytes]] = []
        while (event := self._peer.next_event()) is not None:
            self._on_peer_event(event, received, now)
        if received:
            self._unsent_to_owner.extend(received)
            self._flush_to_owner()
        if self._data_track_in:
            self._hand_up_data_track()

    def _send_out(self, now: float) -> None:
        self._send_datagrams(self._peer.datagrams_to_send(now))
        if self._channels.water_mark_crossed(self._peer.sctp, now):
            self._spec.owner.tell(to_owner.DataCongestion(self._channels.congested))

    def _on_peer_event(self, event: PeerEvent, received: list[tuple[bool, bytes]], now: float) -> None:
        match event:
            case MessageReceived(channel_id=channel, data=payload):
                label = self._channels.label_of(channel)
                if label in (RELIABLE, LOSSY):
                    received.append((label == RELIABLE, payload))
                elif label == DATA_TRACK:
                    self._data_track_in.append(payload)
                elif label == UNLABELLED and self._spec.role == "publisher":
                    received.append((True, as_user_packet(payload)))
                else:
                    self._peer.counters.count("data.message_on_other_channel")
            case ChannelOpened(channel_id=channel, label=label) if self._peer.sctp is not None:
                self._channels.opened(channel, label, self._peer.sctp, now)
                if self._channels.ready and not self._channels_announced:
                    self._channels_announced = True
                    self._spec.owner.tell(to_owner.ChannelsOpen(self._spec.role))
            case ChannelClosed(channel_id=channel):
                self._channels.closed(channel)
            case KeysReady(sender=sender, receiver=receiver):
                self._times.setdefault("dtls", now)
                self.egress.set_keys(sender, receiver)
                self._rows.grant()
            case PathChanged(address=address):
                self._times.setdefault("ice", now)
                self.egress.set_path(self._path(address))
                self._rows.grant()
                self._path_moved(address)
            case PeerStateChanged(state=state, detail=detail):
                detail = self._explain(state, detail, now)
                self._told = state
                path, since = self._peer.path_kind, self._times.get("ice")
                self._spec.owner.tell(to_owner.TransportStateChanged(self._spec.role, state, detail, path, since))
            case SctpClosed(reason=reason):
                self._spec.owner.tell(to_owner.ChannelsEnded(self._spec.role, reason))
            case SctpConnected() if self._spec.role == "subscriber" and self._peer.sctp is not None:
                self._channels.open_all(self._peer.sctp)
            case _:
                pass

    def _explain(self, state: PeerState, detail: str, now: float) -> str:
        """How long the set-up took and what carries it: what a join verdict is made of."""
        if state is PeerState.CONNECTING:
            self._times = {"begun": now}
        begun, path = self._times.get("begun"), self._peer.ice.selected
        if state is not PeerState.CONNECTED or detail or begun is None or path is None:
            return detail
        del self._times["begun"]  # What comes after a while of silence is no set-up.
        ice, dtls = (1000 * (self._times.get(step, now) - begun) for step in ("ice", "dtls"))
        kind = self._peer.path_kind.name.lower()
        return f"ice {ice:.1f} ms over {kind} {path.ip}:{path.port}, dtls {dtls:.1f} ms"

    def _send_datagrams(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        for address, run in groupby(datagrams, itemgetter(1)):
            path, burst = self._path(address), [memoryview(datagram) for datagram, _ in run]
            if path is None:
                self._peer.counters.count("peer.no_path", len(burst))
            else:
                path.send_run(burst)

    def _path(self, address: Address) -> Path | None:
        path = self._paths.get(address)
        if path is None or path.closed:
            path = self._spec.ports.path_to(address, self._peer.ice.local_ufrag)
            if path is not None:
                self._paths[address] = path
        return path

    def _schedule(self, now: float) -> None:
        deadline = _earliest(
            self._peer.next_timeout(),
            self._negotiation.next_timeout(),
            self._twcc.next_timeout(),
            self._rows.next_timeout(),
            self._allocation.next_timeout(),
            self._channels.next_timeout(now),
        )
        if self._timer is not None and (deadline is None or deadline > self._timer_at + IN_VAIN):
            # What it was set for has been done: most often a check that was answered at once.
            self._timer.cancel()
            self._timer, self._timer_at = None, float("inf")
        self._schedule_at(deadline, now)

    def _schedule_at(self, deadline: float | None, now: float) -> None:
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        if deadline - now > FAR:
            deadline = math.ceil(deadline / TOGETHER) * TOGETHER
        self._timer_at = deadline
        self._timer = self.context.schedule(max(0.0, deadline - now), Tick())

    # -- data -------------------------------------------------------------------------------------------------------

    def _send_data(self, messages: tuple[tuple[bool, bytes], ...], now: float) -> None:
        try:
            kept = True
            for reliable, payload in messages:
                kept = self._channels.send(reliable, payload, self._peer.sctp, now) and kept
        except SctpSendBufferFull:
            kept = False
        if not kept:
            self._spec.owner.tell(to_owner.SlowReader())

    def _send_data_track(self, packets: tuple[bytes, ...], now: float) -> None:
        for packet in packets:
            try:
                self._channels.send_track(packet, self._peer.sctp, now)
            except SctpSendBufferFull:
                self._peer.counters.count("data_track.dropped")

    def _hand_up_data_track(self) -> None:
        packets, self._data_track_in = tuple(self._data_track_in), []
        try:
            self._spec.owner.tell(to_owner.DataTrackReceived(packets))
        except MailboxFull:
            self._peer.counters.count("data_track.owner_busy", len(packets))

    def _flush_to_owner(self) -> None:
        """Hand received data up. A full mailbox closes the peer's window until it has room again, and so does a room
        that is congested: the window is what may wait here."""
        if self._flush_due:
            return
        ready, retry = self._unsent_to_owner.ready(paused=self._paused), SLICE_INTERVAL
        try:
            if ready:
                self._spec.owner.tell(to_owner.DataReceived(ready))
                self._unsent_to_owner.gone(len(ready), paused=self._paused)
        except MailboxFull:
            retry = OWNER_RETRY
        if self._paused:
            return  # Reliable data goes on when the room says so; what is not reliable may come too late.
        if self._peer.sctp is not None:
            # Shut until all of it is gone: what waits here is never more than one window.
            self._peer.sctp.pause_receive(bool(self._unsent_to_owner))
        if self._unsent_to_owner:
            self._flush_due = True
            self.context.schedule(retry, FlushData())

    # -- media in ---------------------------------------------------------------------------------------------------

    def _take_news(self) -> None:
        """What packets that went past this actor have left."""
        ingress = self.egress.ingress
        for reason, count in ingress.take_refusals().items():
            self._peer.counters.count(reason, count)
        if ingress.has_track_news:
            for binding in self._tracks_in.values():
                binding.link.push(PlaneNews())

    def _forward_media(self, now: float) -> None:
        # First those that Python never saw: a report without them would call them lost.
        self._twcc.note(self.egress.ingress.take_arrivals())
        packets = self._peer.take_rtp()
        if packets:
            self._twcc.note_packets(packets, self._router.transport_cc_id)
            for (mid, layer), burst in self._router.route(packets).items():
                binding = self._tracks_in.get(mid)
                if binding is None:
                    self._peer.counters.count("rtp.unbound_section", len(burst))
                else:
                    binding.link.push(MediaBurst(layer, burst, binding.codec))
            for bound in self._router.take_bound():
                self._announce_stream(to_owner.StreamBound(*bound))
        for feedback in self._twcc.feedback(now):
            self.egress.send_rtcp(build_rtcp([feedback]))
        for packet, came in self._peer.take_rtcp():
            self._on_rtcp(packet, came, now)

    def _announce_stream(self, bound: to_owner.StreamBound) -> None:
        try:
            self._spec.owner.tell(bound)
        except MailboxFull:
            self._peer.counters.count("rtp.stream_untold")  # The number is for information only.

    def _on_rtcp(self, packet: RtcpPacket, arrival: float, now: float) -> None:
        """Reports may have waited for a moment (`lkactor.wire.rtcp.Urgency`): what they say is of when they came."""
        match packet:
            case SenderReport():
                found = self._router.lookup(packet.ssrc)
                binding = self._tracks_in.get(found[0]) if found is not None else None
                if binding is None or found is None:
                    self._peer.counters.count("rtcp.sr_unknown_ssrc")
                else:
                    binding.link.push(PublisherReport(found[1], packet, arrival, binding.codec))
                self._rows.on_blocks(packet.reports, arrival)
            case ReceiverReport():
                self._rows.on_blocks(packet.reports, arrival)
            case Nack():
                self._rows.on_nack(packet, now)
            case Remb(bitrate=bitrate):
                self._allocation.on_remb(bitrate, arrival)
                self._schedule_at(self._allocation.next_timeout(), now)
            case Pli():
                self._rows.on_key_frame_request(packet.media_ssrc)
            case Fir():
                for entry in packet.entries:
                    self._rows.on_key_frame_request(entry.ssrc, fir=True)
            case _:
                self._peer.counters.count("rtcp.ignored")


def _tell_states(
    owner: ActorRef[to_owner.ParticipantMessage], counters: Counters, states: to_owner.StreamStates
) -> None:
    try:
        owner.tell(states)
    except MailboxFull:
        counters.count("leg.state_untold")  # What the client shows of it is all that is wrong then.


def _earliest(*deadlines: float | None) -> float | None:
    due = [deadline for deadline in deadlines if deadline is not None]
    return min(due) if due else None
