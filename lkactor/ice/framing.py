"""RFC 4571: each packet on a stream has its length in two bytes before it."""

from __future__ import annotations

from lkactor.errors import ProtocolViolation

MAX_FRAME = 8192
"""Far above any datagram that we take; a longer one is no packet but garbage."""


def frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


class FrameReader:
    """Reassembles packets. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that are complete now. Raises ProtocolViolation("framing.too_long"): give the stream up."""
        buffer = self._buffer
        buffer += data
        packets, at = [], 0
        while len(buffer) - at >= 2:
            size = (buffer[at] << 8) | buffer[at + 1]
            if size > MAX_FRAME:
                raise ProtocolViolation("framing.too_long")
            if len(buffer) - at - 2 < size:
                break
            if size:
                packets.append(bytes(buffer[at + 2 : at + 2 + size]))
            at += 2 + size
        del buffer[:at]
        return packets
