"""STUN messages (RFC 8489) with the attributes that ICE needs (RFC 8445 section 16).

Comprehension-optional attributes that we do not know are skipped, never echoed: libwebrtc sends DTLS flights in some
(0xC070, 0xC071).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import struct
import zlib
from dataclasses import dataclass, field

from lkactor.errors import ProtocolViolation

MAGIC = 0x2112A442
_MAGIC_BYTES = b"\x21\x12\xa4\x42"
_HEADER = struct.Struct(">HH4s12s")
_ATTRIBUTE = struct.Struct(">HH")
FINGERPRINT_XOR = 0x5354554E

BINDING_REQUEST, BINDING_INDICATION, BINDING_SUCCESS, BINDING_ERROR = 0x0001, 0x0011, 0x0101, 0x0111

USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES = 0x0006, 0x0008, 0x0009, 0x000A
XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE = 0x0020, 0x0024, 0x0025
FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING = 0x8028, 0x8029, 0x802A
KNOWN_REQUIRED = frozenset(
    (0x0001, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES, 0x0014, 0x0015, 0x001C,
     XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE)
)  # fmt: skip
MAX_ATTRIBUTES = 64


@dataclass(slots=True)
class Message:
    """One message. `raw` and `integrity_offset` are kept for checking what was received."""

    kind: int
    transaction: bytes
    attributes: dict[int, bytes] = field(default_factory=dict)
    raw: bytes = b""
    integrity_offset: int = 0

    def check_integrity(self, password: str) -> bool:
        """MESSAGE-INTEGRITY over the message up to it, the length field adjusted (RFC 8489 14.5)."""
        offset = self.integrity_offset
        if not offset:
            return False
        signed = self.raw[:2] + struct.pack(">H", offset + 24 - 20) + self.raw[4:offset]
        expected = hmac.digest(password.encode(), signed, hashlib.sha1)
        return hmac.compare_digest(expected, self.attributes[MESSAGE_INTEGRITY])

    @property
    def username(self) -> str | None:
        value = self.attributes.get(USERNAME)
        return value.decode("utf-8", "replace") if value is not None else None

    @property
    def error_code(self) -> int | None:
        value = self.attributes.get(ERROR_CODE)
        return (value[2] & 7) * 100 + value[3] if value is not None and len(value) >= 4 else None

    @property
    def mapped_address(self) -> tuple[str, int] | None:
        value = self.attributes.get(XOR_MAPPED_ADDRESS)
        return _decode_address(value, self.transaction) if value is not None else None

    def number(self, attribute: int) -> int | None:
        """An integer attribute: PRIORITY (32 bits), a role's tie-breaker (64)."""
        value = self.attributes.get(attribute)
        return int.from_bytes(value, "big") if value is not None and len(value) in (4, 8) else None

    @property
    def unknown_required(self) -> list[int]:
        return [kind for kind in self.attributes if kind < 0x8000 and kind not in KNOWN_REQUIRED]


def is_stun(data: bytes) -> bool:
    return len(data) >= 20 and data[0] < 4 and data[4:8] == _MAGIC_BYTES


def parse(data: bytes) -> Message:
    """Raises ProtocolViolation("stun....")."""
    if not is_stun(data):
        raise ProtocolViolation("stun.header")
    kind, length, _, transaction = _HEADER.unpack_from(data)
    if length % 4 or length != len(data) - 20:
        raise ProtocolViolation("stun.length")
    message = Message(kind, transaction, raw=data)
    at, end, attributes = 20, len(data), message.attributes
    while at < end:
        attribute, size = _ATTRIBUTE.unpack_from(data, at)
        value_end = at + 4 + size
        if value_end > end:
            raise ProtocolViolation("stun.truncated")
        if attribute == FINGERPRINT:
            _check_fingerprint(data, at, size)
        elif message.integrity_offset:
            pass  # Whatever follows MESSAGE-INTEGRITY is not covered by it (RFC 8489 14.5).
        elif attribute == MESSAGE_INTEGRITY:
            if size != 20:
                raise ProtocolViolation("stun.integrity_length")
            message.integrity_offset = at
            attributes[attribute] = data[at + 4 : value_end]
        elif attribute not in attributes:
            attributes[attribute] = data[at + 4 : value_end]
            if len(attributes) > MAX_ATTRIBUTES:
                raise ProtocolViolation("stun.too_many_attributes")
        at = value_end + (-size % 4)
    return message


def _check_fingerprint(data: bytes, at: int, size: int) -> None:
    if size != 4 or at + 8 != len(data):
        raise ProtocolViolation("stun.fingerprint")
    expected = zlib.crc32(data[:at]) ^ FINGERPRINT_XOR
    if expected != int.from_bytes(data[at + 4 : at + 8], "big"):
        raise ProtocolViolation("stun.fingerprint")


def build(
    kind: int,
    transaction: bytes,
    attributes: list[tuple[int, bytes]],
    password: str | None,
    *,
    fingerprint: bool = True,
) -> bytes:
    """A message; MESSAGE-INTEGRITY with `password` unless it is None, then FINGERPRINT."""
    body = b"".join(_ATTRIBUTE.pack(at, len(value)) + value + bytes(-len(value) % 4) for at, value in attributes)
    if password is not None:
        head = _HEADER.pack(kind, len(body) + 24, _MAGIC_BYTES, transaction)
        digest = hmac.digest(password.encode(), head + body, hashlib.sha1)
        body += _ATTRIBUTE.pack(MESSAGE_INTEGRITY, 20) + digest
    if fingerprint:
        head = _HEADER.pack(kind, len(body) + 8, _MAGIC_BYTES, transaction)
        crc = zlib.crc32(head + body) ^ FINGERPRINT_XOR
        return head + body + _ATTRIBUTE.pack(FINGERPRINT, 4) + crc.to_bytes(4, "big")
    return _HEADER.pack(kind, len(body), _MAGIC_BYTES, transaction) + body


def stun_ufrag(data: bytes) -> str | None:
    """The part of USERNAME before the colon: the ufrag of the agent that is addressed. None if there is none.

    For the mux: looks no further than it must.
    """
    if not is_stun(data):
        return None
    at, end = 20, len(data)
    while at + 4 <= end:
        attribute, size = _ATTRIBUTE.unpack_from(data, at)
        if at + 4 + size > end:
            return None
        if attribute == USERNAME:
            head, colon, _ = data[at + 4 : at + 4 + size].partition(b":")
            return head.decode("ascii") if colon and len(head) <= 256 and head.isascii() else None
        at += 4 + size + (-size % 4)
    return None


def xor_address(ip: str, port: int, transaction: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (RFC 8489 14.2)."""
    packed = _packed(ip)
    size = len(packed)
    mask = int.from_bytes((_MAGIC_BYTES + transaction)[:size], "big")
    xored = (int.from_bytes(packed, "big") ^ mask).to_bytes(size, "big")
    return struct.pack(">BBH", 0, 1 if size == 4 else 2, port ^ (MAGIC >> 16)) + xored


@functools.lru_cache(maxsize=4096)
def _packed(ip: str) -> bytes:
    """Every check of a peer asks for the same one."""
    return ipaddress.ip_address(ip.partition("%")[0]).packed


def _decode_address(value: bytes, transaction: bytes) -> tuple[str, int] | None:
    size = {1: 4, 2: 16}.get(value[1]) if len(value) >= 8 else None
    if size is None or len(value) != 4 + size:
        return None
    mask = _MAGIC_BYTES + transaction
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return str(ipaddress.ip_address(packed)), int.from_bytes(value[2:4], "big") ^ (MAGIC >> 16)


def error_value(code: int, reason: str) -> bytes:
    """The value of ERROR-CODE."""
    return bytes((0, 0, code // 100, code % 100)) + reason.encode()
