"""One participant: its session, its two transports (or one), what it publishes and what it receives.

The path of a signal: a request comes in from the front, `_on_request` says what it means here, the room hears what it
means for the others. A resume binds a new signal connection to the same actor. A crash ends the session: the front
tells the client to reconnect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, assert_never

from livekit.protocol import models, rtc
from trio import current_time

from actors.administration import AdministrationDesk
from actors.connectivity import ConnectivityDesk
from actors.data import DataDesk
from actors.data_tracks import DataTrackDesk
from actors.egress import TransportEgress
from actors.kernel import NOT_NOW, Actor, ActorDead, ActorRef, Exit, MailboxFull, Restart, Restarted, Terminated, Timer
from actors.messages.participant import (
    AudioLevelChanged,
    ChannelsEnded,
    ChannelsOpen,
    DataBlobFound,
    DataCongestion,
    DataReceived,
    DataTrackReceived,
    Disconnect,
    DownlinkQuality,
    ForwardTo,
    MediaChanged,
    MoveTo,
    MuteTrack,
    NegotiationFailed,
    ParticipantMessage,
    ParticipantTick,
    PathMoved,
    PeersUpdated,
    PerformRpc,
    QualitiesUpdated,
    Resume,
    ResumeAnswered,
    Role,
    RoomUpdated,
    SectionsNeeded,
    SignalLost,
    SignalReceived,
    SignalSink,
    SlowReader,
    SpeakersUpdated,
    StreamBound,
    StreamStates,
    TrackHandle,
    TrackReceived,
    TracksPublished,
    TrackSubscribedTo,
    TracksWithdrawn,
    TransportAnswer,
    TransportOffer,
    TransportStateChanged,
    UnsupportedCodec,
    UpdateParticipant,
    UpdateSubscriptions,
    UplinkQuality,
    WantedAudioCodecs,
    WantedQualityChanged,
)
from actors.messages.room import (
    BindDataPort,
    CongestionChanged,
    ParticipantChanged,
    ParticipantLeft,
    ParticipantResumed,
    RoomMessage,
    SpeakerLevel,
)
from actors.messages.track import TrackMessage
from actors.messages.transport import (
    PauseData,
    RemoteAnswer,
    RemoteCandidate,
    RemoteOffer,
    RestartIce,
    TransportMessage,
)
from actors.publishing import PublishingDesk
from actors.quality import QualityDesk
from actors.room_port import RoomPort
from actors.rpc import RpcDesk
from actors.services import Services
from actors.simulation import SimulationDesk
from actors.subscribing import SubscribingDesk
from actors.tokens import TokenDesk
from actors.transport import TransportActor, TransportSpec
from lkactor.config import CongestionControlConfig
from lkactor.peer import PeerState
from lkactor.room.model import RoomModel
from lkactor.room.participant import ParticipantModel, State
from lkactor.signal import responses
from lkactor.signal.client_configuration import client_codecs, understands
from lkactor.signal.join import JoinIntent
from lkactor.signal.outgoing import Outgoing

JOIN_TIMEOUT = 60.0
"""Not ACTIVE by then: JOIN_FAILURE (livekit-surface 2.6)."""
JOINED_NOTICE = 1.0
"""Not ACTIVE by then: the others are told that it is there. Most are, and need no two updates."""
CHANNEL_GRACE = 3.0
"""A connected peer whose data channels do not open becomes ACTIVE all the same."""
FAILED_GRACE = 5.0
"""After a transport failed the client has this long to resume."""
RESTART_GRACE = 20.0
"""And so long to restart ICE, once it has resumed."""
MISSED_DEPARTURES_PROTOCOL = 9
MAX_MISSED = 5000
IDENTITY_PROTOCOL = 12

DISCONNECTED = State.DISCONNECTED
Action = rtc.LeaveRequest.Action
Reason = rtc.RequestResponse.Reason


@dataclass(frozen=True, slots=True)
class ParticipantSpec:
    """What a participant is started with: who joins, and the room as it is at this moment."""

    services: Services
    room: ActorRef[RoomMessage]
    room_model: RoomModel
    room_info: models.Room
    intent: JoinIntent
    sid: str
    connection: int
    sink: SignalSink
    others: tuple[models.ParticipantInfo, ...]
    tracks: tuple[TrackHandle, ...]


class ParticipantActor(Actor[ParticipantMessage]):
    """Requests are handled strictly one by one, so the client sees its own effects in order."""

    patient = True

    def __init__(self, spec: ParticipantSpec) -> None:
        self._spec = spec
        self._services = spec.services
        self._parameters = spec.intent.parameters
        self._connection = spec.connection
        self.room = RoomPort(spec.room)
        self._sink: SignalSink | None = spec.sink
        self.model = ParticipantModel(
            sid=spec.sid,
            identity=spec.intent.identity,
            claims=spec.intent.claims,
            parameters=spec.intent.parameters,
            joined_at_ms=spec.services.unix_ms(),
            region=spec.services.config.region,
            limits=spec.services.config.limit,
        )
        self._transports: dict[Role, ActorRef[TransportMessage]] = {}
        self._connected: dict[Role, bool] = {}
        self._channels_open = False
        self._timers: dict[str, Timer] = {}
        self._left = False
        self._missed: dict[str, models.ParticipantInfo] = {}
        """Departures since the client last spoke, by sid: it may not have heard of them."""
        self._codecs = client_codecs(spec.intent.parameters.client, spec.room_model.enabled_codecs)
        self._publishing = PublishingDesk(self, self._codecs.publish)
        self._data = DataDesk(self)
        self._data_tracks = DataTrackDesk(self, auto_subscribe=spec.intent.parameters.auto_subscribe_data_track)
        self._quality = QualityDesk(self)
        self._rpc = RpcDesk(self)
        self._tokens = TokenDesk(self, spec.intent.claims)
        self._administration = AdministrationDesk(self, self._tokens)
        self._simulation = SimulationDesk(self)
        self._connectivity = ConnectivityDesk(
            self, spec.room_model.name, spec.intent.parameters, spec.intent.claims.api_key
        )
        self._subscribing = SubscribingDesk(
            self,
            auto_subscribe=spec.intent.parameters.auto_subscribe,
            adaptive_stream=spec.intent.parameters.adaptive_stream,
        )

    # -- lifecycle --------------------------------------------------------------------------------------------------

    async def started(self) -> None:
        self._primary: Role = "publisher"
        if self._parameters.subscriber_primary and self.model.permission.can_subscribe:
            self._primary = "subscriber"
        self._send(self._join_response())
        self.model.set_state(State.JOINED)
        self.start_timer("joined", JOINED_NOTICE)
        self._subscribing.known(self._spec.tracks)
        # Who only listens never needs the other one: it is made for its first offer or candidate.
        await self._spawn_transport(self._primary)
        if not self._parameters.single:
            await self._need_transport("subscriber")
        self.room.tell(ParticipantChanged(self.sid, self.info(), quiet=True))  # The API may ask before it is ACTIVE.
        self.room.tell(BindDataPort(self.sid, self._transports[self._primary]))
        self._subscribing.sync()
        self._data_tracks.observe(self._spec.others)
        self._publishing.observe(self._spec.others)
        self.start_timer("join", JOIN_TIMEOUT)
        self._tokens.refresh()
        for request in self._parameters.add_tracks:
            await self._publishing.add_track(request)
        if self._parameters.offer is not None:
            await self._on_request(rtc.SignalRequest(offer=self._parameters.offer))

    async def stopping(self, exit: Exit) -> None:
        if not self._left:
            self._leave(models.DisconnectReason.SERVER_SHUTDOWN, Action.RECONNECT, send_leave=True)

    async def receive(self, message: ParticipantMessage) -> object:
        match message:
            case SignalReceived(connection=connection, request=request):
                if connection == self._connection:
                    self._missed.clear()
                    self._connectivity.heard(request)
                    await self._on_request(request)
            case SignalLost(connection=connection):
                if connection == self._connection:
                    self._on_signal_lost()
            case Resume():
                return self._on_resume(message)
            case PeersUpdated() | TracksPublished() | TracksWithdrawn() | RoomUpdated() | SpeakersUpdated():
                self._on_room(message)
            case ResumeAnswered(connection=connection):
                self._on_resume_answered(connection)
            case MuteTrack(track_sid=sid, muted=muted):
                return self._publishing.mute_by_server(sid, muted)
            case UpdateParticipant():
                return self._administration.update(message)
            case PerformRpc():
                self._rpc.perform(message)
            case ForwardTo(name=name, room=room):
                return self._administration.forward_to(name, room)
            case MoveTo(room=room, others=others):
                self._administration.move_to(room, others)
            case UpdateSubscriptions(track_sids=sids, subscribe=subscribe):
                self._subscribing.wish(sids, subscribe)
            case Disconnect(reason=reason, action=action, send_leave=send_leave):
                self.end(reason, action, send_leave=send_leave, why="disconnected")
            case ParticipantTick(what=what):
                self._on_timer(what)
            case WantedQualityChanged() | WantedAudioCodecs():
                self._publishing.wanted(message)
            case StreamBound():
                self._publishing.stream_bound(message)
            case UplinkQuality(track_sid=sid, score=score):
                self._quality.uplink(sid, score)
            case DownlinkQuality(score=score):
                self._quality.downlink(score)
            case StreamStates(states=states):
                self._subscribing.stream_states(states)
            case QualitiesUpdated():
                self._quality.tell_client(message, self._subscribing.publishers())
            case PauseData():
                self.tell_transports(message)
            case DataReceived() | DataTrackReceived() | SlowReader() | DataCongestion() | DataBlobFound():
                self._on_data(message)
            case Restarted(ref=ref):
                self._publishing.track_restarted(ref)
            case Terminated(ref=ref, exit=exit):
                self._on_child_ended(ref, exit)
            case _:
                await self._on_transport(message)
        return None

    def receive_now(self, message: ParticipantMessage) -> object:
        """What the API asks for most, and what the room tells everybody."""
        match message:
            case UpdateParticipant():
                return self._administration.update(message)
            case MuteTrack(track_sid=sid, muted=muted):
                return self._publishing.mute_by_server(sid, muted)
            case PeersUpdated() | RoomUpdated() | SpeakersUpdated():
                self._on_room(message)
                return None
            case QualitiesUpdated():
                self._quality.tell_client(message, self._subscribing.publishers())
                return None
            case _:
                return NOT_NOW

    # -- used by the desks ------------------------------------------------------------------------------------------

    @property
    def sid(self) -> str:
        return self._spec.sid

    @property
    def identity(self) -> str:
        return self._spec.intent.identity

    @property
    def services(self) -> Services:
        return self._services

    @property
    def protocol(self) -> int:
        return self._parameters.protocol

    @property
    def fast_start(self) -> bool:
        """The first offer may hold tracks; older clients get theirs once they are ACTIVE (livekit-surface 2.9)."""
        return self._parameters.single or self.protocol > 7

    @property
    def offered_at_once(self) -> bool:
        """The connection that carries media down is the primary one, so it is set up even without media."""
        return self._parameters.single or self._primary == "subscriber"

    @property
    def has_signal(self) -> bool:
        return self._sink is not None

    @property
    def fixed_codec(self) -> bool:
        """The client cannot follow a change of codec in one track (Go SDK, and whoever does not say what it is)."""
        return self._parameters.client.sdk in (models.ClientInfo.SDK.GO, models.ClientInfo.SDK.UNKNOWN)

    @property
    def knows_trailers(self) -> bool:
        return models.ClientInfo.Capability.CAP_PACKET_TRAILER in self._parameters.client.capabilities

    @property
    def syncs_streams(self) -> bool:
        """The room wants it and the client can: not Firefox (livekit-surface 2.5)."""
        browser = self._parameters.client.browser.lower()
        return self._spec.room_model.sync_streams and self.protocol >= 10 and not browser.startswith("firefox")

    def tell_publisher(self, message: TransportMessage) -> None:
        self._tell("publisher", message)

    def tell_transports(self, message: TransportMessage) -> None:
        for role in self._transports:
            self._tell(role, message)

    def switch_protocol(self, protocol: int) -> None:
        """SimulateScenario. Clients begin a new session then; for those that do not, ICE starts over."""
        self._connectivity.switch(protocol)
        if not self._parameters.single:
            self._tell("subscriber", RestartIce())

    def tell_data_port(self, message: TransportMessage) -> None:
        """To the transport that carries data to the client."""
        self._tell(self._primary, message)

    def tell_downlink(self, message: TransportMessage) -> None:
        """To the transport that carries media to the client."""
        self._tell("publisher" if self._parameters.single else "subscriber", message)

    def send(self, response: rtc.SignalResponse) -> None:
        self._send(response)

    def refuse(self, request: rtc.SignalRequest, reason: int, message: str) -> None:
        """RequestResponse; the failed request is echoed where the protocol has a field for it."""
        answer = responses.request_response(0, reason, message)
        kind = request.WhichOneof("message")
        if kind is not None and kind in answer.request_response.DESCRIPTOR.fields_by_name:
            getattr(answer.request_response, kind).CopyFrom(getattr(request, kind))
        self._send(answer)

    def changed(self) -> None:
        """Public info changed: tell the room, which tells everyone, this client included."""
        self.model.touch()
        self.room.tell(ParticipantChanged(self.sid, self.info()))

    @property
    def left(self) -> bool:
        """The session is over."""
        return self._left

    def published(self) -> tuple[TrackHandle, ...]:
        return self._publishing.handles()

    def info(self) -> models.ParticipantInfo:
        return self.model.info(self._publishing.publications.infos(), self._data_tracks.publications.infos())

    def log(self, event: str, detail: str = "") -> None:
        self._services.events.record(current_time(), self._spec.room_model.name, self.identity, event, detail)

    # -- requests ---------------------------------------------------------------------------------------------------

    async def _on_request(self, request: rtc.SignalRequest) -> None:
        match request.WhichOneof("message"):
            case "offer":
                offer = request.offer
                preferences = self._publishing.publications.preferences()
                await self._need_transport("publisher")
                self._tell("publisher", RemoteOffer(offer.sdp, offer.id, preferences))
            case "answer":
                if not self._parameters.single:
                    self._tell("subscriber", RemoteAnswer(request.answer.sdp, request.answer.id))
                elif self._parameters.server_offers != "never":
                    self._tell("publisher", RemoteAnswer(request.answer.sdp, request.answer.id))
            case "trickle":
                await self._on_trickle(request)
            case "add_track":
                await self._publishing.add_track(request.add_track)
            case "mute":
                if not self._publishing.mute_by_client(request.mute.sid, request.mute.muted):
                    self.refuse(request, Reason.NOT_FOUND, "track not found")
            case "subscription":
                self._subscribing.on_request(request.subscription)
            case "track_setting":
                self._subscribing.on_settings(request.track_setting)
            case "leave":
                self.end(_client_reason(request.leave.reason), Action.DISCONNECT, send_leave=True, why="left")
            case "subscription_permission":
                self._publishing.set_subscription_permission(request.subscription_permission)
            case "sync_state":
                self._on_sync_state(request.sync_state)
            case "simulate":
                self._simulation.run(request.simulate)
            case "ping" | "ping_req":
                self._send(responses.pong(request, self._services.unix_ms()))
            case "update_metadata":
                self._administration.update_own(request.update_metadata)
            case "update_audio_track" | "update_video_track" as kind:
                if not self._publishing.update_track(getattr(request, kind)):
                    self.refuse(request, Reason.NOT_FOUND, "track not found")
            case "publish_data_track_request":
                self._data_tracks.publish(request.publish_data_track_request)
            case "unpublish_data_track_request":
                self._data_tracks.unpublish(request.unpublish_data_track_request)
            case "update_data_subscription":
                self._data_tracks.update(request.update_data_subscription)
            case "store_data_blob_request":
                self._data_tracks.store_blob(request.store_data_blob_request)
            case "get_data_blob_request":
                self._data_tracks.want_blob(request.get_data_blob_request)
            case "update_layers":
                pass  # Deprecated; the reference ignores it too.
            case None:
                self.log("signal.empty_request")
            case kind:
                self.log("signal.unimplemented", kind)
                self.refuse(request, Reason.UNCLASSIFIED_ERROR, f"unimplemented: {kind}")

    async def _on_trickle(self, request: rtc.SignalRequest) -> None:
        candidate = responses.candidate_of(request.trickle)
        if candidate is None:
            self.refuse(request, Reason.UNCLASSIFIED_ERROR, "candidateInit is not a candidate")
            return
        subscriber = request.trickle.target == rtc.SignalTarget.SUBSCRIBER and not self._parameters.single
        role: Role = "subscriber" if subscriber else "publisher"
        await self._need_transport(role)
        self._tell(role, RemoteCandidate(candidate))

    # -- the room ---------------------------------------------------------------------------------------------------

    def _on_room(
        self, message: PeersUpdated | TracksPublished | TracksWithdrawn | RoomUpdated | SpeakersUpdated
    ) -> None:
        match message:
            case PeersUpdated(infos=infos, shared=shared):
                newer = self.protocol >= IDENTITY_PROTOCOL
                update = shared.outgoing(newer=newer)
                if update is not None:
                    self.send_shared(update)
                self._remember_departures(shared.infos(newer=newer))
                self._data_tracks.observe(infos)
                self._publishing.observe(infos)
            case TracksPublished(tracks=tracks):
                self._subscribing.published(tracks)
            case TracksWithdrawn(sids=sids):
                self._subscribing.withdrawn(sids)
            case RoomUpdated(outgoing=outgoing):
                self.send_shared(outgoing)
            case SpeakersUpdated():
                if self.protocol > 2:
                    self._tell_speakers(message)
            case _:
                assert_never(message)

    def _tell_speakers(self, news: SpeakersUpdated) -> None:
        """Of those whose tracks this client is to receive, and of itself (livekit-surface 2.2)."""
        audible = self._subscribing.publishers() | {self.sid}
        heard = [speaker for speaker in news.speakers if speaker.sid in audible]
        if heard:
            selection = tuple(speaker.sid for speaker in heard)
            self.send_shared(news.shared.outgoing(selection, lambda: responses.speakers(heard)))

    # -- transports -------------------------------------------------------------------------------------------------

    async def _need_transport(self, role: Role) -> None:
        if role not in self._transports:
            await self._spawn_transport(role)

    async def _spawn_transport(self, role: Role) -> None:
        services, config = self._services, self._services.config
        egress = TransportEgress(self._services.ports.plane)
        spec = TransportSpec(
            role=role,
            single=self._parameters.single,
            owner=self.context.ref,
            ports=services.ports,
            certificate=services.certificate,
            candidates=services.ports.spread(services.candidates),
            use=self._connectivity.candidates(),
            rng=services.rng,
            lite=config.rtc.use_ice_lite and not self._parameters.disable_ice_lite and self.protocol > 5,
            codecs=tuple(codec.mime.lower() for codec in self._codecs.subscribe),
            publish_codecs=tuple(codec.mime.lower() for codec in self._codecs.publish),
            reuse_sections=self.protocol > 3 and self._parameters.client.browser != "safari" and not self.syncs_streams,
            subscriber_sid=self.sid,
            egress=egress,
            server_offers=self._parameters.server_offers,
            playout_delay=self._spec.room_model.playout_delay_for(self._parameters.client.browser),
            congestion=self._congestion(),
            slow_threshold=config.rtc.datachannel_slow_threshold,
        )
        self._transports[role] = await self.context.spawn(lambda: TransportActor(spec), role, restart=Restart.TEMPORARY)
        self._connected[role] = False
        self.context.watch(self._transports[role])
        if role == "publisher":
            self._publishing.egress = egress

    def _congestion(self) -> CongestionControlConfig:
        """The client may say for itself whether its videos may be paused."""
        config, asked = self._services.config.rtc.congestion_control, self._parameters.subscriber_allow_pause
        return config if asked is None else replace(config, allow_pause=asked)

    async def _on_transport(
        self,
        message: TransportAnswer
        | TransportOffer
        | SectionsNeeded
        | MediaChanged
        | NegotiationFailed
        | TransportStateChanged
        | PathMoved
        | ChannelsOpen
        | ChannelsEnded
        | TrackReceived
        | UnsupportedCodec
        | AudioLevelChanged
        | TrackSubscribedTo,
    ) -> None:
        match message:
            case TransportAnswer(sdp=sdp, offer_id=offer_id, mid_to_track_id=mids, media=media):
                self._send(responses.description("answer", sdp, offer_id, mids))
                await self._publishing.media_changed(media)
            case TransportOffer(sdp=sdp, offer_id=offer_id, mid_to_track_id=mids):
                self._send(responses.description("offer", sdp, offer_id, mids))
            case MediaChanged(media=media):
                await self._publishing.media_changed(media)
            case SectionsNeeded(audios=audios, videos=videos):
                needed = rtc.MediaSectionsRequirement(num_audios=audios, num_videos=videos)
                self._send(rtc.SignalResponse(media_sections_requirement=needed))
            case NegotiationFailed(role=role, reason=reason):
                self.log("negotiation.failed", f"{role}: {reason}")
                self.reconnect(models.DisconnectReason.STATE_MISMATCH)
            case TransportStateChanged():
                self._on_transport_state(message)
            case PathMoved(role=role, detail=detail):
                self.log(f"{role}.path", detail)
                self._connectivity.path_moved(message)
            case ChannelsOpen(role=role):
                if role == self._primary:
                    self._channels_open = True
                    self._maybe_active()
            case ChannelsEnded(role=role, reason=reason):
                self.log(f"{role}.data_ended", reason)
            case TrackReceived(track_sid=sid):
                self._subscribing.received(sid)
            case UnsupportedCodec(track_sid=sid):
                self._subscribing.unsupported(sid)
            case AudioLevelChanged(track_sid=sid, level=level):
                self.room.tell(SpeakerLevel(self.sid, self._publishing.speaker_level(sid, level)))
            case TrackSubscribedTo(track_sid=sid):
                self._publishing.first_subscription(sid)
            case _:
                assert_never(message)

    def _on_transport_state(self, change: TransportStateChanged) -> None:
        self.log(f"{change.role}.{change.state.name.lower()}", change.detail)
        told = self._connectivity.transport_changed(change)
        match change.state:
            case PeerState.CONNECTED:
                self._connected[change.role] = True
                self.cancel_timer("failed")
                if change.role == self._primary:
                    # A peer that is no LiveKit client opens no data channels: there is nothing to wait for.
                    self._channels_open |= self._parameters.server_offers != "never"
                    self.start_timer("channels", CHANNEL_GRACE)
                    self._maybe_active()
            case PeerState.FAILED if not self._left:
                # The client may resume with an ICE restart; without one the session ends (livekit-media 1.3).
                self._connected[change.role] = False
                if not told:
                    self.start_timer("failed", RESTART_GRACE)
                    return
                if self._sink is not None:
                    if self.protocol >= responses.LEAVE_ACTION_PROTOCOL:
                        reason = models.DisconnectReason.CONNECTION_TIMEOUT
                        self._send(responses.leave(reason, Action.RESUME, self.protocol))
                    self._drop_signal()
                self.start_timer("failed", FAILED_GRACE)
            case _:
                pass

    def _maybe_active(self) -> None:
        """ACTIVE means: media and data reach this participant. Peers start sending then (livekit-clients 5)."""
        if self._connected.get(self._primary) and self._channels_open and self.model.set_state(State.ACTIVE):
            self.cancel_timer("join")
            self.cancel_timer("joined")
            self.cancel_timer("channels")
            self.log("active")
            self.room.tell(ParticipantChanged(self.sid, self.info()))
            self._subscribing.set_ready()

    def _on_child_ended(self, ref: ActorRef[Any], exit: Exit) -> None:
        """A transport cannot be rebuilt in place: the client's full reconnect is its restart strategy."""
        if ref in self._transports.values() and not self._left:
            self.log("transport.ended", exit.name.lower())
            self.reconnect(models.DisconnectReason.STATE_MISMATCH)
        else:
            self._publishing.track_ended(ref)

    def _on_data(self, message: DataReceived | DataTrackReceived | SlowReader | DataCongestion | DataBlobFound) -> None:
        match message:
            case DataReceived(messages=messages):
                self._data.publish(tuple(m for m in messages if not self._rpc.takes(m[1])))
            case DataTrackReceived(packets=packets):
                self._data_tracks.received(packets)
            case DataBlobFound(request_id=request_id, blob=blob, why_not=why_not):
                self._data_tracks.found_blob(request_id, blob, why_not)
            case SlowReader():
                self.log("data.slow_reader")
                self.reconnect(models.DisconnectReason.STATE_MISMATCH)
            case DataCongestion(congested=congested):
                self.room.tell(CongestionChanged(self.sid, congested))
            case _:
                assert_never(message)

    # -- resume, reconnect, leave -----------------------------------------------------------------------------------

    def _on_resume(self, resume: Resume) -> bool:
        asked = resume.parameters.participant_sid
        if self._left or (asked and asked != self.sid):
            # Another session of this identity took its place meanwhile: this one is not the client's to resume.
            return False
        if self._sink is not None:
            self._sink.close()
        if self._simulation.refuses_resume():
            resume.sink.close()
            self._sink = None
            return True
        self._connection, self._sink = resume.connection, resume.sink
        self.cancel_timer("failed")
        self.log("resumed")
        self._connectivity.resumed(resume.parameters.reconnect_reason)
        servers, configuration = self._connectivity.ice_servers(), self._connectivity.configuration()
        self._send(
            responses.reconnect_response(self._services.server_info, servers, self._data.last_sequence, configuration)
        )
        self._tell_missed_departures()
        self.room.tell(ParticipantResumed(self.sid, self._connection))
        if resume.parameters.sync_state is not None:
            self._on_sync_state(resume.parameters.sync_state)
        return True

    def _on_resume_answered(self, connection: int) -> None:
        """Everyone and the room were told; the offer that restarts ICE comes last (livekit-surface 2.6)."""
        if connection != self._connection or self._left:
            return
        if not self._parameters.single:
            self._tell("subscriber", RestartIce())
        if self._simulation.cuts_after_resume():
            self._drop_signal()

    def _tell_missed_departures(self) -> None:
        """Who went while the signal connection was gone or half open: the client would wait for them for ever."""
        missed, self._missed = tuple(self._missed.values()), {}
        if missed and self.protocol >= MISSED_DEPARTURES_PROTOCOL:
            self._send(responses.update(missed))

    def _remember_departures(self, infos: tuple[models.ParticipantInfo, ...]) -> None:
        for info in infos:
            if info.state == DISCONNECTED and len(self._missed) < MAX_MISSED:
                self._missed[info.sid] = info

    def _on_sync_state(self, state: rtc.SyncState) -> None:
        """What the client believes. A published track that we do not know means that we do not agree."""
        known = [self._publishing.publications.find(entry.track.sid) for entry in state.publish_tracks]
        data_tracks = [self._data_tracks.publications.knows(entry.info.sid) for entry in state.publish_data_tracks]
        if any(publication is None for publication in known) or not all(data_tracks):
            self.log("sync_state.mismatch")
            self.reconnect(models.DisconnectReason.STATE_MISMATCH)
            return
        for sid in state.track_sids_disabled:
            self._subscribing.on_settings(rtc.UpdateTrackSettings(track_sids=[sid], disabled=True))
        self._subscribing.on_request(state.subscription)

    def _on_signal_lost(self) -> None:
        self._sink = None
        self.log("signal.lost")
        if not any(self._connected.values()) and "failed" not in self._timers:
            self.end(
                models.DisconnectReason.SIGNAL_CLOSE,
                Action.DISCONNECT,
                send_leave=False,
                why="signal lost before media",
            )

    def reconnect(self, reason: int) -> None:
        """The session cannot go on as it is; the client is to start a new one."""
        self.end(reason, Action.RECONNECT, send_leave=True, why="reconnect")

    def end(self, reason: int, action: int, *, send_leave: bool, why: str) -> None:
        self._leave(reason, action, send_leave=send_leave)
        self.context.stop(why)

    def _leave(self, reason: int, action: int, *, send_leave: bool) -> None:
        """The end of the session, told once to the client and once to the room."""
        if self._left:
            return
        self._left = True
        self._rpc.close()
        self.log("left", models.DisconnectReason.Name(reason))
        if send_leave:
            self._send(responses.leave(reason, action, self.protocol))
        self._drop_signal()
        self.model.disconnect(reason)
        try:
            self.room.tell(ParticipantLeft(self.sid, self.info()))
        except (ActorDead, MailboxFull):
            self.log("room.gone")

    def set_permission(self, permission: models.ParticipantPermission) -> bool:
        """False: it is the same."""
        if permission == self.model.permission:
            return False
        self.model.set_permission(permission)
        self._publishing.enforce_permission()
        self._data_tracks.enforce_permission()
        self._data_tracks.sync()
        self._subscribing.set_can_subscribe(permission.can_subscribe)
        return True

    # -- small things -----------------------------------------------------------------------------------------------

    def _join_response(self) -> rtc.SignalResponse:
        info = self.info()
        return responses.join_response(
            room=self._spec.room_info,
            participant=info,
            others=self._spec.others,
            server=self._services.server_info,
            ice_servers=self._connectivity.ice_servers(),
            client_configuration=self._connectivity.configuration(),
            codecs=self._codecs.publish,
            subscriber_primary=self._primary == "subscriber",
            sif_trailer=self._spec.room_model.sif_trailer,
            fast_publish=self.model.permission.can_publish and not self._connectivity.fallen_back,
        )

    def _tell(self, role: Role, message: TransportMessage) -> None:
        """A transport that is gone ends the session; its Terminated may still be on the way."""
        try:
            self._transports[role].tell(message)
        except ActorDead:
            self.log("transport.gone", role)
        except MailboxFull:
            self.log("transport.mailbox_full", role)
            self._transports[role].kill()

    def tell_track(self, track: ActorRef[Any], message: TrackMessage) -> None:
        """Another participant's track may end at any moment; the room says so next."""
        try:
            track.tell(message)
        except (ActorDead, MailboxFull):
            self.log("track.unreachable", track.path)

    def _send(self, response: rtc.SignalResponse) -> None:
        self.send_shared(Outgoing(response))

    def send_shared(self, outgoing: Outgoing) -> None:
        """What others are told, too, in the same words: encoded once for all of them."""
        if not understands(self._parameters.client, outgoing.kind):
            return
        if self._sink is not None and not self._sink.send(outgoing):
            self.log("signal.too_slow")
            self._sink = None

    def _drop_signal(self) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def start_timer(self, what: str, delay: float) -> None:
        self.cancel_timer(what)
        self._timers[what] = self.context.schedule(delay, ParticipantTick(what))

    def cancel_timer(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()

    def _on_timer(self, what: str) -> None:
        self._timers.pop(what, None)
        if self._rpc.on_timer(what) or self._subscribing.on_timer(what) or self._tokens.on_timer(what):
            return
        match what:
            case "joined":
                self.room.tell(ParticipantChanged(self.sid, self.info()))
            case "join":
                self.end(models.DisconnectReason.JOIN_FAILURE, Action.DISCONNECT, send_leave=True, why="never active")
            case "channels":
                self._channels_open = True
                self._maybe_active()
            case "failed":
                self.end(
                    models.DisconnectReason.CONNECTION_TIMEOUT,
                    Action.DISCONNECT,
                    send_leave=True,
                    why="transport failed",
                )
            case "scenario":
                self._simulation.window_over()
            case "speaker":
                self._simulation.speaking_over()


def _client_reason(reason: int) -> int:
    """A client's Leave may name these; anything else is its own wish (livekit-surface 2.1)."""
    reasons = models.DisconnectReason
    kept = (reasons.USER_UNAVAILABLE, reasons.USER_REJECTED, reasons.AGENT_ERROR)
    return reason if reason in kept else reasons.CLIENT_INITIATED
