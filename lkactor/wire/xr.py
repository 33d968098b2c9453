"""RTCP extended reports (RFC 3611): the two blocks that let a receiver measure round-trip time.

A receiver sends its reference time (RRTR, section 4.4); the other side answers with when it got that and how long it
kept it (DLRR, section 4.5). Other blocks are carried as they are.
"""

import struct
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

_RRTR, _DLRR = 4, 5
_DLRR_ENTRY = struct.Struct(">III")


@dataclass(frozen=True, slots=True)
class XrReferenceTime:
    """`ntp` is 32.32 fixed point seconds since 1900."""

    ntp: int


@dataclass(frozen=True, slots=True)
class XrDlrrEntry:
    """`lrr`: middle 32 bits of the reference time last received; `dlrr`: delay since then in 1/65536 s."""

    ssrc: int
    lrr: int
    dlrr: int


@dataclass(frozen=True, slots=True)
class XrDlrr:
    entries: tuple[XrDlrrEntry, ...]


@dataclass(frozen=True, slots=True)
class XrUnknown:
    """`specific` is the type-specific byte of the block header."""

    block_type: int
    specific: int
    body: bytes


XrBlock = XrReferenceTime | XrDlrr | XrUnknown


@dataclass(frozen=True, slots=True)
class Xr:
    ssrc: int
    blocks: tuple[XrBlock, ...]


def decode(body: bytes) -> Xr:
    """The packet after its RTCP header. Raises ProtocolViolation("rtcp.xr")."""
    if len(body) < 4:
        raise ProtocolViolation("rtcp.xr")
    blocks: list[XrBlock] = []
    at = 4
    while at < len(body):
        if at + 4 > len(body):
            raise ProtocolViolation("rtcp.xr")
        start = at + 4
        end = start + 4 * int.from_bytes(body[at + 2 : at + 4], "big")
        if end > len(body):
            raise ProtocolViolation("rtcp.xr")
        blocks.append(_decode_block(body[at], body[at + 1], body[start:end]))
        at = end
    return Xr(int.from_bytes(body[:4], "big"), tuple(blocks))


def _decode_block(kind: int, specific: int, body: bytes) -> XrBlock:
    if kind == _RRTR:
        if len(body) != 8:
            raise ProtocolViolation("rtcp.xr")
        return XrReferenceTime(int.from_bytes(body, "big"))
    if kind == _DLRR:
        if len(body) % 12:
            raise ProtocolViolation("rtcp.xr")
        return XrDlrr(tuple(XrDlrrEntry(*entry) for entry in _DLRR_ENTRY.iter_unpack(body)))
    return XrUnknown(kind, specific, body)


def encode(packet: Xr) -> bytes:
    """The inverse of `decode`."""
    return packet.ssrc.to_bytes(4, "big") + b"".join(map(_encode_block, packet.blocks))


def _encode_block(block: XrBlock) -> bytes:
    match block:
        case XrReferenceTime(ntp=ntp):
            kind, specific, body = _RRTR, 0, ntp.to_bytes(8, "big")
        case XrDlrr(entries=entries):
            kind, specific = _DLRR, 0
            body = b"".join(_DLRR_ENTRY.pack(entry.ssrc, entry.lrr, entry.dlrr) for entry in entries)
        case XrUnknown(block_type=kind, specific=specific, body=body):
            pass
    return struct.pack(">BBH", kind, specific, len(body) // 4) + body
