"""Data track packets: what the server needs of their header (livekit-media 5.3).

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
| V   |S|F|X|  reserved         |            handle             |
|       sequence number         |         frame number          |
|                           timestamp                           |
| extension words - 1, if X     | extensions: id, size - 1, data ...
"""

from __future__ import annotations

import struct

from lkactor.errors import ProtocolViolation

HEADER_SIZE = 12
VERSION = 0
_HANDLE = struct.Struct(">H")


def handle_of(packet: bytes) -> int:
    """The publisher's handle of a whole packet. Raises ProtocolViolation."""
    if len(packet) < HEADER_SIZE:
        raise ProtocolViolation("data_track.truncated")
    if packet[0] >> 5 != VERSION:
        raise ProtocolViolation("data_track.version")
    if packet[0] & 0x04:
        if len(packet) < HEADER_SIZE + 2:
            raise ProtocolViolation("data_track.truncated")
        words = _HANDLE.unpack_from(packet, HEADER_SIZE)[0] + 1
        if len(packet) < HEADER_SIZE + 4 * words:
            raise ProtocolViolation("data_track.truncated")
    handle: int = _HANDLE.unpack_from(packet, 2)[0]
    if not handle:
        raise ProtocolViolation("data_track.handle")
    return handle


def with_handle(packet: bytes, handle: int) -> bytes:
    """The same packet as a subscriber knows it."""
    return packet[:2] + _HANDLE.pack(handle) + packet[4:]
