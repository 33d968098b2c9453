"""What TURN adds to STUN: methods, attributes, long-term credentials (RFC 8656 sections 17 and 18, RFC 8489 9.2)."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from typing import NamedTuple

from lkactor.errors import ProtocolViolation
from lkactor.wire import stun

ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND = 0x0003, 0x0004, 0x0008, 0x0009
SEND_INDICATION, DATA_INDICATION = 0x0016, 0x0017
SUCCESS, ERROR = 0x0100, 0x0110
"""Added to a request's type for its answers."""
REQUESTS = frozenset((ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND))

CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS, DATA = 0x000C, 0x000D, 0x0012, 0x0013
REALM, NONCE, XOR_RELAYED_ADDRESS, REQUESTED_ADDRESS_FAMILY = 0x0014, 0x0015, 0x0016, 0x0017
EVEN_PORT, REQUESTED_TRANSPORT, RESERVATION_TOKEN = 0x0018, 0x0019, 0x0022
ADDITIONAL_ADDRESS_FAMILY, ADDRESS_ERROR_CODE, SOFTWARE = 0x8000, 0x8001, 0x8022
KNOWN = frozenset(
    (stun.USERNAME, stun.MESSAGE_INTEGRITY, REALM, NONCE, 0x001C, CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS, DATA,
     REQUESTED_ADDRESS_FAMILY, EVEN_PORT, REQUESTED_TRANSPORT, RESERVATION_TOKEN)
)  # fmt: skip
"""DONT-FRAGMENT is not among them: we cannot set that bit, so RFC 8656 7.2 wants it treated as unknown."""

UDP_PROTOCOL = 17
FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x4FFF
REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    508: "Insufficient Capacity",
}
_ATTRIBUTE = struct.Struct(">HH")


class Peer(NamedTuple):
    """A transport address (always UDP)."""

    ip: str
    port: int


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """RFC 8489 9.2.2, MD5. The strings are taken as prepared already."""
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).digest()


def build(kind: int, transaction: bytes, attributes: list[tuple[int, bytes]], key: bytes | None = None) -> bytes:
    """A message with FINGERPRINT, and MESSAGE-INTEGRITY by `key` unless it is None."""
    body = b"".join(_ATTRIBUTE.pack(at, len(value)) + value + bytes(-len(value) % 4) for at, value in attributes)
    if key is not None:
        body += _ATTRIBUTE.pack(stun.MESSAGE_INTEGRITY, 20) + _digest(key, kind, transaction, body)
    head = _head(kind, len(body) + 8, transaction)
    crc = zlib.crc32(head + body) ^ stun.FINGERPRINT_XOR
    return head + body + _ATTRIBUTE.pack(stun.FINGERPRINT, 4) + crc.to_bytes(4, "big")


def signed_by(message: stun.Message, key: bytes) -> bool:
    """Whether MESSAGE-INTEGRITY is there and right (RFC 8489 14.5)."""
    offset = message.integrity_offset
    if not offset:
        return False
    expected = _digest(key, message.kind, message.transaction, message.raw[20:offset])
    return hmac.compare_digest(expected, message.attributes[stun.MESSAGE_INTEGRITY])


def _head(kind: int, length: int, transaction: bytes) -> bytes:
    return struct.pack(">HHI", kind, length, stun.MAGIC) + transaction


def _digest(key: bytes, kind: int, transaction: bytes, body: bytes) -> bytes:
    return hmac.digest(key, _head(kind, len(body) + 24, transaction) + body, hashlib.sha1)


def peers_of(message: stun.Message) -> list[Peer]:
    """Every XOR-PEER-ADDRESS, of which a CreatePermission may have several. Raises ProtocolViolation."""
    values, raw = [], message.raw
    at, end = 20, message.integrity_offset or len(raw)
    while at + 4 <= end:
        attribute, size = _ATTRIBUTE.unpack_from(raw, at)
        if attribute == XOR_PEER_ADDRESS:
            values.append(raw[at + 4 : at + 4 + size])
        at += 4 + size + (-size % 4)
    return [address_of(value, message.transaction) for value in values]


def address_of(value: bytes, transaction: bytes) -> Peer:
    """An XOR-... address. Raises ProtocolViolation("turn.address")."""
    probe = stun.Message(0, transaction, {stun.XOR_MAPPED_ADDRESS: value})
    address = probe.mapped_address
    if address is None:
        raise ProtocolViolation("turn.address")
    return Peer(*address)


def text_of(message: stun.Message, attribute: int, limit: int = 763) -> str | None:
    """A text attribute; None when it is missing, too long (RFC 8489 14) or no UTF-8."""
    value = message.attributes.get(attribute)
    if value is None or len(value) > limit:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def channel_data(channel: int, data: bytes, *, stream: bool) -> bytes:
    """RFC 8656 12.4: padded to four bytes on a stream, not in a datagram."""
    framed = _ATTRIBUTE.pack(channel, len(data)) + data
    return framed + bytes(-len(data) % 4) if stream else framed


def parse_channel_data(data: bytes) -> tuple[int, bytes]:
    """Raises ProtocolViolation("turn.channel_data"). Padding behind the data is let pass."""
    if len(data) < 4:
        raise ProtocolViolation("turn.channel_data")
    channel, size = _ATTRIBUTE.unpack_from(data)
    if size > len(data) - 4 or not FIRST_CHANNEL <= channel <= LAST_CHANNEL:
        raise ProtocolViolation("turn.channel_data")
    return channel, data[4 : 4 + size]
