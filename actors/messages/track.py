"""What a track actor is told, and what travels on its media link."""

from __future__ import annotations

from dataclasses import dataclass

from livekit.protocol import models

from lkactor.sdp import ReceiveMedia
from lkactor.sfu import Leg
from lkactor.wire.rtcp import ReportBlock, SenderReport
from lkactor.wire.rtp import RtpPacket

# -- on the media link: one item per burst, never per packet


@dataclass(frozen=True, slots=True)
class MediaBurst:
    """Packets of one layer in arrival order; `codec` is the mime of a backup codec, "" the primary."""

    layer: int
    packets: list[RtpPacket]
    codec: str = ""


@dataclass(frozen=True, slots=True)
class PlaneNews:
    """Packets have gone past Python: their audio levels, and what is missing between them, are to be taken."""


@dataclass(frozen=True, slots=True)
class PublisherReport:
    """A sender report of the publisher for one layer."""

    layer: int
    report: SenderReport
    arrival: float
    codec: str = ""


@dataclass(frozen=True, slots=True)
class LegNack:
    leg: Leg
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LegKeyFrameRequest:
    """PLI or FIR of a subscriber."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class LegReport:
    """A receiver report block about one leg whose player is told how long to wait."""

    leg: Leg
    block: ReportBlock


@dataclass(frozen=True, slots=True)
class LegProbe:
    """So many octets more are to go out on this leg now, to see whether they arrive."""

    leg: Leg
    octets: int


LinkItem = MediaBurst | PlaneNews | PublisherReport | LegNack | LegKeyFrameRequest | LegReport | LegProbe


# -- control


@dataclass(frozen=True, slots=True)
class AddLeg:
    """A subscriber's transport grants a row of the forwarding table. Adding the same leg again changes nothing."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class RemoveLeg:
    leg: Leg


@dataclass(frozen=True, slots=True)
class LegSettings:
    """What a subscriber asked of a track (UpdateTrackSettings). May come before its leg."""

    subscriber: str
    """Participant sid."""
    disabled: bool
    quality: int
    width: int
    height: int
    fps: int


@dataclass(frozen=True, slots=True)
class LimitLeg:
    """What the subscriber's downlink has room for: layers up to these, or with `halted` nothing."""

    leg: Leg
    layer: int
    temporal: int
    halted: bool


@dataclass(frozen=True, slots=True)
class SetPublisherMuted:
    muted: bool


@dataclass(frozen=True, slots=True)
class AddCodec:
    """The media of a backup codec (a mime, lower case) is there. `regress`: everybody is to get it who can."""

    codec: str
    media: ReceiveMedia
    layers: tuple[models.VideoLayer, ...]
    regress: bool


@dataclass(frozen=True, slots=True)
class RemoveCodec:
    codec: str


@dataclass(frozen=True, slots=True)
class TrackTick:
    """To itself: a timer of the forwarder or of dynacast is due."""


@dataclass(frozen=True, slots=True)
class QualityWindow:
    """To itself: a window of the quality score is over."""


TrackMessage = (
    AddLeg | RemoveLeg | LegSettings | LimitLeg | SetPublisherMuted | AddCodec | RemoveCodec | TrackTick | QualityWindow
)
