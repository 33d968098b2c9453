"""SCTP on the wire (RFC 9260 section 3, RFC 3758 section 3, RFC 6525 sections 3 and 4). Pure functions.

A packet is a 12-byte common header (ports, verification tag, CRC32c) and chunks; a chunk is type, flags, length and
value, padded to 4 bytes; many values end in parameters of the same shape with a 16-bit type. Parsers raise
`ProtocolViolation` and nothing else.

The two highest bits of an unknown type say what to do with it (RFC 9260 sections 3.2 and 3.2.1):

| bits | the rest of the packet / parameter list | report |
|------|------------------------------------------|--------|
| 00   | stop                                     | no     |
| 01   | stop                                     | yes    |
| 10   | go on                                    | no     |
| 11   | go on                                    | yes    |
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import google_crc32c

from lkactor.errors import ProtocolViolation

PORT = 5000
HEADER_SIZE = 12
DATA_HEADER_SIZE = 16
TSN_MASK = 0xFFFFFFFF
TSN_HALF = 0x80000000

UNORDERED, BEGIN, END, IMMEDIATE = 0x04, 0x02, 0x01, 0x08
"""DATA flags: U, B, E (RFC 9260 section 3.3.1) and I, "SACK at once" (RFC 7053)."""
TAG_REFLECTED = 0x01
"""ABORT and SHUTDOWN COMPLETE flag T: the verification tag is the receiver's own view of the peer's."""


class ChunkType(IntEnum):
    DATA = 0
    INIT = 1
    INIT_ACK = 2
    SACK = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14
    RE_CONFIG = 130
    FORWARD_TSN = 192


class Cause(IntEnum):
    """Error causes (RFC 9260 section 3.3.10)."""

    INVALID_STREAM = 1
    STALE_COOKIE = 3
    UNRECOGNIZED_CHUNK = 6
    NO_USER_DATA = 9
    USER_ABORT = 12
    PROTOCOL_VIOLATION = 13


PARAM_HEARTBEAT_INFO = 1
PARAM_STATE_COOKIE = 7
PARAM_UNRECOGNIZED = 8
PARAM_RESET_OUTGOING = 13
PARAM_RESET_INCOMING = 14
PARAM_RESET_TSN = 15
PARAM_RECONFIG_RESPONSE = 16
PARAM_ADD_OUTGOING = 17
PARAM_ADD_INCOMING = 18
PARAM_SUPPORTED_EXTENSIONS = 0x8008
PARAM_FORWARD_TSN = 0xC000

_KNOWN_INIT_PARAMS = frozenset({5, 6, 7, 8, 9, 11, 12, 0x8000, 0x8002, 0x8003, 0x8004, 0x8008, 0xC000, 0xC006})
"""Understood, or of no meaning over DTLS (addresses, host name, ECN, AUTH, adaptation layer)."""

_COMMON = struct.Struct(">HHII")
_CHUNK = struct.Struct(">BBH")
_PARAM = struct.Struct(">HH")
_DATA = struct.Struct(">BBHIHHI")
_INIT = struct.Struct(">IIHHI")
_SACK = struct.Struct(">IIHH")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

Chunk = tuple[int, int, bytes]
"""type, flags, value without padding"""
Param = tuple[int, bytes]


def checksum(data: bytes) -> bytes:
    """CRC32c in the order SCTP puts it on the wire (RFC 9260 appendix A)."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def build_packet(tag: int, chunks: Iterable[bytes]) -> bytes:
    """chunks: finished chunks, already padded."""
    body = b"".join(chunks)
    ports_and_tag = _COMMON.pack(PORT, PORT, tag, 0)
    packet = ports_and_tag + body
    return packet[:8] + checksum(packet) + body


def build_chunk(kind: int, flags: int = 0, value: bytes = b"") -> bytes:
    return _CHUNK.pack(kind, flags, 4 + len(value)) + value + _PAD[len(value) & 3]


def build_param(kind: int, value: bytes = b"") -> bytes:
    return _PARAM.pack(kind, 4 + len(value)) + value + _PAD[len(value) & 3]


def build_data(tsn: int, stream: int, ssn: int, ppid: int, flags: int, data: bytes) -> bytes:
    size = len(data)
    header = _DATA.pack(ChunkType.DATA, flags, DATA_HEADER_SIZE + size, tsn, stream, ssn, ppid)
    return header + data + _PAD[size & 3]


def parse_packet(data: bytes) -> tuple[int, list[Chunk]]:
    """Verification tag and chunks. A truncated last chunk is a violation of the whole packet."""
    size = len(data)
    if size < HEADER_SIZE + 4:
        raise ProtocolViolation("sctp.truncated")
    source, destination, tag, _ = _COMMON.unpack_from(data)
    if source == 0 or destination == 0:
        raise ProtocolViolation("sctp.port_zero")
    if checksum(data[:8] + b"\0\0\0\0" + data[12:]) != data[8:12]:
        raise ProtocolViolation("sctp.checksum")
    chunks: list[Chunk] = []
    offset = HEADER_SIZE
    while offset < size:
        if size - offset < 4:
            raise ProtocolViolation("sctp.chunk_truncated")
        kind, flags, length = _CHUNK.unpack_from(data, offset)
        if length < 4 or offset + length > size:
            raise ProtocolViolation("sctp.chunk_length")
        chunks.append((kind, flags, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return tag, chunks


def parse_params(data: bytes, offset: int = 0) -> list[Param]:
    params: list[Param] = []
    size = len(data)
    while offset < size:
        if size - offset < 4:
            raise ProtocolViolation("sctp.param_truncated")
        kind, length = _PARAM.unpack_from(data, offset)
        if length < 4 or offset + length > size:
            raise ProtocolViolation("sctp.param_length")
        params.append((kind, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return params


def must_stop(kind: int, width: int) -> bool:
    """Whether an unknown type of `width` bits ends the processing of what follows it."""
    return not kind >> (width - 1) & 1


def must_report(kind: int, width: int) -> bool:
    return bool(kind >> (width - 2) & 1)


@dataclass(frozen=True, slots=True)
class Init:
    """INIT and INIT ACK (RFC 9260 sections 3.3.2 and 3.3.3)."""

    tag: int
    window: int
    outbound_streams: int
    inbound_streams: int
    initial_tsn: int
    forward_tsn: bool = False
    reconfig: bool = False
    cookie: bytes | None = None
    unrecognized: tuple[bytes, ...] = ()

    def build(self, kind: int) -> bytes:
        fixed = _INIT.pack(self.tag, self.window, self.outbound_streams, self.inbound_streams, self.initial_tsn)
        params = []
        if self.cookie is not None:
            params.append(build_param(PARAM_STATE_COOKIE, self.cookie))
        if self.forward_tsn:
            params.append(build_param(PARAM_FORWARD_TSN))
        extensions = bytes(
            [ChunkType.RE_CONFIG] * self.reconfig + [ChunkType.FORWARD_TSN] * self.forward_tsn,
        )
        if extensions:
            params.append(build_param(PARAM_SUPPORTED_EXTENSIONS, extensions))
        params += [build_param(PARAM_UNRECOGNIZED, param) for param in self.unrecognized]
        return build_chunk(kind, 0, fixed + b"".join(params))


_MAX_REPORTED = 256
"""Bytes of unrecognized parameters echoed in one INIT ACK, so that it cannot outgrow a packet."""


def parse_init(value: bytes) -> Init:
    if len(value) < _INIT.size:
        raise ProtocolViolation("sctp.init_truncated")
    tag, window, outbound, inbound, tsn = _INIT.unpack_from(value)
    if tag == 0 or outbound == 0 or inbound == 0:
        raise ProtocolViolation("sctp.init_zero")
    forward_tsn = reconfig = False
    cookie: bytes | None = None
    unrecognized: list[bytes] = []
    reported = 0
    for kind, content in parse_params(value, _INIT.size):
        if kind == PARAM_STATE_COOKIE:
            cookie = content
        elif kind == PARAM_FORWARD_TSN:
            forward_tsn = True
        elif kind == PARAM_SUPPORTED_EXTENSIONS:
            forward_tsn |= ChunkType.FORWARD_TSN in content
            reconfig |= ChunkType.RE_CONFIG in content
        elif kind not in _KNOWN_INIT_PARAMS:
            if must_report(kind, 16) and reported + len(content) + 8 <= _MAX_REPORTED:
                unrecognized.append(_PARAM.pack(kind, 4 + len(content)) + content)
                reported += len(content) + 8
            if must_stop(kind, 16):
                break
    return Init(tag, window, outbound, inbound, tsn, forward_tsn, reconfig, cookie, tuple(unrecognized))


_DATA_VALUE = struct.Struct(">IHHI")


def parse_data(value: bytes) -> tuple[int, int, int, int, bytes]:
    """tsn, stream, ssn, ppid, user data; the caller refuses an empty one (RFC 9260 section 6.2)."""
    if len(value) < 12:
        raise ProtocolViolation("sctp.data_truncated")
    tsn, stream, ssn, ppid = _DATA_VALUE.unpack_from(value)
    return tsn, stream, ssn, ppid, value[12:]


@dataclass(frozen=True, slots=True)
class Sack:
    """blocks: (start, end) offsets from `cumulative`, both inclusive, in the order received."""

    cumulative: int
    window: int
    blocks: tuple[tuple[int, int], ...] = ()
    duplicates: tuple[int, ...] = ()

    def build(self) -> bytes:
        flat = [offset for block in self.blocks for offset in block]
        fixed = _SACK.pack(self.cumulative, self.window, len(self.blocks), len(self.duplicates))
        tail = struct.pack(f">{len(flat)}H{len(self.duplicates)}I", *flat, *self.duplicates)
        return build_chunk(ChunkType.SACK, 0, fixed + tail)


def parse_sack(value: bytes) -> Sack:
    if len(value) < _SACK.size:
        raise ProtocolViolation("sctp.sack_truncated")
    cumulative, window, blocks, duplicates = _SACK.unpack_from(value)
    if not blocks and not duplicates:
        return Sack(cumulative, window)
    if len(value) < _SACK.size + 4 * (blocks + duplicates):
        raise ProtocolViolation("sctp.sack_truncated")
    flat = struct.unpack_from(f">{2 * blocks}H{duplicates}I", value, _SACK.size)
    pairs = tuple(zip(flat[: 2 * blocks : 2], flat[1 : 2 * blocks : 2], strict=True))
    return Sack(cumulative, window, pairs, flat[2 * blocks :])


def build_forward_tsn(cumulative: int, skipped: Sequence[tuple[int, int]]) -> bytes:
    """skipped: (stream, ssn) of ordered messages given up (RFC 3758 section 3.2)."""
    value = struct.pack(f">I{2 * len(skipped)}H", cumulative, *[n for pair in skipped for n in pair])
    return build_chunk(ChunkType.FORWARD_TSN, 0, value)


def parse_forward_tsn(value: bytes) -> tuple[int, list[tuple[int, int]]]:
    if len(value) < 4 or len(value) % 4:
        raise ProtocolViolation("sctp.forward_tsn_length")
    flat = struct.unpack(f">I{(len(value) - 4) // 2}H", value)
    return flat[0], list(zip(flat[1::2], flat[2::2], strict=True))


def build_cause(cause: int, value: bytes = b"") -> bytes:
    return build_param(cause, value)


@dataclass(frozen=True, slots=True)
class ResetOutgoing:
    """Outgoing SSN Reset Request (RFC 6525 section 4.1). No streams: all."""

    request: int
    response: int
    last_tsn: int
    streams: tuple[int, ...]

    def build(self) -> bytes:
        fixed = struct.pack(">III", self.request, self.response, self.last_tsn)
        return build_param(PARAM_RESET_OUTGOING, fixed + struct.pack(f">{len(self.streams)}H", *self.streams))


def parse_reset_outgoing(value: bytes) -> ResetOutgoing:
    if len(value) < 12 or len(value) % 2:
        raise ProtocolViolation("sctp.reset_length")
    request, response, last_tsn = struct.unpack_from(">III", value)
    return ResetOutgoing(request, response, last_tsn, struct.unpack_from(f">{(len(value) - 12) // 2}H", value, 12))


def parse_request_number(value: bytes) -> int:
    if len(value) < 4:
        raise ProtocolViolation("sctp.reconfig_length")
    return int.from_bytes(value[:4], "big")


def build_reconfig_response(sequence: int, result: int) -> bytes:
    return build_param(PARAM_RECONFIG_RESPONSE, struct.pack(">II", sequence, result))


def parse_reconfig_response(value: bytes) -> tuple[int, int]:
    """response sequence number, result. The optional TSNs matter only to a TSN reset, which we never ask for."""
    if len(value) not in (8, 16):
        raise ProtocolViolation("sctp.reconfig_length")
    sequence, result = struct.unpack_from(">II", value)
    return sequence, result
