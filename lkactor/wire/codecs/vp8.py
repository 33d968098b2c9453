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

    @property
    def fields(self) -> Fields:
        return (
            self.start, self.picture_id, self.picture_id_at, self.wide, self.tl0picidx, self.tl0picidx_at,
            self.tid, self.keyidx, self.keyidx_at, self.size, self.sync,
        )  # fmt: skip

    def begins_keyframe(self, payload: bytes | memoryview) -> bool:
        """Start of partition 0 and the inverse key frame bit clear (RFC 6386 section 9.1)."""
        return self.start and len(payload) > self.size and not payload[self.size] & 1


def _places(flags: int, wide: bool) -> tuple[int, int, int, int]:
    """Where the picture id, TL0PICIDX and the octet of TID, Y and KEYIDX are, -1: nowhere, and where all that ends.
    `flags`: I, L, T, K."""
    picture_at = tl0_at = last_at = -1
    at = 2
    if flags & 8:
        picture_at = at
        at += 2 if wide else 1
    if flags & 4:
        tl0_at = at
        at += 1
    if flags & 3:
        last_at = at
        at += 1
    return picture_at, tl0_at, last_at, at


_PLACES = [_places(flags, wide) for flags in range(16) for wide in (False, True)]
Fields = tuple[bool, int, int, bool, int, int, int, int, int, int, bool]
"""Of a `Vp8Descriptor`, in its order."""
NOTHING: Fields = (False, -1, -1, False, -1, -1, -1, -1, -1, 1, False)
"""A descriptor of one octet, in the midst of a frame."""


def parse_descriptor(payload: bytes | memoryview) -> Vp8Descriptor:
    """Raises ProtocolViolation("vp8.truncated")."""
    return Vp8Descriptor(*read_fields(payload))


def read_fields(payload: bytes | memoryview) -> Fields:
    """The same without an object, for who looks at every packet. Raises ProtocolViolation("vp8.truncated")."""
    try:
        first = payload[0]
        start = first & 0x17 == 0x10
        if first < 0x80:
            return start, -1, -1, False, -1, -1, -1, -1, -1, 1, False
        flags = payload[1]
        wide = flags > 127 and payload[2] > 127
        picture_at, tl0_at, last_at, size = _PLACES[flags >> 3 & 30 | wide]
        picture = tl0 = tid = keyidx = -1
        sync = False
        if picture_at > 0:
            picture = (payload[2] & 127) << 8 | payload[3] if wide else payload[2]
        if tl0_at > 0:
            tl0 = payload[tl0_at]
        if last_at > 0:
            last = payload[last_at]
            if flags & 0x20:
                tid, sync = last >> 6, last & 0x20 > 0
            if flags & 0x10:
                keyidx = last & 31
    except IndexError:
        raise ProtocolViolation("vp8.truncated") from None
    return start, picture, picture_at, wide, tl0, tl0_at, tid, keyidx, last_at, size, sync


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
