"""All codecs of one published track: a forwarder for each, and which of them a subscriber is served from.

| a leg is at     | leaves it                                                                       |
|-----------------|---------------------------------------------------------------------------------|
| the primary     | the track regresses to a backup that the leg can decode                         |
| a backup        | the backup is sent no more and the leg can decode another codec                 |

A leg takes the first codec of the track that its peer can decode; after a regression it is the backup that comes first.
A leg may be at a codec that is not sent (yet): its wish is what makes the publisher start it (livekit-media 3.11). When
a leg moves, its outgoing numbers go on, at the next key frame of the other codec. A client that cannot follow such a
change keeps its leg until its transport, which is told of the track's new order of codecs, replaces it.

Where this differs from the reference: a subscriber that can decode nothing but the primary keeps it after a regression
(there its picture stops), and so the publisher goes on sending both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from livekit.protocol import models

from lkactor.counters import Counters
from lkactor.sdp import ReceiveMedia
from lkactor.sfu.fanout import FanoutMaker, PythonFanout
from lkactor.sfu.format import TrackFormat
from lkactor.sfu.forwarder import TrackForwarder
from lkactor.sfu.leg import Egress, Leg
from lkactor.wire.extensions import AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR
from lkactor.wire.rtp import RtpPacket


def formats_of(
    info: models.TrackInfo,
    media: ReceiveMedia,
    *,
    history: int,
    throttle: tuple[float, float, float],
) -> dict[str, TrackFormat]:
    """All codecs of a track whose primary is sent in section `media`: those that the client could send there, too."""
    formats: dict[str, TrackFormat] = {}
    for index, codec in enumerate(info.codecs or [models.SimulcastCodecInfo(mime_type=info.mime_type)]):
        mime = codec.mime_type.lower()
        listed = tuple(known for known in media.codecs if index == 0 or known.mime == mime)
        if mime not in formats and (listed or index == 0):
            formats[mime] = TrackFormat(
                kind=media.kind,
                codecs=listed,
                layers=tuple(codec.layers or info.layers),
                simulcast=index == 0 and bool(media.rids),
                encrypted=info.encryption != models.Encryption.Type.NONE,
                history=history,
                throttle=throttle,
                dependency_id=media.extensions.get(DEPENDENCY_DESCRIPTOR, 0),
                level_id=media.extensions.get(AUDIO_LEVEL, 0) if media.kind == "audio" and index == 0 else 0,
                screen=info.source == models.TrackSource.SCREEN_SHARE,
            )
    return formats


class Renditions:
    """Codecs are mimes in lower case, the primary first. Verbs as `TrackForwarder`'s."""

    def __init__(self, formats: Mapping[str, TrackFormat], fanouts: FanoutMaker = PythonFanout.of) -> None:
        """`formats` has an entry for each codec of the track, also for those that are not sent yet."""
        self._forwarders = {codec: TrackForwarder(format, fanouts) for codec, format in formats.items()}
        self._primary = next(iter(formats))
        self._sent = {self._primary}
        self._regressed_to: str | None = None
        self.counters = Counters()

    # -- codecs -----------------------------------------------------------------------------------------------------

    @property
    def codecs(self) -> tuple[str, ...]:
        return tuple(self._forwarders)

    @property
    def primary(self) -> TrackForwarder:
        return self._forwarders[self._primary]

    def forwarder(self, codec: str) -> TrackForwarder | None:
        """`codec` "" is the primary; None: no codec of this track."""
        return self._forwarders.get(codec or self._primary)

    def __iter__(self) -> Iterator[TrackForwarder]:
        return iter(self._forwarders.values())

    def set_publisher(self, publisher: Egress) -> None:
        for forwarder in self:
            forwarder.publisher = publisher

    def note_losses(self) -> None:
        """Of packets that only the forwarding plane has seen."""
        for forwarder in self:
            for receiver in forwarder.receivers:
                receiver.note_losses()

    def close(self) -> None:
        """The track is gone, or another one takes over."""
        for forwarder in self:
            forwarder.close()

    def add_codec(self, codec: str, format: TrackFormat) -> bool:
        """Its media is there. False: no codec of this track."""
        forwarder = self._forwarders.get(codec)
        if forwarder is None:
            self.counters.count("track.unannounced_codec")
            return False
        forwarder.set_format(format)
        self._sent.add(codec)
        return True

    def remove_codec(self, codec: str, now: float) -> None:
        """It is sent no more: whoever can do with another codec gets that one."""
        self._sent.discard(codec)
        if self._regressed_to == codec:
            self._regressed_to = None
        self._rearrange(now)

    def regress(self, codec: str, now: float) -> None:
        """From now on this backup is what everybody gets who can decode it."""
        if codec in self._forwarders and self._regressed_to != codec:
            self._regressed_to = codec
            self._rearrange(now)

    # -- legs -------------------------------------------------------------------------------------------------------

    @property
    def legs(self) -> list[Leg]:
        return [leg for forwarder in self for leg in forwarder.legs]

    def of(self, leg: Leg) -> TrackForwarder:
        """Where this leg is served."""
        return self._forwarders.get(leg.codec, self.primary)

    def add_leg(self, leg: Leg, now: float) -> None:
        """Idempotent."""
        if leg in self.of(leg).legs:
            return
        codec = self._choice(leg)
        if leg.codec and leg.codec != codec:
            leg.leave_source()
        leg.codec = codec
        self._forwarders[codec].add_leg(leg, now)

    def remove_leg(self, leg: Leg) -> None:
        self.of(leg).remove_leg(leg)

    def serves(self, codec: str) -> bool:
        """Some subscriber is served, or waits to be served, with this codec."""
        forwarder = self._forwarders.get(codec)
        return forwarder is not None and any(not leg.revoked for leg in forwarder.legs)

    def _choice(self, leg: Leg) -> str:
        if self._regressed_to in leg.codecs:
            return self._regressed_to
        return next((codec for codec in leg.codecs if codec in self._forwarders), self._primary)

    def _rearrange(self, now: float) -> None:
        for leg in self.legs:
            codec = self._choice(leg)
            if codec != leg.codec and not leg.fixed_codec:
                self.of(leg).remove_leg(leg)
                leg.leave_source()
                leg.codec = codec
                self._forwarders[codec].add_leg(leg, now)

    def set_wanted(self, leg: Leg, quality: int, width: int, height: int, now: float, fps: int = 0) -> None:
        self.of(leg).set_wanted(leg, quality, width, height, now, fps)

    def set_limit(self, leg: Leg, layer: int, temporal: int, halted: bool, now: float) -> None:
        self.of(leg).set_limit(leg, layer, temporal, halted, now)

    def set_paused(self, leg: Leg, paused: bool, now: float) -> None:
        self.of(leg).set_paused(leg, paused, now)

    # -- the track --------------------------------------------------------------------------------------------------

    @property
    def muted(self) -> bool:
        return self.primary.muted

    def set_muted(self, muted: bool, now: float) -> None:
        for forwarder in self:
            forwarder.set_muted(muted, now)

    def receive(self, codec: str, layer: int, packets: Sequence[RtpPacket], now: float) -> None:
        """A burst of one layer of one codec, in arrival order."""
        forwarder = self.forwarder(codec)
        if forwarder is None:
            self.counters.count("track.unannounced_codec", len(packets))
        else:
            forwarder.receive(layer, packets, now)

    def wanted(self) -> dict[str, int]:
        """The highest quality of each codec that an open leg wants; -1: none."""
        return {codec: forwarder.wanted_quality() for codec, forwarder in self._forwarders.items()}

    def uplink_window(self, now: float) -> tuple[int, int]:
        """(packets expected, packets lost) of all codecs since the last call."""
        windows = [forwarder.uplink_window(now) for forwarder in self]
        return sum(expected for expected, _ in windows), sum(lost for _, lost in windows)

    def next_timeout(self) -> float | None:
        deadlines = [forwarder.next_timeout() for forwarder in self]
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        for forwarder in self:
            forwarder.handle_timeout(now)
