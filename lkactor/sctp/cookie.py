"""The state cookie (RFC 9260 section 5.1.3): what the INIT ACK's sender forgets and the COOKIE ECHO brings back.

Signed, never trusted: HMAC-SHA-256 with a key of this association alone.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import astuple, dataclass

from lkactor.errors import ProtocolViolation

_BODY = struct.Struct(">dIIIIIIIHH??")
_MAC_SIZE = 32


@dataclass(frozen=True, slots=True)
class StateCookie:
    """tie tags: both tags of the association that existed when the INIT came, 0 when there was none."""

    created: float
    local_tag: int
    peer_tag: int
    local_tie_tag: int
    peer_tie_tag: int
    local_tsn: int
    peer_tsn: int
    peer_window: int
    peer_outbound: int
    peer_inbound: int
    forward_tsn: bool
    reconfig: bool

    def sign(self, key: bytes) -> bytes:
        body = _BODY.pack(*astuple(self))
        return hmac.digest(key, body, hashlib.sha256) + body


def verify(data: bytes, key: bytes) -> StateCookie:
    if len(data) != _MAC_SIZE + _BODY.size:
        raise ProtocolViolation("sctp.cookie_length")
    body = data[_MAC_SIZE:]
    if not hmac.compare_digest(hmac.digest(key, body, hashlib.sha256), data[:_MAC_SIZE]):
        raise ProtocolViolation("sctp.cookie_signature")
    return StateCookie(*_BODY.unpack(body))
