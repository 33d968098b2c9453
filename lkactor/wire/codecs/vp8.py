"""VP8 payload descriptor (RFC 7741 section 4.2) and what of the frame tag stays readable under E2EE."""

from __future__ import annotations

from dataclasses import dataclass

from lkactor.errors import ProtocolViolation


@dataclass(frozen=True, slots=True)
class Vp8Descriptor:
    """Offsets are into the payload; -1: the field is absent."""

    start: bool
    """First packet of partition 0: of a frame."""
    picture_id: int
    picture_id_at: int
    wide: bool
    """15 bits of picture id."""
    tl0picidx: int
    tl0picidx_at: int
    tid: int
    keyidx: int
    keyidx_at: int
    size: int
    sync: bool = False
    """Y: of higher layers than the base one, this frame needs none before it."""

    def begins_keyframe(self, payload: bytes | memoryview) -> bool:
        """Start of partition 0 and the inverse key frame bit clear (RFC 6386 section 9.1)."""
        return self.start and len(payload) > self.size and not payload[self.size] & 1


Fields = tuple[bool, int, int, bool, int, int, int, int, int, int, bool]
"""Of a `Vp8Descriptor`, in its order."""


def parse_descriptor(payload: bytes | memoryview) -> Vp8Descriptor:
    """Raises ProtocolViolation("vp8.truncated")."""
    return Vp8Descriptor(*read_fields(payload))


def read_fields(payload: bytes | memoryview) -> Fields:
    """The same without an object, for who looks at every packet. Raises ProtocolViolation("vp8.truncated")."""
    try:
        first = payload[0]
        at = 1
        picture_id = picture_at = tl0 = tl0_at = tid = keyidx = keyidx_at = -1
        wide = sync = False
        if first & 0x80:
            flags = payload[at]
            at += 1
            if flags & 0x80:
                picture_at = at
                picture_id = payload[at] & 0x7F
                wide = payload[at] > 127
                at += 1
                if wide:
                    picture_id = (picture_id << 8) | payload[at]
                    at += 1
            if flags & 0x40:
                tl0, tl0_at = payload[at], at
                at += 1
            if flags & 0x30:
                keyidx_at = at
                if flags & 0x20:
                    tid = payload[at] >> 6
                    sync = bool(payload[at] & 0x20)
                if flags & 0x10:
                    keyidx = payload[at] & 31
                at += 1
    except IndexError:
        raise ProtocolViolation("vp8.truncated") from None
    start = bool(first & 0x10) and first & 7 == 0
    return (start, picture_id, picture_at, wide, tl0, tl0_at, tid, keyidx, keyidx_at, at, sync)


def is_keyframe(payload: bytes | memoryview) -> bool:
    """As `Vp8Descriptor.begins_keyframe`; False for a packet without a whole descriptor."""
    try:
        return parse_descriptor(payload).begins_keyframe(payload)
    except ProtocolViolation:
        return False


def frame_size(payload: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) of a key frame."""
    if not is_keyframe(payload):
        return None
    at = parse_descriptor(payload).size
    if len(payload) < at + 10 or bytes(payload[at + 3 : at + 6]) != b"\x9d\x01\x2a":
        return None
    width = payload[at + 6] | (payload[at + 7] << 8)
    height = payload[at + 8] | (payload[at + 9] << 8)
    return width & 0x3FFF, height & 0x3FFF
