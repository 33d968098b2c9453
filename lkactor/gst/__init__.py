"""GStreamer's WebRTC signalling: the server's protocol, and what peers say to each other through it."""

from lkactor.gst.payload import IceCandidate, OfferRequest, PeerSdp, parse_payload, write_sdp
from lkactor.gst.protocol import (
    BRIDGE_PREFIX,
    BridgeClosed,
    BridgeMessage,
    BridgeWanted,
    Close,
    GstEvent,
    Send,
    SignallingServer,
    asked_room,
)

__all__ = [
    "BRIDGE_PREFIX",
    "BridgeClosed",
    "BridgeMessage",
    "BridgeWanted",
    "Close",
    "GstEvent",
    "IceCandidate",
    "OfferRequest",
    "PeerSdp",
    "Send",
    "SignallingServer",
    "asked_room",
    "parse_payload",
    "write_sdp",
]
