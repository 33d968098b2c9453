"""What both planes have in common that receive by themselves: how a stream is found, and what they can make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lkactor.sfu.format import TrackFormat
from lkactor.sfu.leg import Egress
from lkactor.sfu.receiver import LayerReceiver
from lkactor.wire.rtp import RtpPacket

UP, AUDIO, VP8, H264 = range(4)
"""What a payload type holds: anything, so it goes up; or what it says. As LK_UP and so on in table.h."""
Loss = tuple[int, int, float]
"""The first and the last packet that did not come, by extended sequence number, and when that was seen."""
_KINDS = {"video/vp8": VP8, "video/h264": H264}


def kinds_of(format: TrackFormat) -> dict[int, int]:
    """What can be made of each payload type. Layers inside a stream are Python's to choose from."""
    return {
        codec.payload_type: _KINDS.get(codec.mime, AUDIO if codec.mime.startswith("audio/") else UP)
        for codec in format.codecs
        if codec.mime != format.layered
    }


class FedReceiver(LayerReceiver):
    """A stream whose packets its ingress may take past the actors: from when its SSRC is known, until `release`."""

    __slots__ = ("_ingress",)

    ingress_type: ClassVar[type]
    """Of the same plane; it has `attach` and `detach`."""
    _ingress: Any

    def adopt(self, fanout: Any, ingress: Any, kinds: Mapping[int, int], level_id: int) -> None:
        """Packets of `ingress`, None: of nobody, go to the legs of `fanout`. `kinds`: what each payload type holds."""
        raise NotImplementedError

    def receive(self, packet: RtpPacket) -> int:
        self.note_losses()  # It may be one of those that are missing.
        return super().receive(packet)

    def note_losses(self) -> None:
        for first, last, seen in self.take_losses():
            self.nack.lost(first, last, seen)

    def take_losses(self) -> Sequence[Loss]:
        """What the plane has found missing since the last call."""
        raise NotImplementedError

    def _follow(self, ingress: Any) -> None:
        if ingress is not self._ingress:
            self.release()
            self._ingress = ingress
        self._attach()

    def release(self) -> None:
        """From here on everything goes up."""
        if self._ingress is not None:
            self._ingress.detach(self)
            self._ingress = None

    def _attach(self) -> None:
        if self._ingress is not None and self.ssrc:
            self._ingress.attach(self)

    def _restart(self, ssrc: int) -> None:
        super()._restart(ssrc)
        self._attach()


class FeedingFanout:
    """The half of a `Fanout` that streams are fed to."""

    def __init__(self) -> None:
        self._receivers: set[FedReceiver] = set()

    def feed(self, receiver: LayerReceiver, publisher: Egress | None, format: TrackFormat) -> None:
        if isinstance(receiver, FedReceiver):
            ingress = getattr(publisher, "ingress", None)
            known = ingress if isinstance(ingress, receiver.ingress_type) else None
            self._receivers.add(receiver)
            receiver.adopt(self, known, kinds_of(format), format.level_id)

    def close(self) -> None:
        for receiver in self._receivers:
            receiver.release()
        self._receivers.clear()
