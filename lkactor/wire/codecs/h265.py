"""H.265 payloads (RFC 7798 section 4.4), without DONL: WebRTC never negotiates sprop-max-don-diff above 0.

|F|   type 6   | layer 6 | TID+1 3 |      type 0..47 single | 48 AP | 49 FU | 50 PACI
"""

from collections.abc import Iterator

from lkactor.errors import ProtocolViolation

VPS, SPS, PPS = 32, 33, 34
AP, FU = 48, 49
_KEY_TYPES = frozenset((*range(16, 24), VPS, SPS, PPS))
"""IRAP pictures (BLA, IDR, CRA, reserved) and the parameter sets before them (H.265 table 7-1)."""


def nal_types(payload: bytes | memoryview) -> Iterator[int]:
    """Types of the NAL units that start in this packet. Raises ProtocolViolation("h265.truncated")."""
    if len(payload) < 2:
        raise ProtocolViolation("h265.truncated")
    kind = (payload[0] >> 1) & 0x3F
    if kind < AP:
        yield kind
    elif kind == FU:
        if len(payload) < 3:
            raise ProtocolViolation("h265.truncated")
        if payload[2] & 0x80:  # S
            yield payload[2] & 0x3F
    elif kind == AP:
        at = 2
        while at < len(payload):
            size = int.from_bytes(payload[at : at + 2], "big")
            if size < 2 or at + 2 + size > len(payload):
                raise ProtocolViolation("h265.truncated")
            yield (payload[at + 2] >> 1) & 0x3F
            at += 2 + size


def is_keyframe(payload: bytes | memoryview) -> bool:
    """True when a parameter set or an IRAP picture starts in this packet. Raises ProtocolViolation."""
    return any(kind in _KEY_TYPES for kind in nal_types(payload))


def temporal_id(payload: bytes | memoryview) -> int:
    """Temporal layer, 0..6 (section 1.1.4). Raises ProtocolViolation("h265.truncated" | "h265.temporal_id")."""
    if len(payload) < 2:
        raise ProtocolViolation("h265.truncated")
    if not payload[1] & 7:  # nuh_temporal_id_plus1 of zero is forbidden
        raise ProtocolViolation("h265.temporal_id")
    return (payload[1] & 7) - 1
