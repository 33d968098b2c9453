"""Joining by query and by join_request: defaults, order of refusals, bad input (livekit-surface 1.4 to 1.6)."""

import base64
import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from lkactor.auth import Claims, VideoGrant
from lkactor.config import LimitConfig
from lkactor.signal.join import MAX_JOIN_REQUEST, JoinError, JoinParameters, parse_join, with_address

LIMITS = LimitConfig()
GZIP = rtc.WrappedJoinRequest.Compression.GZIP


def claims(identity="bob", **video):
    return Claims(
        api_key="k", identity=identity, expires_at=0.0, video=VideoGrant(**{"room": "r", "room_join": True} | video)
    )


def wrap(request, compression=0, body=None):
    raw = request.SerializeToString() if body is None else body
    if body is None and compression:
        raw = gzip.compress(raw)
    wrapped = rtc.WrappedJoinRequest(compression=compression, join_request=raw)
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()


def join(query=None, who=None, v1=False, limits=LIMITS, **options):
    return parse_join(query or {}, claims() if who is None else who, limits, v1=v1, **options)


def refusal(*arguments, **options):
    with pytest.raises(JoinError) as refused:
        join(*arguments, **options)
    return refused.value.status, refused.value.text


# -- query


def test_defaults_of_the_query():
    intent = join()
    assert (intent.identity, intent.room) == ("bob", "r")
    assert intent.parameters == JoinParameters(client=models.ClientInfo())
    assert intent.parameters.auto_subscribe
    assert not intent.parameters.subscriber_primary


@pytest.mark.parametrize(
    ("value", "flag"), [("1", True), ("true", True), ("0", False), ("false", False), ("TRUE", False), ("yes", False)]
)
def test_booleans_are_true_for_1_and_true_only(value, flag):
    names = ("auto_subscribe", "auto_subscribe_data_track", "adaptive_stream", "subscriber_allow_pause")
    names += ("disable_ice_lite", "reconnect")
    parameters = join(dict.fromkeys(names, value)).parameters
    assert [getattr(parameters, name) for name in names] == [flag] * len(names)


def test_everything_in_a_query():
    parameters = join(
        {
            "protocol": "16", "client_protocol": "2", "sdk": "reactnative", "version": "1.2", "os": "ios",
            "os_version": "17", "device_model": "x", "browser": "b", "browser_version": "9", "network": "wifi",
            "reconnect_reason": "3", "sid": "PA_1", "capabilities": "CAP_PACKET_TRAILER,NOTHING,",
        }
    ).parameters  # fmt: skip
    client = parameters.client
    assert (client.protocol, client.client_protocol, client.sdk) == (16, 2, models.ClientInfo.SDK.REACT_NATIVE)
    assert (client.version, client.os, client.os_version, client.device_model) == ("1.2", "ios", "17", "x")
    assert (client.browser, client.browser_version, client.network) == ("b", "9", "wifi")
    assert (parameters.reconnect_reason, parameters.participant_sid) == (3, "PA_1")
    assert list(client.capabilities) == [models.ClientInfo.Capability.CAP_PACKET_TRAILER]
    assert parameters.subscriber_primary


@pytest.mark.parametrize(
    ("protocol", "primary"), [("2", False), ("3", True), ("x", False), ("-5", False), ("²", False), ("9" * 99, False)]
)
def test_protocol_numbers(protocol, primary):
    assert join({"protocol": protocol}).parameters.subscriber_primary is primary


@pytest.mark.parametrize("name", models.ClientInfo.SDK.keys())
def test_every_sdk_by_its_query_name(name):
    spelled = name.lower().replace("_", "")
    assert join({"sdk": spelled}).parameters.client.sdk == models.ClientInfo.SDK.Value(name)


def test_unknown_sdk():
    assert join({"sdk": "cobol"}).parameters.client.sdk == models.ClientInfo.SDK.UNKNOWN


def encoded(value):
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def test_attributes():
    own = claims(can_update_own_metadata=True)
    query = {"attributes": encoded({"a": "b", "empty": "", "null": None, "half": "\ud800"})}
    assert join(query, own).parameters.attributes == {"a": "b", "half": "?"}
    assert join({"attributes": encoded({"a": "b", "number": 1})}, own).parameters.attributes == {}
    assert join({"attributes": encoded(None)}, own).parameters.attributes == {}
    assert refusal(query)[0] == 401


@pytest.mark.parametrize("text", ["%", "é", "a", encoded([1]), encoded(b"\xff"), encoded(b"[" * 9000), encoded(b"{")])
def test_bad_attributes_are_ignored_but_not_by_validate(text):
    own = claims(can_update_own_metadata=True)
    assert join({"attributes": text}, own).parameters.attributes == {}
    assert refusal({"attributes": text}, own, validate_only=True) == (400, "cannot decode attributes")


def test_publish_makes_another_identity():
    intent = join({"publish": "screen"})
    assert (intent.identity, intent.parameters.publish) == ("bob#screen", "screen")
    assert refusal({"publish": "screen"}, claims(can_publish=False))[0] == 401
    assert refusal({"publish": "x" * 300})[0] == 400


# -- refusals


def test_refusals_in_the_order_of_the_reference():
    with pytest.raises(JoinError, match="no permissions to access the room"):
        parse_join({}, None, LIMITS, v1=True)
    bare = Claims(api_key="k", identity="", expires_at=0.0)
    assert refusal(None, bare, v1=True) == (401, "no permissions to access the room")
    nobody = claims(identity="", room_join=False, room="")
    assert refusal(None, nobody, v1=True) == (400, "join_request is required")
    assert refusal(None, nobody) == (401, "permissions denied")
    assert refusal(None, claims(identity="", room="")) == (400, "identity cannot be empty")
    long = claims(identity="x" * 257, room="")
    assert refusal(None, long) == (400, "participant identity length exceeds limits: max length 256")
    assert refusal(None, claims(room="")) == (400, "no room name")
    assert refusal(None, claims(room="é" * 129)) == (400, "room name length exceeds limits: max length 256")
    assert join(None, claims(identity="é" * 128, room="é" * 128)).identity == "é" * 128


def test_the_log_need_not_repeat_the_text():
    error = JoinError(401, "token abc", log_as="a token")
    assert (str(error), error.text) == ("a token", "token abc")


# -- join_request


FULL = rtc.JoinRequest(
    client_info=models.ClientInfo(protocol=16, sdk=models.ClientInfo.SDK.RUST),
    connection_settings=rtc.ConnectionSettings(
        auto_subscribe=True, adaptive_stream=True, subscriber_allow_pause=True, disable_ice_lite=True,
        auto_subscribe_data_track=True,
    ),
    metadata="m",
    participant_attributes={"a": "b", "empty": ""},
    add_track_requests=[rtc.AddTrackRequest(cid="c")],
    publisher_offer=rtc.SessionDescription(type="offer", sdp="v=0"),
    reconnect=True,
    reconnect_reason=2,
    participant_sid="PA_1",
)  # fmt: skip


@pytest.mark.parametrize("compression", [0, GZIP])
@pytest.mark.parametrize("v1", [True, False])
def test_a_full_join_request(compression, v1):
    own = claims(can_update_own_metadata=True)
    query = {"join_request": wrap(FULL, compression), "publish": "ignored", "auto_subscribe": "0"}
    intent = join(query, own, v1=v1)
    assert intent.identity == "bob"
    assert intent.parameters == JoinParameters(
        client=FULL.client_info, single=True, auto_subscribe=True, auto_subscribe_data_track=True, adaptive_stream=True,
        subscriber_allow_pause=True, disable_ice_lite=True, reconnect=True, reconnect_reason=2, participant_sid="PA_1",
        metadata="m", attributes={"a": "b"}, add_tracks=tuple(FULL.add_track_requests), offer=FULL.publisher_offer,
    )  # fmt: skip
    assert not intent.parameters.subscriber_primary


def test_defaults_of_a_join_request():
    parameters = join({"join_request": wrap(rtc.JoinRequest(participant_sid="x"))}).parameters
    assert parameters.single
    assert (parameters.auto_subscribe, parameters.subscriber_allow_pause, parameters.offer) == (False, False, None)


@pytest.mark.parametrize(
    "request_", [rtc.JoinRequest(metadata="m"), rtc.JoinRequest(participant_attributes={"a": "b"})]
)
def test_metadata_of_ones_own_needs_the_grant(request_):
    assert refusal({"join_request": wrap(request_)}) == (401, "no permissions to access the room")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%%%%", "cannot base64 decode wrapped join request"),
        ("abc", "cannot base64 decode wrapped join request"),
        ("é", "cannot base64 decode wrapped join request"),
        (base64.urlsafe_b64encode(b"\xff\xff\xff").decode(), "cannot unmarshal wrapped join request"),
        (wrap(None, 0, b"\xff\xff"), "cannot unmarshal join request"),
        (wrap(None, GZIP, gzip.compress(b"\xff\xff")), "cannot unmarshal join request"),
        (wrap(None, GZIP, b"no gzip"), "cannot read decompressed join request"),
        (wrap(None, GZIP, b""), "cannot read decompressed join request"),
        (wrap(None, GZIP, gzip.compress(b"\x22\x01x" * 9)[:-9]), "cannot read decompressed join request"),
        (wrap(None, GZIP, zlib.compress(b"x")), "cannot read decompressed join request"),
        (wrap(None, 0, bytes(MAX_JOIN_REQUEST + 1)), "join request too large"),
        (wrap(None, GZIP, gzip.compress(bytes(MAX_JOIN_REQUEST + 1))), "join request too large"),
    ],
)
def test_bad_join_requests(text, said):
    assert refusal({"join_request": text}) == (400, said)


def test_a_gzip_bomb_stops_at_the_limit(monkeypatch):
    """100 MiB in 100 KB: no more than the limit is ever decompressed."""
    asked = []

    class Watched:
        def __init__(self, wbits):
            self._inflater = decompressobj(wbits=wbits)

        def decompress(self, data, limit):
            asked.append(limit)
            return self._inflater.decompress(data, limit)

        @property
        def eof(self):
            return self._inflater.eof

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda wbits: Watched(wbits))
    bomb = wrap(None, GZIP, gzip.compress(bytes(100 * 1024 * 1024), 1))
    assert refusal({"join_request": bomb}) == (400, "join request too large")
    assert asked == [MAX_JOIN_REQUEST + 1]


def test_every_truncation_is_taken_or_refused():
    raw = base64.urlsafe_b64decode(wrap(FULL, GZIP))
    for size in range(len(raw)):
        text = base64.urlsafe_b64encode(raw[:size]).decode()
        if text:
            assert refusal({"join_request": text})[0] in (400, 401)


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=200), st.sampled_from([0, 1, 2]))
def test_any_bytes(body, compression):
    for text in (base64.urlsafe_b64encode(body).decode(), wrap(None, compression, body)):
        try:
            join({"join_request": text}, claims(can_update_own_metadata=True))
        except JoinError as error:
            assert error.status == 400


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["protocol", "sdk", "capabilities", "attributes", "join_request", "publish"]),
        st.text(max_size=30),
    )
)
def test_any_query(query):
    try:
        join(query, claims(can_update_own_metadata=True))
    except JoinError as error:
        assert error.status in (400, 401)


@pytest.mark.parametrize(
    ("agent", "browser"),
    [
        ("Mozilla/5.0 Chrome/1 Safari/1 Edg/1", "edge"),
        ("Mozilla/5.0 Firefox/1", "firefox"),
        ("Mozilla/5.0 Chrome/1 Safari/1", "chrome"),
        ("Mozilla/5.0 Safari/1", "safari"),
        ("curl/1 Chrome/1", ""),
        ("", ""),
    ],
)
def test_the_browser_from_the_user_agent(agent, browser):
    parameters = JoinParameters(client=models.ClientInfo())
    filled = with_address(parameters, "192.0.2.1", agent)
    assert (filled.client.address, filled.client.browser) == ("192.0.2.1", browser)
    assert parameters.client == models.ClientInfo()
    said = with_address(JoinParameters(client=models.ClientInfo(browser="x")), "", agent)
    assert said.client.browser == "x"
