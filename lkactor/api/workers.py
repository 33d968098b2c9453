"""Egress, Ingress and SIP: services whose work is done by workers elsewhere. Without workers the reference refuses.

| service | grant |
|---|---|
| Egress | video.roomRecord |
| Ingress | video.ingressAdmin |
| SIP.CreateSIPParticipant | sip.call |
| SIP.TransferSIPParticipant | sip.call, and video.roomAdmin of the participant's room |
| SIP, all else | sip.admin |

Who may not is refused before anything else is looked at, except for a transfer that names no room or nobody. Source:
livekit-surface 3.4.
"""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from livekit.protocol import egress, ingress, sip

from lkactor.api.twirp import Method, TwirpError, relayed
from lkactor.auth import Claims, SipGrant, VideoGrant

SERVICES = {
    "Egress": egress.DESCRIPTOR.services_by_name["Egress"],
    "Ingress": ingress.DESCRIPTOR.services_by_name["Ingress"],
    "SIP": sip.DESCRIPTOR.services_by_name["SIP"],
}


def method(service: str, name: str) -> Method | None:
    """None: there is no such method."""
    found = SERVICES[service].methods_by_name.get(name)
    return None if found is None else Method(GetMessageClass(found.input_type))


def authorize(service: str, name: str, message: Message, claims: Claims | None) -> None:
    """Raises TwirpError: "unauthenticated", or "invalid_argument" for a transfer without room or identity."""
    if isinstance(message, sip.TransferSIPParticipantRequest):
        if not message.room_name:
            raise TwirpError("invalid_argument", "twirp error unknown: Missing room name")
        if not message.participant_identity:
            raise TwirpError("invalid_argument", "twirp error unknown: Missing participant identity")
    if not _allowed(service, name, message, claims):
        raise TwirpError("unauthenticated", "permissions denied")


def _allowed(service: str, name: str, message: Message, claims: Claims | None) -> bool:
    # A token without a video claim grants nothing here, whatever its defaults are elsewhere.
    video = (claims.video if claims is not None else None) or VideoGrant()
    phone = (claims.sip if claims is not None else None) or SipGrant()
    if service == "Egress":
        return video.room_record
    if service == "Ingress":
        return video.ingress_admin
    if isinstance(message, sip.TransferSIPParticipantRequest):
        return phone.call and video.room_admin and video.room == message.room_name
    return phone.call if name == "CreateSIPParticipant" else phone.admin


def not_connected(service: str) -> TwirpError:
    return relayed("internal", f"{service.lower()} not connected (redis required)")
