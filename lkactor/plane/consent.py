"""The checks of a peer whose path works (RFC 8445 section 7.3, RFC 7675), answered where they are received.

As `consent.c`: nearly all that an idle peer sends. One that is as those before it, and signed, is answered; all others
go up, so that only `lkactor.ice` has rules.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from lkactor.errors import ProtocolViolation
from lkactor.ice import Consent
from lkactor.plane.cells import PackedAddress, SocketCell
from lkactor.wire import stun

_OPTIONAL = 0x8000
"""From here on attributes may be skipped (RFC 8489 section 14)."""
_SOCKADDR_IN = 16
"""Octets; a `struct sockaddr_in6` has more."""
_REQUEST, _SUCCESS = (kind.to_bytes(2, "big") for kind in (stun.BINDING_REQUEST, stun.BINDING_SUCCESS))


class SharedConsent:
    """What the agent has said of the checks on its path (`IceAgent.consent`), and what they are answered with."""

    __slots__ = ("_consent", "_name", "_password", "_role", "_socket", "_usual")

    def __init__(self, socket: SocketCell, address: PackedAddress, consent: Consent) -> None:
        """`socket`: where the checks come in; `address`: from where."""
        self._socket, self._name, self._consent = socket, _name_of(address), consent
        self._password = consent.password.decode()
        self._role = stun.ICE_CONTROLLED if consent.controlling else stun.ICE_CONTROLLING
        self._usual = {stun.USERNAME, stun.MESSAGE_INTEGRITY, stun.PRIORITY}
        """What has to be understood and tells nothing new."""
        if consent.nominated:
            self._usual.add(stun.USE_CANDIDATE)

    def is_path(self, socket: SocketCell, sockaddr: tuple[Any, ...]) -> bool:
        """A datagram that came so came from where the peer's checks do."""
        return socket is self._socket and sockaddr[:2] == self._name

    def answer_to(self, data: bytes) -> bytes | None:
        """None: this is no check that would change nothing."""
        if data[:2] != _REQUEST:
            return None
        try:
            message = stun.parse(data)
        except ProtocolViolation:
            return None
        if not self._is_usual(message):
            return None
        mapped = stun.xor_address(*self._name, message.transaction)
        attributes = [(stun.XOR_MAPPED_ADDRESS, mapped)]
        return stun.build(stun.BINDING_SUCCESS, message.transaction, attributes, self._password)

    def _is_usual(self, message: stun.Message) -> bool:
        attributes, usual = message.attributes, self._usual
        roles = attributes.keys() & {stun.ICE_CONTROLLED, stun.ICE_CONTROLLING}
        return (
            attributes.get(stun.USERNAME) == self._consent.user
            and roles == {self._role}
            and len(attributes[self._role]) == 8
            and len(attributes.get(stun.PRIORITY, b"....")) == 4
            and all(kind in usual or kind >= _OPTIONAL for kind in attributes)
            and message.check_integrity(self._password)
        )


def is_answer(data: bytes) -> bool:
    """To a check of ours. On a path that works it can wait: whether it is right is Python's to say, a moment later."""
    return stun.is_stun(data) and data[:2] == _SUCCESS


def _name_of(address: PackedAddress) -> tuple[str, int]:
    """As `recvfrom` has it."""
    ip = address[8:24] if len(address) > _SOCKADDR_IN else address[4:8]
    return str(ipaddress.ip_address(ip)), int.from_bytes(address[2:4], "big")
