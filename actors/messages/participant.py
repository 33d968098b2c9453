"""What a participant actor is told: by its client, its transports, its tracks and its room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import trio
from livekit.protocol import models, rtc

from actors.kernel import ActorRef, Restarted, Terminated
from actors.messages.transport import PauseData
from lkactor.auth import Claims
from lkactor.ice import PathKind
from lkactor.peer import PeerState
from lkactor.room.rpc import RpcFailed
from lkactor.sdp import ReceiveMedia
from lkactor.signal.join import JoinParameters
from lkactor.signal.outgoing import Outgoing, SharedSelections, SharedUpdate

Role = Literal["publisher", "subscriber"]


class SignalSink(Protocol):
    """The way to one client's WebSocket. Writes never block."""

    def send(self, response: Outgoing) -> bool:
        """False: the client is too slow or gone, and the connection is being closed."""

    def close(self) -> None:
        """Close once what was sent is flushed."""


# -- from the front


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """One request of the client, from the signal connection `connection`."""

    connection: int
    request: rtc.SignalRequest


@dataclass(frozen=True, slots=True)
class SignalLost:
    """The WebSocket ended, cleanly or not."""

    connection: int


@dataclass(frozen=True, slots=True)
class Resume:
    """The client is back on a new WebSocket and wants its session (asked; True when it goes on)."""

    connection: int
    sink: SignalSink
    parameters: JoinParameters
    claims: Claims


# -- from transports


@dataclass(frozen=True, slots=True)
class TransportAnswer:
    role: Role
    sdp: str
    offer_id: int
    mid_to_track_id: Mapping[str, str]
    media: tuple[ReceiveMedia, ...]


@dataclass(frozen=True, slots=True)
class TransportOffer:
    role: Role
    sdp: str
    offer_id: int
    mid_to_track_id: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """The client answered an offer of ours: on these sections it sends."""

    media: tuple[ReceiveMedia, ...]


@dataclass(frozen=True, slots=True)
class SectionsNeeded:
    """Single peer connection: the server wants an offer with so many more receive sections."""

    audios: int
    videos: int


@dataclass(frozen=True, slots=True)
class NegotiationFailed:
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class TransportStateChanged:
    role: Role
    state: PeerState
    detail: str
    path: PathKind = PathKind.NONE
    """What carries it, or did last."""
    connected_at: float | None = None
    """When ICE found its path, seconds, monotonic; since the last failure."""


@dataclass(frozen=True, slots=True)
class PathMoved:
    """A connection goes on over another path. `detail` is for people."""

    role: Role
    path: PathKind
    detail: str


@dataclass(frozen=True, slots=True)
class ChannelsEnded:
    """The data channels of this transport are gone; its media goes on. Clients that leave end them so, too."""

    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class ChannelsOpen:
    """The reliable and the lossy channel of this transport are open."""

    role: Role


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Data messages of one burst: (reliable, payload)."""

    messages: tuple[tuple[bool, bytes], ...]


@dataclass(frozen=True, slots=True)
class DataTrackReceived:
    """Data track packets of one burst."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DownlinkQuality:
    """The worst of the streams that the client receives, 0 to 100; None: nothing to score."""

    score: float | None


@dataclass(frozen=True, slots=True)
class StreamStates:
    """(track sid, held back) of videos that the client's downlink has no room for, or has again."""

    states: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class SlowReader:
    """The client does not read its reliable data: its send buffer is full."""


@dataclass(frozen=True, slots=True)
class DataCongestion:
    """The client's reliable data queue went over the high, or back under the low, water mark."""

    congested: bool


@dataclass(frozen=True, slots=True)
class TrackReceived:
    """A leg of a subscribed track was granted: the first time the publisher hears of it."""

    track_sid: str


@dataclass(frozen=True, slots=True)
class StreamBound:
    """A layer's stream, its retransmissions, or both are seen for the first time; 0 is not said."""

    mid: str
    layer: int
    ssrc: int
    repair_ssrc: int


@dataclass(frozen=True, slots=True)
class UnsupportedCodec:
    track_sid: str


# -- from tracks


@dataclass(frozen=True, slots=True)
class AudioLevelChanged:
    """Smoothed level of a microphone, linear 0..1; sent each audio interval while there is something to say."""

    track_sid: str
    level: float


@dataclass(frozen=True, slots=True)
class WantedQualityChanged:
    """Dynacast: (mime, highest quality that somebody wants, -1: none) for each codec of a video track in question."""

    track_sid: str
    wanted: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class WantedAudioCodecs:
    """An audio track of several codecs: the mimes that some subscriber needs."""

    track_sid: str
    codecs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UplinkQuality:
    """How well a track arrives, 0 to 100; None: it is muted."""

    track_sid: str
    score: float | None


# -- from the room


@dataclass(frozen=True, slots=True)
class QualitiesUpdated:
    """Connection quality of everybody in the room. One object for all who are told."""

    infos: Mapping[str, rtc.ConnectionQualityInfo]
    """By sid."""
    shared: SharedSelections = field(default_factory=SharedSelections, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DataBlobFound:
    """Answer to WantDataBlob; without a blob, why."""

    request_id: int
    blob: models.DataBlob | None
    why_not: str


@dataclass(frozen=True, slots=True)
class TrackHandle:
    """A published track as the others see it."""

    sid: str
    publisher_sid: str
    publisher_identity: str
    kind: str
    codecs: tuple[tuple[str, str, int], ...]
    """(mime, fmtp, payload type) of the publisher."""
    mimes: tuple[str, ...]
    """What it is, or can be, published as, the codec to be had first: the primary, until the track has regressed to
    its backup; lower case."""
    stereo: bool
    encrypted: bool
    width: int
    height: int
    track: ActorRef[Any]
    allowed: frozenset[str] | None
    """Identities that may subscribe; None: all."""
    stream: str = ""
    """Tracks of one publisher with the same one belong together: "camera", "screen", or the client's own name."""
    trailers: bool = False
    """Its pictures may end in packet trailers."""


@dataclass(frozen=True, slots=True)
class PeersUpdated:
    """Participants that joined, changed or left. One object for all who are told: `shared` is encoded once."""

    infos: tuple[models.ParticipantInfo, ...]
    shared: SharedUpdate = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", SharedUpdate(self.infos))


@dataclass(frozen=True, slots=True)
class TracksPublished:
    tracks: tuple[TrackHandle, ...]


@dataclass(frozen=True, slots=True)
class TracksWithdrawn:
    sids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoomUpdated:
    """One object for all who are told."""

    room: models.Room
    outgoing: Outgoing = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        update = rtc.SignalResponse(room_update=rtc.RoomUpdate(room=self.room))
        object.__setattr__(self, "outgoing", Outgoing(update))


@dataclass(frozen=True, slots=True)
class ResumeAnswered:
    """What the room has to say to a client that came back is said."""

    connection: int


@dataclass(frozen=True, slots=True)
class SpeakersUpdated:
    """One object for all who are told."""

    speakers: tuple[models.SpeakerInfo, ...]
    shared: SharedSelections = field(default_factory=SharedSelections, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TrackSubscribedTo:
    """The first subscription of one of this participant's tracks."""

    track_sid: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the session: Leave with this reason and action, then stop."""

    reason: models.DisconnectReason
    action: int
    send_leave: bool = True


# -- from the API (asked)


@dataclass(frozen=True, slots=True)
class MuteTrack:
    track_sid: str
    muted: bool


@dataclass(frozen=True, slots=True)
class UpdateParticipant:
    name: str
    metadata: str
    attributes: Mapping[str, str]
    permission: models.ParticipantPermission | None


@dataclass(frozen=True, slots=True)
class PerformRpc:
    """Call a method of the client. The result, or why there is none, goes into `reply`, once."""

    method: str
    payload: str
    response_timeout_ms: int
    reply: trio.MemorySendChannel[str | RpcFailed]


@dataclass(frozen=True, slots=True)
class ForwardTo:
    """What this participant publishes is to be had in that room, too. Answer: False when it is forwarded too often."""

    name: str
    room: ActorRef[Any]


@dataclass(frozen=True, slots=True)
class MoveTo:
    """The client is to go on in another room: told so, given a token for it, and sent there."""

    room: models.Room
    others: tuple[models.ParticipantInfo, ...]


@dataclass(frozen=True, slots=True)
class UpdateSubscriptions:
    track_sids: tuple[str, ...]
    subscribe: bool


# -- to itself


@dataclass(frozen=True, slots=True)
class ParticipantTick:
    """A named timer: "join_deadline", "departure", "refresh_token", ..."""

    what: str
    generation: int = 0


ParticipantMessage = (
    PauseData
    | SignalReceived
    | SignalLost
    | Resume
    | TransportAnswer
    | TransportOffer
    | SectionsNeeded
    | MediaChanged
    | NegotiationFailed
    | TransportStateChanged
    | PathMoved
    | ChannelsEnded
    | ChannelsOpen
    | DataReceived
    | DataTrackReceived
    | DownlinkQuality
    | StreamStates
    | WantedQualityChanged
    | WantedAudioCodecs
    | StreamBound
    | UplinkQuality
    | QualitiesUpdated
    | DataBlobFound
    | SlowReader
    | DataCongestion
    | TrackReceived
    | UnsupportedCodec
    | AudioLevelChanged
    | PeersUpdated
    | TracksPublished
    | TracksWithdrawn
    | RoomUpdated
    | ResumeAnswered
    | SpeakersUpdated
    | TrackSubscribedTo
    | Disconnect
    | MuteTrack
    | UpdateParticipant
    | UpdateSubscriptions
    | PerformRpc
    | ForwardTo
    | MoveTo
    | ParticipantTick
    | Restarted
    | Terminated
)
