"""TURN on a stream: STUN messages and ChannelData one after the other, each multiple of four long (RFC 8656 12.4)."""

from __future__ import annotations

from lkactor.errors import ProtocolViolation

MAX_MESSAGE = 8192
"""Above any datagram that is worth relaying."""


class TurnReader:
    """Cuts a stream into messages. Holds at most one incomplete one."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """What is complete now. Raises ProtocolViolation("turn.stream"): give the stream up."""
        buffer = self._buffer
        buffer += data
        messages, at = [], 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at + 2 : at + 4], "big")
            kind = buffer[at] >> 6
            if kind == 0:
                total = 20 + size
            elif kind == 1:
                total = 4 + size + (-size % 4)
            else:
                raise ProtocolViolation("turn.stream")
            if total > MAX_MESSAGE or (kind == 0 and size % 4):
                raise ProtocolViolation("turn.stream")
            if len(buffer) - at < total:
                break
            messages.append(bytes(buffer[at : at + total]))
            at += total
        del buffer[:at]
        return messages
