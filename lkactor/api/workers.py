"""Egress, Ingress and SIP: services whose work is done by workers elsewhere. Without workers the reference refuses.

Source: livekit-surface 3.4.
"""

from __future__ import annotations

from google.protobuf.message_factory import GetMessageClass
from livekit.protocol import egress, ingress, sip

from lkactor.api.twirp import Method, TwirpError
from lkactor.auth import Claims

SERVICES = {
    "Egress": egress.DESCRIPTOR.services_by_name["Egress"],
    "Ingress": ingress.DESCRIPTOR.services_by_name["Ingress"],
    "SIP": sip.DESCRIPTOR.services_by_name["SIP"],
}


def method(service: str, name: str) -> Method | None:
    """None: there is no such method."""
    found = SERVICES[service].methods_by_name.get(name)
    return None if found is None else Method(GetMessageClass(found.input_type))


def authorize(service: str, name: str, claims: Claims | None) -> None:
    """Raises TwirpError("unauthenticated")."""
    video = claims.video if claims is not None else None
    allowed = {
        "Egress": video is not None and video.room_record,
        "Ingress": video is not None and video.ingress_admin,
        "SIP": claims is not None,
    }[service]
    if not allowed:
        raise TwirpError("unauthenticated", "permissions denied")


def not_connected(service: str) -> TwirpError:
    return TwirpError("internal", f"{service.lower()} not connected (redis required)")
