"""A subscriber who comes right after a key frame gets that one, and what followed it, out of the history.

A publisher is asked for a key frame twice a second at most (livekit-media 4.4), so of people who join one after the
other each would wait for its turn. What the last key frame began is still there; sent at once it is seen at once. Not
more than AGE of it, and only where a new one cannot be had at once. It is asked for all the same: what is sent right
after an answer may come before the player is ready for it, and not every player asks by itself.
"""

from __future__ import annotations

from lkactor.sfu.receiver import LayerReceiver
from lkactor.wire.rtp import RtpPacket

AGE = 0.5
"""Seconds."""
MOST = 128
"""Packets: what a path takes in one go without loss, more or less."""


class RecentKeyFrames:
    """Where the last key frame of each layer began."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, RtpPacket]] = {}

    def note(self, layer: int, extended: int, packet: RtpPacket) -> None:
        """A packet that a key frame may begin with; there may be several of one frame."""
        known = self._begun.get(layer)
        if known is None or (extended > known[0] and packet.timestamp != known[1].timestamp):
            self._begun[layer] = extended, packet

    def forget(self, layer: int) -> None:
        """Its numbers begin anew."""
        self._begun.pop(layer, None)

    def since(self, layer: int, receiver: LayerReceiver, now: float) -> list[tuple[int, RtpPacket]]:
        """(extended sequence number, packet) from there to the newest. Empty: too old, too many, or one is missing."""
        known = self._begun.get(layer)
        if known is None or now - known[1].arrival > AGE or receiver.highest - known[0] >= MOST:
            return []
        found: list[tuple[int, RtpPacket]] = []
        for extended in range(known[0], receiver.highest + 1):
            packet = receiver.packet(extended)
            if packet is None:
                return []
            found.append((extended, packet))
        return found
