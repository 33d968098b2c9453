"""VP9 payload descriptor (RFC 9628 section 4.2). Read only: VP9 is never rewritten.

    |I|P|L|F|B|E|V|Z|
    |M| PictureID 7 or 15 bits |        I
    | TID |U| SID |D|                   L
    |   TL0PICIDX   |                   L and not F
    | P_DIFF      |N|  up to 3          P and F
    | N_S |Y|G| ... scalability structure V

The key frame test reads the descriptor alone: with end-to-end encryption the frame header is ciphertext.
"""

from typing import NamedTuple

from lkactor.errors import ProtocolViolation

_MAX_REFERENCES = 3


class Vp9Descriptor(NamedTuple):
    """`size` in bytes. `sizes`: (width, height) per spatial layer, from the scalability structure, or empty."""

    size: int
    picture_id: int | None
    picture_id_bits: int
    inter_predicted: bool
    flexible: bool
    start_of_frame: bool
    end_of_frame: bool
    not_reference_for_upper: bool
    temporal_id: int | None
    switching_up: bool
    spatial_id: int | None
    inter_layer: bool
    tl0picidx: int | None
    references: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


def parse_descriptor(payload: bytes | memoryview) -> Vp9Descriptor:
    """Raises ProtocolViolation("vp9.truncated" | "vp9.flexible_without_picture_id" | "vp9.references")."""
    try:
        return _parse(payload)
    except IndexError:
        raise ProtocolViolation("vp9.truncated") from None


def _parse(payload: bytes | memoryview) -> Vp9Descriptor:
    first = payload[0]
    at = 1
    picture_id = temporal_id = spatial_id = tl0picidx = None
    bits = 0
    switching_up = inter_layer = False
    references: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    flexible = bool(first & 0x10)
    if flexible and not first & 0x80:  # I "MUST be set to 1 in flexible mode"
        raise ProtocolViolation("vp9.flexible_without_picture_id")
    if first & 0x80:
        picture_id, bits = payload[at], 7
        at += 1
        if picture_id & 0x80:
            picture_id, bits = (picture_id & 0x7F) << 8 | payload[at], 15
            at += 1
    if first & 0x20:
        layer = payload[at]
        at += 1
        temporal_id, spatial_id = layer >> 5, layer >> 1 & 7
        switching_up, inter_layer = bool(layer & 0x10), bool(layer & 1)
        if not flexible:
            tl0picidx = payload[at]
            at += 1
    if first & 0x50 == 0x50:
        at, references = _parse_references(payload, at)
    if first & 0x02:
        at, sizes = _parse_structure(payload, at)
    return Vp9Descriptor(
        at,
        picture_id,
        bits,
        bool(first & 0x40),
        flexible,
        bool(first & 0x08),
        bool(first & 0x04),
        bool(first & 0x01),
        temporal_id,
        switching_up,
        spatial_id,
        inter_layer,
        tl0picidx,
        references,
        sizes,
    )


def _parse_references(payload: bytes | memoryview, at: int) -> tuple[int, tuple[int, ...]]:
    found: list[int] = []
    while True:
        if len(found) == _MAX_REFERENCES:
            raise ProtocolViolation("vp9.references")
        byte = payload[at]
        at += 1
        found.append(byte >> 1)
        if not byte & 1:
            return at, tuple(found)


def _parse_structure(payload: bytes | memoryview, at: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Scalability structure (section 4.2.1): sizes are kept, the picture group is walked over."""
    head = payload[at]
    at += 1
    sizes: list[tuple[int, int]] = []
    if head & 0x10:
        for _ in range((head >> 5) + 1):
            width = payload[at] << 8 | payload[at + 1]
            sizes.append((width, payload[at + 2] << 8 | payload[at + 3]))
            at += 4
    if head & 0x08:
        pictures = payload[at]
        at += 1
        for _ in range(pictures):
            at += 1 + (payload[at] >> 2 & 3)
    if at > len(payload):
        raise ProtocolViolation("vp9.truncated")
    return at, tuple(sizes)


def is_keyframe(payload: bytes | memoryview) -> bool:
    """True for the first packet of a picture of the base layer that predicts from nothing. Raises ProtocolViolation."""
    descriptor = parse_descriptor(payload)
    return descriptor.start_of_frame and not descriptor.inter_predicted and not descriptor.spatial_id


def frame_size(payload: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) of the highest spatial layer if the scalability structure is here. Raises ProtocolViolation."""
    sizes = parse_descriptor(payload).sizes
    return sizes[-1] if sizes else None
