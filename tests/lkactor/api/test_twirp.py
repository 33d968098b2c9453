"""Twirp: statuses, encodings, bodies that are no messages (livekit-surface 3.1 and 3.2)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import egress, models, room

from lkactor.api import room_service, twirp
from lkactor.api.twirp import TwirpError
from lkactor.auth import Claims, VideoGrant
from lkactor.config import LimitConfig

STATUS = {
    "canceled": 408, "unknown": 500, "internal": 500, "data_loss": 500, "invalid_argument": 400, "malformed": 400,
    "out_of_range": 400, "deadline_exceeded": 408, "not_found": 404, "bad_route": 404, "permission_denied": 403,
    "failed_precondition": 412, "aborted": 409, "already_exists": 409, "unimplemented": 501, "unavailable": 503,
    "unauthenticated": 401, "resource_exhausted": 429,
}  # fmt: skip


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_statuses_and_bodies(code, status):
    error = TwirpError(code, 'no "room"')
    assert error.status == status
    assert json.loads(error.body()) == {"code": code, "msg": 'no "room"'}
    assert json.loads(TwirpError(code, "m", {"a": "b"}).body())["meta"] == {"a": "b"}


@pytest.mark.parametrize(
    ("kind", "json_"),
    [("application/json", True), ("Application/JSON; charset=utf-8", True), ("application/protobuf", False)],
)
def test_content_types(kind, json_):
    assert twirp.is_json(kind, "POST /x") is json_


@pytest.mark.parametrize("kind", ["", "text/plain", "application/jsonx", "application/x-protobuf", "x" * 9999])
def test_other_content_types(kind):
    with pytest.raises(TwirpError, match="unexpected Content-Type") as refused:
        twirp.is_json(kind, "POST /x")
    assert refused.value.status == 404
    assert refused.value.meta == {"twirp_invalid_route": "POST /x"}
    assert len(refused.value.body()) < 250


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "r", "emptyTimeout": 5, "unknown": [1]}',
        b'{"name": "r", "empty_timeout": "5"}',
    ],
)
def test_json_takes_both_spellings_and_unknown_fields(body):
    message = twirp.decode(body, room.CreateRoomRequest, as_json=True)
    assert message == room.CreateRoomRequest(name="r", empty_timeout=5)


def test_nothing_is_an_empty_request():
    assert twirp.decode(b"", room.ListRoomsRequest, as_json=False) == room.ListRoomsRequest()
    assert twirp.decode(b"{}", room.ListRoomsRequest, as_json=True) == room.ListRoomsRequest()


def test_what_is_behind_the_first_value_is_not_looked_at():
    for rest in (b"", b" x", b"{}", b"\n"):
        assert twirp.decode(b' {"name": "r"}' + rest, room.CreateRoomRequest, as_json=True).name == "r"


@pytest.mark.parametrize(("text", "good"), [("eA==", True), ("eA", True), ("-_8=", True), ("!", False), ("e A", False)])
def test_bytes_are_base64_of_either_alphabet(text, good):
    body = json.dumps({"room": "r", "data": text}).encode()
    if good:
        twirp.decode(body, room.SendDataRequest, as_json=True)
    else:
        with pytest.raises(TwirpError, match="could not be decoded"):
            twirp.decode(body, room.SendDataRequest, as_json=True)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b'{"name": "a", "name": "b"}', b"\xef\xbb\xbf{}",
        b"{", b"[]", b"5", b'"x"', b"null", b'{"name": 5}', b'{"name": "\\ud800"}', b'{"emptyTimeout": -1}',
        b'{"emptyTimeout": 1e99}', b'{"emptyTimeout": "x"}', b'{"agents": {}}', b'{"agents": [5]}', b"\xff\xfe",
        b"[" * 100000, b'{"a":' * 100000, b'{"name": "a", "name": ', b'{"emptyTimeout": NaN}',
    ],
)  # fmt: skip
def test_bad_json(body):
    with pytest.raises(TwirpError) as refused:
        twirp.decode(body, room.CreateRoomRequest, as_json=True)
    assert (refused.value.code, refused.value.message) == ("malformed", "the json request could not be decoded")


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05a", b"\x0a\x02\xff\xff", b"\x00"])
def test_bad_protobuf(body):
    with pytest.raises(TwirpError) as refused:
        twirp.decode(body, room.CreateRoomRequest, as_json=False)
    assert (refused.value.code, refused.value.message) == ("malformed", "the protobuf request could not be decoded")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=100), st.booleans())
def test_any_body(body, as_json):
    try:
        twirp.decode(body, room.UpdateParticipantRequest, as_json=as_json)
    except TwirpError as error:
        assert error.code == "malformed"


def test_answers():
    answer = models.Room(name="r", creation_time_ms=5)
    decoded = json.loads(twirp.encode(answer, as_json=True))
    assert decoded["name"] == "r"
    assert decoded["creation_time_ms"] == "5"
    assert decoded["num_participants"] == 0
    assert models.Room.FromString(twirp.encode(answer, as_json=False)) == answer


# -- RoomService


def allowed(name, request, **video):
    claims = Claims(api_key="k", identity="", expires_at=0.0, video=VideoGrant(**video))
    try:
        room_service.authorize(room_service.METHODS[name], request, claims)
    except TwirpError as error:
        assert (error.status, error.message) == (401, "permissions denied")
        return False
    return True


@pytest.mark.parametrize("name", room_service.METHODS)
def test_who_may_call(name):
    method = room_service.METHODS[name]
    request = method.request(**({"room": "r"} if "room" in method.request.DESCRIPTOR.fields_by_name else {}))
    if method.grant == "destination":
        request.destination_room = "d"
    admin = method.grant in ("admin", "destination")
    assert allowed(name, request, room_create=True) is (method.grant == "create")
    assert allowed(name, request, room_list=True) is (method.grant == "list")
    assert allowed(name, request, room_admin=True, room="r", destination_room="d") is admin
    assert allowed(name, request, room_admin=True, room="r") is (method.grant == "admin")
    assert not allowed(name, request, room_admin=True, room="other", destination_room="d")
    assert not allowed(name, request, room_join=True, room="r", destination_room="d")
    for claims in (None, Claims(api_key="k", identity="", expires_at=0.0)):
        with pytest.raises(TwirpError):
            room_service.authorize(method, request, claims)


@pytest.mark.parametrize(
    "request_",
    [
        room.CreateRoomRequest(name="x" * 257),
        room.CreateRoomRequest(name="é" * 129),
        room.CreateRoomRequest(name="r", metadata="x" * 524289),
        room.UpdateRoomMetadataRequest(room="r", metadata="x" * 524289),
        room.UpdateParticipantRequest(room="r", name="x" * 257),
        room.UpdateParticipantRequest(room="r", metadata="x" * 524289),
        room.UpdateParticipantRequest(room="r", attributes={"k": "x" * 65536}),
        room.SendDataRequest(room="r", nonce=bytes(15)),
        room.SendDataRequest(room="r", nonce=bytes(17)),
    ],
)
def test_what_is_too_long(request_):
    with pytest.raises(TwirpError) as refused:
        room_service.check_limits(request_, LimitConfig())
    assert refused.value.code == "invalid_argument"


@pytest.mark.parametrize(
    "request_",
    [
        room.CreateRoomRequest(name="x" * 256, metadata="x" * 524288),
        room.UpdateParticipantRequest(room="r", name="é" * 128, attributes={"k": "x" * 65535}),
        room.SendDataRequest(room="r"),
        room.SendDataRequest(room="r", nonce=bytes(16)),
        room.ListRoomsRequest(),
    ],
)
def test_what_is_just_right(request_):
    room_service.check_limits(request_, LimitConfig())


def test_data_of_the_server_has_no_sender():
    request = room.SendDataRequest(
        data=b"x", kind=models.DataPacket.Kind.LOSSY, destination_identities=["a"], topic="t", nonce=bytes(16)
    )
    packet = room_service.data_packet(request)
    assert (packet.kind, packet.user.payload, packet.user.topic) == (models.DataPacket.Kind.LOSSY, b"x", "t")
    assert list(packet.destination_identities) == ["a"]
    assert packet.participant_identity == ""
    empty = room_service.data_packet(room.SendDataRequest())
    assert empty.HasField("user")
    assert not empty.user.HasField("topic")


def test_an_unset_message_is_null_and_an_unset_choice_is_left_out():
    answer = room.ListParticipantsResponse(
        participants=[models.ParticipantInfo(identity="a", tracks=[{"sid": "TR_a"}])]
    )
    told = json.loads(twirp.encode(answer, as_json=True))["participants"][0]
    assert told["permission"] is None
    assert told["tracks"][0]["version"] is None
    assert told["attributes"] == {}
    told = json.loads(twirp.encode(egress.EgressInfo(), as_json=True))
    assert "room_composite" not in told
