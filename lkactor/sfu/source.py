"""What a track receives, as the parts of its forwarder see it."""

from __future__ import annotations

from lkactor.counters import Counters
from lkactor.sfu.format import TrackFormat
from lkactor.sfu.layers import MAX_LAYERS
from lkactor.sfu.receiver import LayerReceiver
from lkactor.wire.rtp import RtpPacket


class Source:
    """Mutable: layers begin, and another codec's media may take the place of what was announced."""

    __slots__ = ("clock_rate", "codecs", "counters", "format", "layers", "muted")

    def __init__(self, format: TrackFormat) -> None:
        self.layers: list[LayerReceiver | None] = [None] * MAX_LAYERS
        """By number; None: nothing of it has come."""
        self.muted = False
        """The publisher says so: what comes is not for the subscribers."""
        self.counters = Counters()
        self.adopt(format)

    def adopt(self, format: TrackFormat) -> None:
        self.format = format
        self.codecs = {codec.payload_type: codec for codec in format.codecs}
        self.clock_rate = format.codecs[0].clock_rate if format.codecs else 90000

    @property
    def video(self) -> bool:
        return self.format.kind == "video"

    @property
    def receivers(self) -> list[LayerReceiver]:
        """Of the layers that have been sent."""
        return [layer for layer in self.layers if layer is not None]

    def is_red(self, packet: RtpPacket) -> bool:
        """Of a known codec."""
        return self.codecs[packet.payload_type].mime == "audio/red"
