"""TURN (RFC 8656): a server and a client without I/O."""

from lkactor.turn.client import AllocateFailed, ClientAllocated, PeerData, PermissionRefused, TurnClient
from lkactor.turn.credentials import Account, Authenticator, issue_credentials
from lkactor.turn.framing import TurnReader
from lkactor.turn.policy import PeerPolicy, Quota
from lkactor.turn.server import AllocationEnded, RelayWanted, TurnLimits, TurnServer

__all__ = [
    "Account",
    "AllocateFailed",
    "AllocationEnded",
    "Authenticator",
    "ClientAllocated",
    "PeerData",
    "PeerPolicy",
    "PermissionRefused",
    "Quota",
    "RelayWanted",
    "TurnClient",
    "TurnLimits",
    "TurnReader",
    "TurnServer",
    "issue_credentials",
]
