"""Who may call Egress, Ingress and SIP: method by method, as the reference asks (livekit-surface 3.4)."""

import pytest
from livekit.protocol import sip

from lkactor.api import workers
from lkactor.api.twirp import TwirpError
from lkactor.auth import Claims, SipGrant, VideoGrant

ADMIN, CALL, BOTH = SipGrant(admin=True), SipGrant(call=True), SipGrant(admin=True, call=True)
HOST = VideoGrant(room_admin=True, room="hall")


def outcome(service, name, claims, **fields):
    """ "" or the Twirp code."""
    method = workers.method(service, name)
    assert method is not None
    try:
        workers.authorize(service, name, method.request(**fields), claims)
    except TwirpError as error:
        return error.code
    return ""


def claims(video=None, sip=None):
    return Claims(api_key="k", identity="x", expires_at=0.0, video=video, sip=sip)


def every(service):
    return list(workers.SERVICES[service].methods_by_name)


@pytest.mark.parametrize("name", every("SIP"))
def test_sip(name):
    call = {"room_name": "hall", "participant_identity": "phone"} if name == "TransferSIPParticipant" else {}
    right = {
        "CreateSIPParticipant": claims(sip=CALL),
        "TransferSIPParticipant": claims(HOST, CALL),
    }.get(name, claims(sip=ADMIN))
    wrong = claims(HOST, ADMIN) if "Participant" in name else claims(HOST, CALL)
    assert outcome("SIP", name, right, **call) == ""
    for grants in (None, claims(), claims(VideoGrant(room_create=True, room_list=True)), claims(sip=SipGrant()), wrong):
        assert outcome("SIP", name, grants, **call) == "unauthenticated", grants


def test_a_transfer_needs_the_room_it_is_from():
    fields = {"room_name": "hall", "participant_identity": "phone", "transfer_to": "tel:+1"}
    for video in (
        None,
        VideoGrant(room_admin=True, room="other"),
        VideoGrant(room="hall"),
        VideoGrant(room_admin=True),
    ):
        assert outcome("SIP", "TransferSIPParticipant", claims(video, BOTH), **fields) == "unauthenticated"
    assert outcome("SIP", "TransferSIPParticipant", claims(HOST, BOTH), **fields) == ""


@pytest.mark.parametrize("fields", [{"participant_identity": "phone"}, {"room_name": "hall"}, {}])
def test_a_transfer_of_nobody_is_refused_before_the_grant(fields):
    request = sip.TransferSIPParticipantRequest(**fields)
    with pytest.raises(TwirpError) as error:
        workers.authorize("SIP", "TransferSIPParticipant", request, None)
    missing = "participant identity" if "room_name" in fields else "room name"
    assert (error.value.code, str(error.value.message)) == (
        "invalid_argument",
        f"twirp error unknown: Missing {missing}",
    )


@pytest.mark.parametrize(
    ("service", "right"),
    [("Egress", VideoGrant(room_record=True)), ("Ingress", VideoGrant(ingress_admin=True))],
)
def test_egress_and_ingress(service, right):
    others = VideoGrant(room_record=not right.room_record, ingress_admin=not right.ingress_admin, room_admin=True)
    for name in every(service):
        assert outcome(service, name, claims(right)) == ""
        for grants in (None, claims(), claims(sip=BOTH), claims(others)):
            assert outcome(service, name, grants) == "unauthenticated"


def test_there_are_no_other_methods():
    assert workers.method("SIP", "Nonsense") is None
    assert str(workers.not_connected("SIP").message) == "twirp error unknown: sip not connected (redis required)"
