"""Redundant audio data (RFC 2198)."""

from __future__ import annotations

from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

MAX_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class RedBlock:
    """`timestamp_offset` is how much older than the packet's timestamp the block is; 0 for the primary."""

    payload_type: int
    timestamp_offset: int
    start: int
    end: int


def parse(payload: bytes | memoryview) -> list[RedBlock]:
    """Redundant blocks, oldest first, then the primary. Raises ProtocolViolation("red.malformed")."""
    heads: list[tuple[int, int, int]] = []
    at, size = 0, len(payload)
    while True:
        if at >= size or len(heads) > MAX_BLOCKS:
            raise ProtocolViolation("red.malformed")
        if payload[at] < 128:
            heads.append((payload[at], 0, -1))
            at += 1
            break
        if at + 4 > size:
            raise ProtocolViolation("red.malformed")
        rest = (payload[at + 1] << 16) | (payload[at + 2] << 8) | payload[at + 3]
        heads.append((payload[at] & 127, rest >> 10, rest & 1023))
        at += 4
    blocks = []
    for payload_type, offset, length in heads:
        end = size if length < 0 else at + length
        if end > size:
            raise ProtocolViolation("red.malformed")
        blocks.append(RedBlock(payload_type, offset, at, end))
        at = end
    return blocks


def with_payload_type(payload: bytes | memoryview, payload_type: int) -> bytes:
    """The same blocks under the receiver's number for their codec."""
    out, at = bytearray(payload), 0
    while at < len(out):
        follows = out[at] & 128
        out[at] = follows | payload_type
        if not follows:
            break
        at += 4
    return bytes(out)
