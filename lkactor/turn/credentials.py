"""Who may use the built-in TURN server: user names that prove themselves (livekit-media 1.5).

The user name is base62 of "apiKey|participantSID|expiry" (expiry in Unix seconds), the password base62 of SHA-256 of
"apiSecret|participantSID|expiry". The server keeps nothing: from the user name and its keys it works the password out.
The base62 is jxskiss's: six bits a digit from the low end, but five when the digit would be 62 or 63.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lkactor.errors import ProtocolViolation
from lkactor.turn.message import long_term_key

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_VALUES = {digit: value for value, digit in enumerate(ALPHABET)}
MAX_REMEMBERED = 10_000
_LONG = 0x1E
"""30, 31, 62 and 63 have these bits: digits of five bits, 30 and 31."""


@dataclass(frozen=True, slots=True)
class Account:
    """`user` is whom quotas count: the participant's SID."""

    username: str
    user: str
    key: bytes = field(repr=False)


def base62(data: bytes) -> str:
    number, left, digits = int.from_bytes(data, "big"), len(data) * 8, []
    while left > 0:
        size, value = 6, number & 63
        if value & _LONG == _LONG:
            if left > 6 or value > 31:
                size = 5
            value &= 31
        digits.append(ALPHABET[value])
        number >>= size
        left -= size
    return "".join(digits)


def from_base62(text: str) -> bytes:
    """Without leading zero bytes. Raises ProtocolViolation("turn.username")."""
    number, at = 0, 0
    for digit in text:
        value = _VALUES.get(digit)
        if value is None:
            raise ProtocolViolation("turn.username")
        number |= value << at
        at += 5 if value & _LONG == _LONG else 6
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def issue_credentials(key: str, secret: str, participant_sid: str, expiry: int) -> tuple[str, str]:
    """User name and password, good for an Allocate until `expiry`, for everything else as long as `secret` is."""
    return base62(f"{key}|{participant_sid}|{expiry}".encode()), _password(secret, participant_sid, expiry)


def _password(secret: str, participant_sid: str, expiry: int) -> str:
    return base62(hashlib.sha256(f"{secret}|{participant_sid}|{expiry}".encode()).digest())


class Authenticator:
    """`keys` are asked for at each request, so a reload of them holds at once. `unix` is the time in seconds."""

    def __init__(self, keys: Callable[[], Mapping[str, str]], unix: Callable[[], float], realm: str) -> None:
        self._keys = keys
        self._unix = unix
        self._realm = realm
        self._allocated: dict[str, str] = {}
        """By user name the secret it came in with: what is relayed goes on when its API key is taken away."""

    def __call__(self, username: str, allocating: bool) -> Account | None:
        """None: no such user, or too late for an Allocate. What is allocated already outlives the credentials."""
        try:
            key, sid, expiry = from_base62(username).decode().split("|")
        except (ProtocolViolation, ValueError):  # no UTF-8, not three parts
            return None
        secret = self._keys().get(key) if allocating else self._allocated.get(username) or self._keys().get(key)
        if secret is None or not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12) or not sid:
            return None
        until = int(expiry)
        if until == 0 or (allocating and self._unix() > until):
            return None
        if allocating:
            self._allocated[username] = secret
            if len(self._allocated) > MAX_REMEMBERED:
                del self._allocated[next(iter(self._allocated))]
        return Account(username, sid, long_term_key(username, self._realm, _password(secret, sid, until)))
