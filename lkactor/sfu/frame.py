"""One input packet, looked at once for all legs."""

from __future__ import annotations

from lkactor.sfu.svc import Layers
from lkactor.wire.codecs import vp8
from lkactor.wire.rtp import RtpPacket


class Frame:
    """One input packet as all legs need it."""

    __slots__ = ("descriptor", "extended", "keyframe", "layers", "packet", "payload", "recovered", "timestamp")

    def __init__(
        self,
        packet: RtpPacket,
        extended: int,
        payload: memoryview,
        keyframe: bool,
        descriptor: vp8.Vp8Descriptor | None,
        age: int = 0,
        layers: Layers | None = None,
    ) -> None:
        """`age` > 0: not the packet itself but one before it that came as its redundancy, so much older."""
        self.timestamp = (packet.timestamp - age) & 0xFFFFFFFF
        self.recovered = age > 0
        self.packet = packet
        self.extended = extended
        self.payload = payload
        self.keyframe = keyframe
        self.descriptor = descriptor
        self.layers = layers
