"""ICE, DTLS, SRTP and SCTP as one sans-IO object."""

from lkactor.peer.connection import (
    KeysReady,
    Moved,
    PathChanged,
    PeerConnection,
    PeerEvent,
    PeerState,
    PeerStateChanged,
)

__all__ = ["KeysReady", "Moved", "PathChanged", "PeerConnection", "PeerEvent", "PeerState", "PeerStateChanged"]
