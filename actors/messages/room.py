"""What a room actor is told, by the front, its participants and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livekit.protocol import models, rtc

from actors.kernel import ActorRef, Restarted, Terminated
from actors.messages.agents import DispatchMessage
from actors.messages.participant import ParticipantMessage, SignalSink, TrackHandle
from actors.messages.transport import TransportMessage
from lkactor.signal.join import JoinIntent

# -- from the front (asked)


@dataclass(frozen=True, slots=True)
class Join:
    """A new session. Answer: Joined or JoinRefused."""

    intent: JoinIntent
    connection: int
    sink: SignalSink


@dataclass(frozen=True, slots=True)
class FindParticipant:
    """Answer: ActorRef or None."""

    identity: str


@dataclass(frozen=True, slots=True)
class Joined:
    participant: ActorRef[ParticipantMessage]


@dataclass(frozen=True, slots=True)
class JoinRefused:
    status: int
    text: str


# -- from participants


@dataclass(frozen=True, slots=True)
class ParticipantChanged:
    """New public info of a participant. `quiet`: for the room's own copy, the others need not be told."""

    sid: str
    info: models.ParticipantInfo
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class PublishTracks:
    publisher_sid: str
    tracks: tuple[TrackHandle, ...]


@dataclass(frozen=True, slots=True)
class WithdrawTracks:
    publisher_sid: str
    sids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BindDataPort:
    """Where the data of this participant goes from now on."""

    sid: str
    port: ActorRef[TransportMessage]


@dataclass(frozen=True, slots=True)
class OutboundData:
    """One data message of a participant, stamped; `destinations` are identities, empty means all others."""

    reliable: bool
    payload: bytes
    destinations: frozenset[str]
    destination_sids: frozenset[str]


@dataclass(frozen=True, slots=True)
class PublishData:
    """All data messages of one burst, in order. `sender_sid` is empty for the server's own."""

    sender_sid: str
    messages: tuple[OutboundData, ...]


@dataclass(frozen=True, slots=True)
class DataTrackFrame:
    """One packet of a data track, with the publisher's handle still in it."""

    track_sid: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class PublishDataTrackFrames:
    """All data track packets of one burst."""

    sender_sid: str
    frames: tuple[DataTrackFrame, ...]


@dataclass(frozen=True, slots=True)
class RouteDataTracks:
    """All data tracks that a participant receives from now on: track sid to the handle it knows it by."""

    sid: str
    handles: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RestrictSubscribers:
    """Who may subscribe to this participant's tracks; None: everybody."""

    sid: str
    permission: rtc.SubscriptionPermission | None


@dataclass(frozen=True, slots=True)
class StoreDataBlob:
    sid: str
    blob: models.DataBlob


@dataclass(frozen=True, slots=True)
class WantDataBlob:
    """Answered with DataBlobFound."""

    sid: str
    request: rtc.GetDataBlobRequest


@dataclass(frozen=True, slots=True)
class QualityChanged:
    """The worst of a participant's streams, 0 to 100; None: nothing to score."""

    sid: str
    score: float | None


@dataclass(frozen=True, slots=True)
class SpeakerLevel:
    """The louder of a participant's microphones, linear 0..1."""

    sid: str
    level: float


@dataclass(frozen=True, slots=True)
class SimulatedSpeaker:
    """SimulateScenario: everyone is told, whatever is heard."""

    sid: str
    level: float
    active: bool


@dataclass(frozen=True, slots=True)
class CongestionChanged:
    """A participant's reliable data queue is too long, or short again."""

    sid: str
    congested: bool


@dataclass(frozen=True, slots=True)
class FirstSubscription:
    """A track has its first subscriber: its publisher is told."""

    publisher_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class AdoptForwarded:
    """A participant of another room whose media is to be had here. It hears nothing of this room."""

    participant: ActorRef[ParticipantMessage]
    info: models.ParticipantInfo
    tracks: tuple[TrackHandle, ...]


@dataclass(frozen=True, slots=True)
class ParticipantResumed:
    """A client is back: it is sent everyone's state, for it may have missed any of it."""

    sid: str
    connection: int


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """The session is over; the last info has state DISCONNECTED and the reason."""

    sid: str
    info: models.ParticipantInfo


# -- from the API (asked)


@dataclass(frozen=True, slots=True)
class GetRoom:
    """Answer: models.Room."""


@dataclass(frozen=True, slots=True)
class ListParticipants:
    """Answer: tuple of models.ParticipantInfo."""


@dataclass(frozen=True, slots=True)
class UpdateRoomMetadata:
    """Answer: models.Room."""

    metadata: str


@dataclass(frozen=True, slots=True)
class CloseRoom:
    """Everyone is told to leave, then the room ends. Answer: None."""

    reason: int
    """models.DisconnectReason"""


# -- to itself


@dataclass(frozen=True, slots=True)
class SpeakerTick:
    """The audio interval is over."""


@dataclass(frozen=True, slots=True)
class UpdateTick:
    """To itself: tell what has waited of participants."""


@dataclass(frozen=True, slots=True)
class RoomTick:
    """Participants hear of the room's changes."""


@dataclass(frozen=True, slots=True)
class QualityTick:
    """Connection quality is told, if it has changed."""


@dataclass(frozen=True, slots=True)
class ExpiryTick:
    """The room may have been empty for long enough."""


RoomMessage = (
    Join
    | FindParticipant
    | ParticipantChanged
    | PublishTracks
    | WithdrawTracks
    | BindDataPort
    | PublishData
    | PublishDataTrackFrames
    | RouteDataTracks
    | RestrictSubscribers
    | StoreDataBlob
    | WantDataBlob
    | QualityChanged
    | QualityTick
    | RoomTick
    | UpdateTick
    | SpeakerLevel
    | SimulatedSpeaker
    | CongestionChanged
    | FirstSubscription
    | AdoptForwarded
    | ParticipantResumed
    | ParticipantLeft
    | GetRoom
    | ListParticipants
    | UpdateRoomMetadata
    | CloseRoom
    | DispatchMessage
    | SpeakerTick
    | ExpiryTick
    | Restarted
    | Terminated
)
