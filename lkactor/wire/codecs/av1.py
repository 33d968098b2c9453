"""AV1 payloads: aggregation header and OBU headers (RTP Payload Format For AV1, section 4.4).

    |Z|Y| W |N|-|-|-|   then OBU elements, each with a leb128 length, the last without if W says how many there are

A key frame begins a coded video sequence: N set, not a continuation, with a sequence header OBU. Frame sizes and
layers come from the dependency descriptor.
"""

from typing import NamedTuple

from lkactor.errors import ProtocolViolation

SEQUENCE_HEADER = 1
_MAX_ELEMENTS = 64


class Av1Obu(NamedTuple):
    """One OBU element that begins in this packet. Layers are None without OBU extension."""

    type: int
    temporal_id: int | None
    spatial_id: int | None


class Av1Packet(NamedTuple):
    """`obus` are the elements that begin here: the continuation of an earlier one is left out."""

    continues: bool
    """Z: the first element continues the one before."""
    continued: bool
    """Y: the last element goes on in the next packet."""
    starts_sequence: bool
    """N"""
    obus: tuple[Av1Obu, ...]


def parse_packet(payload: bytes | memoryview) -> Av1Packet:
    """Raises ProtocolViolation("av1.truncated" | "av1.leb128" | "av1.elements" | "av1.aggregation")."""
    if not payload:
        raise ProtocolViolation("av1.truncated")
    head = payload[0]
    continues, expected = bool(head & 0x80), head >> 4 & 3
    if continues and head & 0x08:  # a packet that begins a sequence cannot continue anything: N requires Z = 0
        raise ProtocolViolation("av1.aggregation")
    obus: list[Av1Obu] = []
    at, index = 1, 0
    while at < len(payload):
        if index >= (expected or _MAX_ELEMENTS):
            raise ProtocolViolation("av1.elements")
        size = len(payload) - at
        if index + 1 != expected:
            size, at = _leb128(payload, at)
        if at + size > len(payload):
            raise ProtocolViolation("av1.truncated")
        if size and not (continues and index == 0):
            obus.append(_parse_header(payload[at : at + size]))
        at += size
        index += 1
    if index < expected:
        raise ProtocolViolation("av1.truncated")
    return Av1Packet(continues, bool(head & 0x40), bool(head & 0x08), tuple(obus))


def _leb128(payload: bytes | memoryview, at: int) -> tuple[int, int]:
    """(value, offset after it), at most eight bytes (AV1 section 4.10.5)."""
    value = 0
    for index in range(8):
        if at + index >= len(payload):
            raise ProtocolViolation("av1.truncated")
        byte = payload[at + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at + index + 1
    raise ProtocolViolation("av1.leb128")


def _parse_header(element: bytes | memoryview) -> Av1Obu:
    head = element[0]
    if not head & 0x04:
        return Av1Obu(head >> 3 & 15, None, None)
    if len(element) < 2:
        raise ProtocolViolation("av1.truncated")
    return Av1Obu(head >> 3 & 15, element[1] >> 5, element[1] >> 3 & 3)


def is_keyframe(payload: bytes | memoryview) -> bool:
    """True for the first packet of a coded video sequence. Raises ProtocolViolation."""
    if not payload or payload[0] & 0x88 != 0x08:  # the rare case first: N without Z
        return False
    return any(obu.type == SEQUENCE_HEADER for obu in parse_packet(payload).obus)
