"""What a session reports: small, frozen, and the same for every server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from livekit.protocol import models, rtc

if TYPE_CHECKING:
    from lkactor.client.tracks import RemoteTrack


@dataclass(frozen=True, slots=True)
class Joined:
    join: rtc.JoinResponse


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    info: models.ParticipantInfo


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    info: models.ParticipantInfo


@dataclass(frozen=True, slots=True)
class ParticipantChanged:
    info: models.ParticipantInfo


@dataclass(frozen=True, slots=True)
class TrackPublished:
    participant: models.ParticipantInfo
    track: models.TrackInfo


@dataclass(frozen=True, slots=True)
class TrackUnpublished:
    participant: models.ParticipantInfo
    track: models.TrackInfo


@dataclass(frozen=True, slots=True)
class TrackSubscribed:
    track: RemoteTrack


@dataclass(frozen=True, slots=True)
class TrackEnded:
    track: RemoteTrack


@dataclass(frozen=True, slots=True)
class DataReceived:
    packet: models.DataPacket


@dataclass(frozen=True, slots=True)
class SpeakersChanged:
    speakers: tuple[models.SpeakerInfo, ...]


@dataclass(frozen=True, slots=True)
class RoomChanged:
    room: models.Room


@dataclass(frozen=True, slots=True)
class QualityChanged:
    updates: tuple[rtc.ConnectionQualityInfo, ...]


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection broke; the session goes on if it can. `reason` is what broke."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """`resumed`: as the same participant. Otherwise a new one, with new SIDs, and its tracks published again."""

    resumed: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Left:
    """The end. `reason` is a DisconnectReason's name, or what broke."""

    reason: str


SessionEvent = (
    Joined
    | ParticipantJoined
    | ParticipantLeft
    | ParticipantChanged
    | TrackPublished
    | TrackUnpublished
    | TrackSubscribed
    | TrackEnded
    | DataReceived
    | SpeakersChanged
    | RoomChanged
    | QualityChanged
    | Reconnecting
    | Reconnected
    | Left
)
