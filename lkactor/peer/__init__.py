"""ICE, DTLS, SRTP and SCTP as one sans-IO object."""

from lkactor.peer.connection import (
    KeysReady,
    PathChanged,
    PeerConnection,
    PeerEvent,
    PeerState,
    PeerStateChanged,
)

__all__ = ["KeysReady", "PathChanged", "PeerConnection", "PeerEvent", "PeerState", "PeerStateChanged"]
