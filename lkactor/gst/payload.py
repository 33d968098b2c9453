"""What two peers say to each other through the signalling server: descriptions and candidates as JSON, and one word.

The signalling protocol does not look at it; only the bridge into LiveKit rooms does, as one of the two peers.
Source: livekit-surface section 10, "Payload".
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

OFFER_REQUEST = "OFFER_REQUEST"
MAX_PAYLOAD = 256 * 1024
MAX_CANDIDATE = 1024


@dataclass(frozen=True, slots=True)
class OfferRequest:
    """The peer wants to be offered to."""


@dataclass(frozen=True, slots=True)
class PeerSdp:
    """`kind` is "offer" or "answer"."""

    kind: str
    sdp: str


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """ "candidate:...", empty at the end of the gathering. The section does not matter: everything is bundled."""

    candidate: str


Payload = OfferRequest | PeerSdp | IceCandidate


def parse_payload(text: str) -> Payload:
    """Raises ProtocolViolation("gst.…") for anything else."""
    if text.strip() == OFFER_REQUEST:
        return OfferRequest()
    if len(text) > MAX_PAYLOAD:
        raise ProtocolViolation("gst.payload_too_large")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolViolation("gst.payload_not_json") from None
    if not isinstance(tree, dict):
        raise ProtocolViolation("gst.payload_not_object")
    if "sdp" in tree:
        return _sdp(tree["sdp"])
    if "ice" in tree:
        return _ice(tree["ice"])
    raise ProtocolViolation("gst.payload_unknown")


def _sdp(body: object) -> PeerSdp:
    if not isinstance(body, dict):
        raise ProtocolViolation("gst.bad_sdp")
    kind, sdp = body.get("type"), body.get("sdp")
    if kind not in ("offer", "answer") or not isinstance(sdp, str):
        raise ProtocolViolation("gst.bad_sdp")
    return PeerSdp(str(kind), _clean(sdp))


def _ice(body: object) -> IceCandidate:
    """A browser sends null, or an empty candidate, at the end."""
    if body is None:
        return IceCandidate("")
    candidate = body.get("candidate") if isinstance(body, dict) else None
    if not isinstance(candidate, str) or len(candidate) > MAX_CANDIDATE:
        raise ProtocolViolation("gst.bad_candidate")
    candidate = candidate.removeprefix("a=").strip()
    return IceCandidate(_clean(candidate))


def _clean(text: str) -> str:
    """JSON can escape half of a surrogate pair, which UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def write_sdp(kind: str, sdp: str) -> str:
    """`kind` is "offer" or "answer". Our candidates are all in it, so there is nothing to trickle."""
    return json.dumps({"sdp": {"type": kind, "sdp": sdp}})
