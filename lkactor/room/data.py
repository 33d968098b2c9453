"""Data packets on their way through the server: who said it, to whom, and whether it was said before. Pure.

Rules (livekit-media 5.1): the server writes identity and sid (blank for hidden senders), the kind comes from the
channel, reliable sequences must rise per sender, a user packet's nonce is remembered, and of what only agents may say
the rest is dropped. Everything else passes untouched, unknown fields included.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from livekit.protocol import models

from lkactor.counters import Counters

MAX_NONCES = 100
MAX_NONCE = 64
_RELIABLE, _LOSSY = models.DataPacket.Kind.RELIABLE, models.DataPacket.Kind.LOSSY
_NOBODY = frozenset[str]()


@dataclass(frozen=True, slots=True)
class StampedData:
    """Ready to be sent. No destinations: everyone but the sender."""

    reliable: bool
    payload: bytes
    destinations: frozenset[str]
    destination_sids: frozenset[str]


class DataStamper:
    """One sender's outgoing data."""

    def __init__(self, *, sid: str, identity: str) -> None:
        self._sid = sid
        self._identity = identity
        self._nonces: OrderedDict[bytes, None] = OrderedDict()
        self.last_sequence = 0
        """Of the reliable packets; told to the client on resume, which sends what is above again."""
        self.counters = Counters()

    def stamp(self, payload: bytes, *, reliable: bool, hidden: bool, agent: bool) -> StampedData | None:
        """None: dropped, and counted by reason."""
        packet = models.DataPacket()
        try:
            packet.ParseFromString(payload)
        except DecodeError:
            self.counters.count("data.malformed")
            return None
        if reliable and packet.sequence:
            if packet.sequence <= self.last_sequence:
                self.counters.count("data.duplicate_sequence")
                return None
            self.last_sequence = packet.sequence
        kind = packet.WhichOneof("value")
        user = packet.user if kind == "user" else None
        if not self._admit(kind, user, agent):
            return None
        sid, identity = ("", "") if hidden else (self._sid, self._identity)
        packet.kind = _RELIABLE if reliable else _LOSSY
        if not (agent and _speaks_for_another(packet)):
            packet.participant_identity = identity
        packet.participant_sid = sid
        destinations, sids = packet.destination_identities, _NOBODY
        if user is not None:
            # Older clients read the fields of the user packet, newer ones the outer ones: both say the same.
            user.participant_sid, user.participant_identity = sid, identity
            sids = frozenset(user.destination_sids)
            if destinations and not user.destination_identities:
                user.destination_identities.extend(destinations)
            elif not destinations:
                destinations.extend(user.destination_identities)
        return StampedData(reliable, packet.SerializeToString(), frozenset(destinations), sids)

    def _admit(self, kind: str | None, user: models.UserPacket | None, agent: bool) -> bool:
        if kind == "transcription" and not agent:
            self.counters.count("data.transcription_not_agent")
            return False
        if kind == "metrics":
            self.counters.count("data.metrics_not_forwarded")
            return False
        nonce = user.nonce if user is not None else b""
        if len(nonce) > MAX_NONCE:
            nonce = hashlib.sha256(nonce).digest()  # ours are 16 bytes; what is remembered is bounded
        if nonce:
            if nonce in self._nonces:
                self.counters.count("data.duplicate_nonce")
                return False
            self._nonces[nonce] = None
            if len(self._nonces) > MAX_NONCES:
                self._nonces.popitem(last=False)
        return True


def _speaks_for_another(packet: models.DataPacket) -> bool:
    """Agents may relay chat and text streams in somebody's name; they come out marked as generated."""
    if not packet.participant_identity:
        return False
    if packet.HasField("chat_message"):
        packet.chat_message.generated = True
        return True
    if packet.HasField("stream_header") and packet.stream_header.HasField("text_header"):
        packet.stream_header.text_header.generated = True
        return True
    return False
