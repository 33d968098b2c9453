"""One room: who is in it, and what each hears of the others.

A crash ends the room, and every client is told to reconnect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, assert_never

from livekit.protocol import models, rtc
from trio import current_time

from actors.dispatching import DispatchingDesk
from actors.kernel import (
    NOT_NOW,
    Actor,
    ActorDead,
    ActorRef,
    Exit,
    MailboxFull,
    Restart,
    Restarted,
    StartFailed,
    Terminated,
    Timer,
)
from actors.messages.participant import (
    Disconnect,
    ParticipantMessage,
    PeersUpdated,
    QualitiesUpdated,
    ResumeAnswered,
    RoomUpdated,
    SpeakersUpdated,
    TrackHandle,
    TracksPublished,
    TrackSubscribedTo,
    TracksWithdrawn,
)
from actors.messages.room import (
    AdoptForwarded,
    BindDataPort,
    CloseRoom,
    CongestionChanged,
    ExpiryTick,
    FindParticipant,
    FirstSubscription,
    GetRoom,
    Join,
    Joined,
    JoinRefused,
    ListParticipants,
    ParticipantChanged,
    ParticipantLeft,
    ParticipantResumed,
    PublishData,
    PublishDataTrackFrames,
    PublishTracks,
    QualityChanged,
    QualityTick,
    RestrictSubscribers,
    RoomMessage,
    RoomTick,
    RouteDataTracks,
    SimulatedSpeaker,
    SpeakerLevel,
    SpeakerTick,
    StoreDataBlob,
    UpdateRoomMetadata,
    UpdateTick,
    WantDataBlob,
    WithdrawTracks,
)
from actors.messages.rooms import RoomChanged, RoomsMessage
from actors.messages.transport import TransportMessage
from actors.participant import ParticipantActor, ParticipantSpec
from actors.services import Services
from actors.switchboard import Switchboard
from lkactor.auth import to_participant_permission
from lkactor.journal import RoomNews
from lkactor.room.model import RoomModel
from lkactor.room.quality import QualityBoard
from lkactor.room.sids import new_sid
from lkactor.room.speakers import ActiveSpeakers
from lkactor.room.updates import INTERVAL, SMALL_ROOM, WaitingUpdates, can_wait

Action = rtc.LeaveRequest.Action
State = models.ParticipantInfo.State
ACTIVE = State.ACTIVE
ROOM_UPDATE_INTERVAL = 5.0
"""Seconds; metadata and recording are told at once (livekit-surface 2.2)."""
AT_ONCE = (PeersUpdated, QualitiesUpdated, RoomUpdated, SpeakersUpdated)
"""What a participant passes on to its client and is done with: no task is woken for it unless the turn of the event
loop is long already. A hundred members take 9 ms to tell of the quality of their connections."""
QUALITY_FIRST, QUALITY_INTERVAL = 2.0, 5.0
"""Seconds from the first active participant to the first word on connection quality, and between the next ones."""


@dataclass(slots=True)
class Member:
    """One participant as the room sees it."""

    sid: str
    identity: str
    ref: ActorRef[ParticipantMessage]
    info: models.ParticipantInfo
    hidden: bool
    dependent: bool
    data_port: ActorRef[TransportMessage] | None = None
    active_seen: bool = False
    forwarded: bool = False
    """Of another room: it is known here, and hears nothing of this one."""
    tracks: dict[str, TrackHandle] = field(default_factory=dict)
    restriction: rtc.SubscriptionPermission | None = None
    """Who may subscribe to this member's tracks; None: everybody."""

    def admits(self, identity: str, track_sid: str) -> bool:
        if self.restriction is None:
            return True
        return any(
            entry.participant_identity == identity and (entry.all_tracks or track_sid in entry.track_sids)
            for entry in self.restriction.track_permissions
        )


class RoomActor(Actor[RoomMessage]):
    """Members by sid; an identity belongs to at most one of them."""

    mailbox_capacity = 4096
    """Hundreds of participants may each have something to say of each track, all at once."""

    def __init__(self, services: Services, model: RoomModel, rooms: ActorRef[RoomsMessage]) -> None:
        self._services = services
        self._model = model
        self._rooms = rooms
        self.members: dict[str, Member] = {}
        self._speakers = ActiveSpeakers()
        self._speaker_timer: Timer | None = None
        self._data = Switchboard(self)
        self._dispatching = DispatchingDesk(self, model.agents)
        self._quality = QualityBoard()
        self._quality_timer: Timer | None = None
        self._told = models.Room()
        self._updates = WaitingUpdates()
        self._reported: models.Room | None = None
        """The room as the participants know it."""
        self._room_timer: Timer | None = None
        self._news = RoomNews(full_room=services.config.room.enable_full_room_in_webhooks)
        self._closing = False
        self._end_reason: int = models.DisconnectReason.UNKNOWN_REASON

    # -- lifecycle --------------------------------------------------------------------------------------------------

    async def started(self) -> None:
        self.log("room.started", self._model.sid)
        self._told = self._info()
        self._services.journal.publish(self._news.started(self._told))
        self._dispatching.opened()
        self._report()
        self._watch_expiry()

    async def stopping(self, exit: Exit) -> None:
        self.log("room.finished")
        if exit is Exit.STOPPED:
            self._end_reason = models.DisconnectReason.SERVER_SHUTDOWN
        present = [member.info for member in self.members.values() if not member.forwarded]
        self._services.journal.publish(self._news.finished(self._info(), self._end_reason, present))

    async def receive(self, message: RoomMessage) -> object:
        match message:
            case Join():
                return await self._join(message)
            case FindParticipant(identity=identity):
                return self._find(identity)
            case ParticipantChanged(sid=sid, info=info, quiet=quiet):
                self._changed(sid, info, quiet)
            case AdoptForwarded():
                self._adopt(message)
            case ParticipantResumed(sid=sid, connection=connection):
                self._resumed(sid, connection)
            case ParticipantLeft(sid=sid, info=info):
                self._left(sid, info)
            case PublishTracks(publisher_sid=sid, tracks=tracks):
                self._publish(sid, tracks)
            case WithdrawTracks(publisher_sid=sid, sids=sids):
                self._withdraw(sid, sids)
            case BindDataPort(sid=sid, port=port):
                if sid in self.members:
                    self.members[sid].data_port = port
            case PublishData():
                self._data.publish(message)
            case PublishDataTrackFrames(sender_sid=sid, frames=frames):
                if sid in self.members:
                    self._data.publish_frames(self.members[sid], frames)
            case RouteDataTracks(sid=sid, handles=handles):
                if sid in self.members:
                    self._data.route(sid, handles)
            case RestrictSubscribers(sid=sid, permission=permission):
                if sid in self.members:
                    self.members[sid].restriction = permission
            case StoreDataBlob(sid=sid, blob=blob):
                if sid in self.members:
                    self._data.store_blob(sid, blob)
            case WantDataBlob():
                self._data.find_blob(message)
            case QualityChanged() | QualityTick():
                self._on_quality(message)
            case SpeakerLevel() | SpeakerTick():
                self._on_speakers(message)
            case SimulatedSpeaker(sid=sid, level=level, active=active):
                speaker = models.SpeakerInfo(sid=sid, level=level, active=active)
                self._broadcast(SpeakersUpdated((speaker,)))
            case CongestionChanged(sid=sid, congested=congested):
                self._data.congestion(sid, congested)
            case FirstSubscription(publisher_sid=sid, track_sid=track_sid):
                self.tell(sid, TrackSubscribedTo(track_sid))
            case Terminated(ref=ref, exit=exit):
                self._terminated(ref, exit)
            case UpdateTick():
                for infos in self._updates.take():
                    self._broadcast(PeersUpdated(infos))
            case RoomTick():
                self._room_timer = None
                self._tell_room(self._info())
            case ExpiryTick():
                self._expire()
            case Restarted():
                pass
            case GetRoom() | ListParticipants() | UpdateRoomMetadata() | CloseRoom():
                return self._on_api(message)
            case _:
                return self._dispatching.handle(message)
        return None

    def receive_now(self, message: RoomMessage) -> object:
        """What the API asks for most."""
        match message:
            case FindParticipant(identity=identity):
                return self._find(identity)
            case PublishData():
                self._data.publish(message)
                return None
            case GetRoom() | ListParticipants() | UpdateRoomMetadata():
                return self._on_api(message)
            case _:
                return NOT_NOW

    def _find(self, identity: str) -> ActorRef[ParticipantMessage] | None:
        member = self.by_identity(identity)
        return member.ref if member is not None and not member.forwarded else None

    def _on_api(self, message: GetRoom | ListParticipants | UpdateRoomMetadata | CloseRoom) -> object:
        match message:
            case GetRoom():
                return self._info()
            case ListParticipants():
                return tuple(member.info for member in self.members.values())
            case UpdateRoomMetadata(metadata=metadata):
                self._model.metadata = metadata
                self.log("room.metadata")
                info = self._info()
                self._tell_room(info)
                self._report()
                return info
            case CloseRoom(reason=reason):
                self._close(reason)
                return None
            case _:
                assert_never(message)

    # -- members ----------------------------------------------------------------------------------------------------

    async def _join(self, join: Join) -> Joined | JoinRefused:
        intent, limit = join.intent, self._model.max_participants
        if self._closing:
            return JoinRefused(503, "room is closing")
        old = self.by_identity(intent.identity)
        permission = to_participant_permission(intent.claims.video)
        dependent = permission.agent or permission.recorder or intent.claims.kind in ("agent", "egress")
        counted = sum(not member.dependent for member in self.members.values() if member is not old)
        if limit and not dependent and counted >= limit:
            # The reference exposes no finer reason (livekit-surface 1.6).
            return JoinRefused(500, "connection closed by media")
        if old is not None:
            self.log("participant.duplicate_identity", old.sid)
            self._remove(old, DUPLICATE_IDENTITY)
        sid = new_sid("PA_", self._services.rng)
        self._model.joined()
        spec = ParticipantSpec(
            services=self._services,
            room=self.context.ref,
            room_model=self._model,
            room_info=self._info(extra=0 if dependent else 1),
            intent=intent,
            sid=sid,
            connection=join.connection,
            sink=join.sink,
            others=tuple(member.info for member in self.members.values() if not member.hidden),
            tracks=tuple(track for member in self.members.values() for track in member.tracks.values()),
        )
        placeholder = models.ParticipantInfo(
            sid=sid, identity=intent.identity, state=State.JOINING, permission=permission
        )
        try:
            ref = await self.context.spawn(lambda: ParticipantActor(spec), sid, restart=Restart.TEMPORARY)
        except StartFailed as error:
            self.log("participant.start_failed", repr(error.__cause__), intent.identity)
            return JoinRefused(500, "connection closed by media")
        self.context.watch(ref)
        self.members[sid] = Member(sid, intent.identity, ref, placeholder, permission.hidden, dependent)
        self.log("participant.joined", sid, intent.identity)
        self._report()
        return Joined(ref)

    def _adopt(self, message: AdoptForwarded) -> None:
        """A participant of another room is heard and seen here; what happens here does not reach it."""
        info = message.info
        if self._closing or info.sid in self.members:
            return
        old = self.by_identity(info.identity)
        if old is not None:
            self._remove(old, DUPLICATE_IDENTITY)
        self.context.watch(message.participant)
        tracks = {track.sid: track for track in message.tracks}
        self.members[info.sid] = Member(
            info.sid, info.identity, message.participant, info, info.permission.hidden, dependent=True,
            tracks=tracks, forwarded=True,
        )  # fmt: skip
        self.log("participant.forwarded", info.sid, info.identity)
        self._broadcast(PeersUpdated((info,)), only=info.sid if info.permission.hidden else None)
        self._broadcast(TracksPublished(message.tracks))
        self._report()

    def _changed(self, sid: str, info: models.ParticipantInfo, quiet: bool) -> None:
        member = self.members.get(sid)
        if member is None or info.version < member.info.version:
            return
        if quiet:
            member.info = info
            return
        before, member.info, member.hidden = member.info, info, info.permission.hidden
        if info.state == ACTIVE:
            self._report()
            if not member.forwarded:
                self._services.journal.publish(self._news.changed(info, self._info()))
            if member.active_seen is False:
                member.active_seen = True
                if not member.forwarded:
                    self._dispatching.joined(member)
                self._quality.update(sid, None)
                if self._quality_timer is None:
                    self._quality_timer = self.context.schedule(QUALITY_FIRST, QualityTick())
        if member.hidden:
            self.tell(sid, PeersUpdated((info,)))
        else:
            self._tell_of(info, before)

    def _tell_of(self, info: models.ParticipantInfo, before: models.ParticipantInfo) -> None:
        """Everyone; in a large room perhaps a moment later, together with others (`lkactor.room.updates`)."""
        if len(self.members) <= SMALL_ROOM or not can_wait(before, info):
            self._updates.told(info.sid)
            self._broadcast(PeersUpdated((info,)))
            return
        self.tell(info.sid, PeersUpdated((info,)))
        if self._updates.add(info):
            self.context.schedule(INTERVAL, UpdateTick())

    def _resumed(self, sid: str, connection: int) -> None:
        """The order of livekit-surface 2.6: everyone, then the room."""
        infos = tuple(m.info for m in self.members.values() if not m.hidden or m.sid == sid)
        self.tell(sid, PeersUpdated(infos))
        self.tell(sid, RoomUpdated(self._info()))
        self.tell(sid, ResumeAnswered(connection))

    def _left(self, sid: str, info: models.ParticipantInfo) -> None:
        member = self.members.get(sid)
        if member is not None:
            self._forget(member, info)

    def _terminated(self, ref: ActorRef[Any], exit: Exit) -> None:
        """A participant that ended without a farewell: it crashed or was killed."""
        member = next((m for m in self.members.values() if m.ref == ref), None)
        if member is None:
            return
        self.log("participant.terminated", exit.name.lower(), member.identity)
        info = models.ParticipantInfo()
        info.CopyFrom(member.info)
        info.version += 1
        info.state = State.DISCONNECTED
        info.disconnect_reason = models.DisconnectReason.UNKNOWN_REASON
        self._forget(member, info)

    def _remove(self, member: Member, reason: int) -> None:
        """Send a participant away; its own farewell finds it already forgotten."""
        info = models.ParticipantInfo()
        info.CopyFrom(member.info)
        info.version += 1
        info.state = State.DISCONNECTED
        info.disconnect_reason = reason  # type: ignore[assignment]
        self._forget(member, info)
        if not member.forwarded:
            self._tell_ref(member.ref, Disconnect(reason, Action.DISCONNECT))  # type: ignore[arg-type]

    def _forget(self, member: Member, info: models.ParticipantInfo) -> None:
        del self.members[member.sid]
        self._data.forget(member.sid)
        self._quality.forget(member.sid)
        self._speakers.forget(member.sid)
        self.log("participant.left", models.DisconnectReason.Name(info.disconnect_reason), member.identity)
        if member.tracks:
            self._broadcast(TracksWithdrawn(tuple(member.tracks)))
        if not member.hidden:
            self._tell_of(info, member.info)
        if not member.forwarded:
            self._services.journal.publish(self._news.left(info, self._info()))
            self._dispatching.left(member)
        if not any(not m.dependent for m in self.members.values()):
            self._model.emptied(current_time())
            self._watch_expiry()
        self._report()

    def send_away(self, identity: str, reason: int) -> None:
        """If it is still here."""
        member = self.by_identity(identity)
        if member is not None:
            self._remove(member, reason)

    def by_identity(self, identity: str) -> Member | None:
        return next((m for m in self.members.values() if m.identity == identity), None)

    # -- tracks -----------------------------------------------------------------------------------------------------

    def _publish(self, sid: str, tracks: tuple[TrackHandle, ...]) -> None:
        member = self.members.get(sid)
        if member is None:
            return
        member.tracks.update((track.sid, track) for track in tracks)
        self._broadcast(TracksPublished(tracks), but=sid)
        if not member.forwarded:
            self._dispatching.published(member)

    def _withdraw(self, sid: str, sids: tuple[str, ...]) -> None:
        member = self.members.get(sid)
        if member is None:
            return
        for track_sid in sids:
            member.tracks.pop(track_sid, None)
        self._broadcast(TracksWithdrawn(sids), but=sid)

    # -- speakers ---------------------------------------------------------------------------------------------------

    def _on_speakers(self, message: SpeakerLevel | SpeakerTick) -> None:
        if isinstance(message, SpeakerLevel):
            if message.sid in self.members:
                self._speakers.update(message.sid, message.level)
            if self._speaker_timer is None:
                interval = self._services.config.audio.update_interval / 1000
                self._speaker_timer = self.context.schedule(interval, SpeakerTick())
            return
        self._speaker_timer = None
        changes = tuple(
            models.SpeakerInfo(sid=change.sid, level=change.level, active=change.active)
            for change in self._speakers.changes()
        )
        if changes:
            self._broadcast(SpeakersUpdated(changes))

    # -- quality ----------------------------------------------------------------------------------------------------

    def _on_quality(self, message: QualityChanged | QualityTick) -> None:
        if isinstance(message, QualityChanged):
            if message.sid in self.members:
                self._quality.update(message.sid, message.score)
            return
        infos = self._quality.changes()
        if infos:
            self._broadcast(QualitiesUpdated({info.participant_sid: info for info in infos}))
        self._quality_timer = self.context.schedule(QUALITY_INTERVAL, QualityTick()) if self.members else None

    # -- life span --------------------------------------------------------------------------------------------------

    def _watch_expiry(self) -> None:
        at = self._model.expires_at()
        if at is not None:
            self.context.schedule(max(0.0, at - current_time()) + 0.001, ExpiryTick())

    def _expire(self) -> None:
        at = self._model.expires_at()
        if at is not None and at <= current_time():
            self._close(models.DisconnectReason.ROOM_CLOSED)

    def _close(self, reason: int) -> None:
        if self._closing:
            return
        self._closing = True
        self._end_reason = reason
        self._dispatching.closed()
        for member in list(self.members.values()):
            if member.forwarded:
                continue
            self._tell_ref(member.ref, Disconnect(reason, Action.DISCONNECT))  # type: ignore[arg-type]
        self.context.stop("closed")

    # -- small things -----------------------------------------------------------------------------------------------

    @property
    def services(self) -> Services:
        return self._services

    @property
    def sid(self) -> str:
        return self._model.sid

    def info(self) -> models.Room:
        return self._info()

    def _info(self, extra: int = 0) -> models.Room:
        members = self.members.values()
        return self._model.info(
            participants=sum(not member.dependent for member in members) + extra,
            publishers=sum(member.info.is_publisher for member in members),
            recording=any(member.info.permission.recorder for member in members),
        )

    def _report(self) -> None:
        """The room as such has changed: the rooms hear of it at once, the participants in batches."""
        info = self._info()
        if info is self._reported:
            return  # Nothing has changed (`RoomModel.info`).
        self._reported = info
        self._rooms.tell(RoomChanged(info))
        if info.active_recording != self._told.active_recording:
            self._tell_room(info)
        elif info != self._told and self._room_timer is None:
            self._room_timer = self.context.schedule(ROOM_UPDATE_INTERVAL, RoomTick())

    def _tell_room(self, info: models.Room) -> None:
        self._told = info
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        self._broadcast(RoomUpdated(info))

    def _broadcast(self, message: ParticipantMessage, *, but: str = "", only: str | None = None) -> None:
        for member in list(self.members.values()):
            if member.sid != but and not member.forwarded and (only is None or member.sid == only):
                self._tell_ref(member.ref, message)

    def tell(self, sid: str, message: ParticipantMessage) -> None:
        member = self.members.get(sid)
        if member is not None:
            self._tell_ref(member.ref, message)

    def _tell_ref(self, ref: ActorRef[ParticipantMessage], message: ParticipantMessage) -> None:
        """A participant that cannot take a message has lost its place: state would diverge in silence."""
        at_once = isinstance(message, AT_ONCE) and not self.context.turn_is_long
        try:
            if not at_once or ref.ask_now(message) is NOT_NOW:
                ref.tell(message)
        except MailboxFull:
            self.log("participant.mailbox_full", ref.path)
            ref.kill()
        except ActorDead:
            pass  # Terminated is on its way.

    def log(self, event: str, detail: str = "", participant: str = "") -> None:
        self._services.events.record(current_time(), self._model.name, participant, event, detail)


DUPLICATE_IDENTITY = models.DisconnectReason.DUPLICATE_IDENTITY
