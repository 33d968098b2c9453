"""What a transport actor is told: one peer connection of one participant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.kernel import ActorRef, MediaLink, Restarted, Terminated
from lkactor.sdp import ReceivePreference


@dataclass(frozen=True, slots=True)
class OutgoingTrack:
    """A track that this peer is to receive. Two with the same `sid` are the same track."""

    sid: str
    stream_id: str
    kind: str
    """"audio" or "video"."""
    codecs: tuple[tuple[str, str, int], ...]
    """(mime, fmtp, payload type) of the publisher, the preferred first; mime in lower case, "video/vp8"."""
    mimes: tuple[str, ...]
    """What it is, or can be, published as; the first of them that the peer can decode is sent."""
    stereo: bool
    encrypted: bool
    track: ActorRef[Any]
    fixed_codec: bool = False
    """The client cannot follow a change of codec in one track: it must see the track end and come again."""
    strips_trailers: bool = False
    """The track has packet trailers and the client does not know them."""


@dataclass(frozen=True, slots=True)
class BindTrack:
    """Packets of section `mid` belong to a track. `rids` maps rid to spatial layer; empty means one layer."""

    mid: str
    link: MediaLink
    layers: Mapping[str, int]
    codec: str = ""
    """The mime of a backup codec; "": the primary."""


@dataclass(frozen=True, slots=True)
class RemoteOffer:
    sdp: str
    offer_id: int
    preferences: Mapping[str, ReceivePreference]
    """By cid: what AddTrack said of the track."""


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    sdp: str
    answer_id: int


@dataclass(frozen=True, slots=True)
class RemoteCandidate:
    """A trickled candidate, "candidate:..."; an empty one ends the gathering."""

    candidate: str


@dataclass(frozen=True, slots=True)
class SetSendTracks:
    """All tracks that this peer is to receive from now on."""

    tracks: tuple[OutgoingTrack, ...]


@dataclass(frozen=True, slots=True)
class SendData:
    """Data messages for the peer, in order: (reliable, payload). Reliable ones wait for the channel to open."""

    messages: tuple[tuple[bool, bytes], ...]


@dataclass(frozen=True, slots=True)
class SendDataTrack:
    """Data track packets for the peer. Late ones are worth nothing: what would wait too long is dropped."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RestartIce:
    """New credentials. A transport that offers sends an offer; one that answers waits for the peer's."""


@dataclass(frozen=True, slots=True)
class UseCandidates:
    """From the next description and the next ICE restart on. `check_timeout`: seconds; None: the usual."""

    tcp_only: bool = False
    check_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class SetChannelCapacity:
    """SimulateScenario: the downlink is to be taken for so many bits per second; 0: for what it is."""

    bitrate: int


@dataclass(frozen=True, slots=True)
class SetTrackPriority:
    """The subscriber's wish: 1..255, the higher goes first when bandwidth is short; 0: as usual."""

    sid: str
    priority: int


@dataclass(frozen=True, slots=True)
class PauseData:
    """Back-pressure: a receiver of this peer's reliable data is behind."""

    paused: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """To itself: a protocol timer is due."""


@dataclass(frozen=True, slots=True)
class FlushData:
    """To itself: data that the owner's mailbox had no room for."""


TransportMessage = (
    BindTrack
    | RemoteOffer
    | RemoteAnswer
    | RemoteCandidate
    | SetSendTracks
    | SendData
    | SendDataTrack
    | RestartIce
    | UseCandidates
    | SetChannelCapacity
    | SetTrackPriority
    | PauseData
    | Tick
    | FlushData
    | Restarted
    | Terminated
)
