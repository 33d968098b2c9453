"""Can a decoder start at this frame? Whole frames as in files, not RTP payloads."""

from __future__ import annotations

from collections.abc import Iterator

from lkactor.errors import ProtocolViolation

SEQUENCE_HEADER, TEMPORAL_DELIMITER, TILE_LIST, PADDING = 1, 2, 8, 15
MAX_OBUS = 4096


def is_keyframe(mime: str, frame: bytes) -> bool:
    """False for a frame that cannot be read."""
    if not frame:
        return False
    match mime:
        case "video/vp8":
            return not frame[0] & 1  # RFC 6386 section 9.1: the inverse key frame flag
        case "video/vp9":
            return _vp9(frame)
        case "video/av1":
            try:
                return any(header >> 3 & 15 == SEQUENCE_HEADER for header, _, _ in obus(frame))
            except ProtocolViolation:
                return False
        case "video/h264":
            return any(unit[0] & 31 == 5 for unit in nal_units(frame))
    return True


def _vp9(frame: bytes) -> bool:
    """frame_marker 2, profile 2 (reserved bit in profile 3), show_existing_frame, frame_type (VP9 section 6.2)."""
    first = frame[0]
    if first >> 6 != 2:
        return False
    shift = 2 if first & 0x30 == 0x30 else 3
    return not first >> shift & 1 and not first >> shift - 1 & 1


def vp8_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) of a VP8 key frame (RFC 6386 section 9.1), None of another frame."""
    if len(frame) < 10 or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        return None
    return (frame[6] | frame[7] << 8) & 0x3FFF, (frame[8] | frame[9] << 8) & 0x3FFF


def obus(unit: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(header byte, extension byte or nothing, payload) of each OBU in a temporal unit (AV1 section 5.3).

    Raises ProtocolViolation("av1.truncated" | "av1.leb128" | "av1.forbidden_bit" | "av1.obus").
    """
    at = 0
    for _ in range(MAX_OBUS):
        if at >= len(unit):
            return
        header = unit[at]
        if header & 0x80:
            raise ProtocolViolation("av1.forbidden_bit")
        at += 1
        extension = unit[at : at + 1] if header & 4 else b""
        at += header >> 2 & 1
        if header & 2:
            size, at = leb128(unit, at)
        else:
            size = len(unit) - at  # the last one may go without (section 5.3.1)
        if size < 0 or at + size > len(unit):
            raise ProtocolViolation("av1.truncated")
        yield header, extension, unit[at : at + size]
        at += size
    if at < len(unit):
        raise ProtocolViolation("av1.obus")


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """(value, offset after it), of at most eight bytes (AV1 section 4.10.5). Raises ProtocolViolation."""
    value = 0
    for index in range(8):
        if at + index >= len(data):
            raise ProtocolViolation("av1.truncated")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return value, at + index + 1
    raise ProtocolViolation("av1.leb128")


def to_leb128(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def nal_units(data: bytes) -> list[bytes]:
    """NAL units of an Annex B byte stream, without start codes and trailing zeros; empty ones are left out."""
    units = []
    start = data.find(b"\x00\x00\x01")
    while start >= 0:
        following = data.find(b"\x00\x00\x01", start + 3)
        unit = data[start + 3 : following if following >= 0 else len(data)].rstrip(b"\x00")
        if unit:
            units.append(unit)
        start = following
    return units
