"""What is known of a track: its codecs, its layers, how much of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livekit.protocol import models

from lkactor.sdp import Codec, ReceiveMedia
from lkactor.wire.extensions import AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR

DEFAULT_THROTTLE = (0.5, 1.0, 1.0)
LAYERED_MIMES = ("video/vp9", "video/av1")


@dataclass(frozen=True, slots=True)
class TrackFormat:
    """What is known of a track when its actor starts."""

    kind: str
    codecs: tuple[Codec, ...]
    """As the publisher sends them, its payload types."""
    layers: tuple[models.VideoLayer, ...]
    simulcast: bool
    encrypted: bool
    history: int
    throttle: tuple[float, float, float] = DEFAULT_THROTTLE
    dependency_id: int = 0
    """The publisher's id of the dependency descriptor, 0 without."""
    screen: bool = False
    level_id: int = 0
    """The publisher's id of the audio level, 0 without."""

    @property
    def mime(self) -> str:
        """Of what comes; "" while nothing is known."""
        return self.codecs[0].mime if self.codecs else ""

    @property
    def layered(self) -> str:
        """The mime of a codec with layers inside its one stream, "" without."""
        mime = self.codecs[0].mime if self.codecs and not self.simulcast else ""
        return mime if mime in LAYERED_MIMES else ""

    @property
    def red_types(self) -> dict[int, int]:
        """The publisher's RED payload types, each with the type of the Opus inside."""
        opus = [codec.payload_type for codec in self.codecs if codec.mime == "audio/opus"]
        return {codec.payload_type: opus[0] if opus else -1 for codec in self.codecs if codec.mime == "audio/red"}


def format_of(
    info: models.TrackInfo,
    media: ReceiveMedia,
    *,
    history: int,
    throttle: tuple[float, float, float],
    layers: Sequence[models.VideoLayer] = (),
) -> TrackFormat:
    """From what AddTrack announced and the offer negotiated; `layers` of a codec that has its own."""
    return TrackFormat(
        kind=media.kind,
        codecs=tuple(media.codecs),
        layers=tuple(layers or info.layers),
        simulcast=bool(media.rids),
        encrypted=info.encryption != models.Encryption.Type.NONE,
        history=history,
        throttle=throttle,
        dependency_id=media.extensions.get(DEPENDENCY_DESCRIPTOR, 0),
        level_id=media.extensions.get(AUDIO_LEVEL, 0) if media.kind == "audio" else 0,
        screen=info.source == models.TrackSource.SCREEN_SHARE,
    )
