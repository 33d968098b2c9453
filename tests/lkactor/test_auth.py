"""Access tokens: the layout of the claims, what is refused, what a refresh token carries (livekit-surface 1.2, 4)."""

import base64
import datetime
import hashlib
import json
import math
import time

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import api
from livekit.protocol import models, room

from lkactor import auth
from lkactor.auth import (
    CACHED,
    DEFAULT_LIFE,
    MAX_CACHED,
    AuthError,
    Claims,
    TokenCache,
    VideoGrant,
    issue_refresh_token,
    issue_token,
    token_from_request,
    verify,
)

NOW = 1_700_000_000.0
KEY, SECRET = "devkey", "a-secret-of-thirty-two-bytes-or-more"
KEYS = {KEY: SECRET}
GRANTS = {
    "roomCreate": "room_create",
    "roomList": "room_list",
    "roomRecord": "room_record",
    "roomAdmin": "room_admin",
    "roomJoin": "room_join",
    "canPublish": "can_publish",
    "canSubscribe": "can_subscribe",
    "canPublishData": "can_publish_data",
    "canUpdateOwnMetadata": "can_update_own_metadata",
    "ingressAdmin": "ingress_admin",
    "hidden": "hidden",
    "recorder": "recorder",
    "agent": "agent",
    "canSubscribeMetrics": "can_subscribe_metrics",
    "canManageAgentSession": "can_manage_agent_session",
}

_NAMES = st.sampled_from(["iss", "exp", "video", "sub", "roomConfig", "canPublish", "agents"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.text() | st.floats() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
    max_leaves=8,
)


def signed(secret=SECRET, algorithm="HS256", headers=None, **claims):
    payload = {"iss": KEY, "exp": NOW + 60, **claims}
    payload = {name: value for name, value in payload.items() if value is not ...}
    return jwt.encode(payload, secret, algorithm=algorithm, headers=headers)


def accepted(**claims):
    return verify(signed(**claims), KEYS, NOW)


def refusal(token, keys=KEYS, now=NOW):
    with pytest.raises(AuthError) as refused:
        verify(token, keys, now)
    return refused.value


# -- where the token is


def test_the_header_wins_over_the_query():
    assert token_from_request("Bearer abc", "def") == "abc"
    assert token_from_request(None, "def") == "def"
    assert token_from_request("", "def") == "def"
    assert token_from_request(None, None) is None
    assert token_from_request(None, "") is None


@pytest.mark.parametrize("header", ["bearer abc", "Basic abc", "abc", "Bearer", "BearerX"])
def test_other_schemes_are_refused(header):
    with pytest.raises(AuthError, match=r"invalid authorization header\. Must start with Bearer "):
        token_from_request(header, "def")


# -- layout


@pytest.mark.parametrize(("claim", "attribute"), GRANTS.items())
def test_each_grant_by_its_name_and_default(claim, attribute):
    default = claim in ("canPublish", "canSubscribe", "canPublishData")
    assert getattr(accepted(video={}).video, attribute) is default
    for value in (True, False):
        assert getattr(accepted(video={claim: value}).video, attribute) is value
    assert getattr(accepted(video={claim: None}).video, attribute) is default
    for spelling in (claim, attribute):
        token = issue_token(KEY, SECRET, video={spelling: not default}, now_unix=NOW)
        assert getattr(verify(token, KEYS, NOW).video, attribute) is not default


@pytest.mark.parametrize("publish", [True, False])
def test_data_goes_with_publishing_unless_it_is_said(publish):
    assert accepted(video={"canPublish": publish}).video.can_publish_data is publish
    assert accepted(video={"canPublish": publish, "canPublishData": not publish}).video.can_publish_data is not publish


def test_rooms_and_sources():
    video = accepted(video={"room": "a", "destinationRoom": "b", "canPublishSources": ["camera", "SCREEN_SHARE"]}).video
    assert (video.room, video.destination_room) == ("a", "b")
    assert video.can_publish_sources == ("camera", "screen_share")


def test_everything_else():
    claims = accepted(
        sub="bob",
        name="Bob",
        kind="sip",
        kindDetails=["forwarded", "cloud_agent"],
        metadata="m",
        attributes={"a": "b"},
        sha256="digest",
        roomPreset="preset",
        roomConfig={"name": "r", "emptyTimeout": 5, "max_participants": 3, "agents": [{"agentName": "x"}], "new": 1},
        sip={"admin": True, "call": False},
        agent={"admin": True, "simulationAdmin": True, "databaseAdmin": True},
        inference={"perform": True},
        observability={"write": True},
    )
    config = room.RoomConfiguration(name="r", empty_timeout=5, max_participants=3, agents=[{"agent_name": "x"}])
    assert claims == Claims(
        api_key=KEY,
        identity="bob",
        expires_at=NOW + 60,
        name="Bob",
        kind="sip",
        kind_details=("forwarded", "cloud_agent"),
        metadata="m",
        attributes={"a": "b"},
        sha256="digest",
        room_config=config,
        room_preset="preset",
        sip=auth.SipGrant(admin=True),
        agent=auth.AgentGrant(admin=True, simulation_admin=True, database_admin=True),
        inference=auth.InferenceGrant(perform=True),
        observability=auth.ObservabilityGrant(write=True),
    )
    assert claims.video is None


def test_what_is_absent():
    claims = accepted()
    assert claims == Claims(api_key=KEY, identity="", expires_at=NOW + 60)
    assert (claims.kind, claims.kind_details, claims.attributes) == ("standard", (), {})


def test_identity_is_sub_else_jti():
    assert accepted(sub="a", jti="b", identity="c").identity == "a"
    assert accepted(jti="b", identity="c").identity == "b"
    assert accepted(identity="c").identity == ""


def test_half_a_surrogate_pair_becomes_text():
    raw = json.dumps({"iss": KEY, "exp": NOW, "sub": "\ud800x", "attributes": {"\udc00": "\ud800"}})
    token = jwt.PyJWS().encode(raw.encode(), SECRET, "HS256")
    claims = verify(token, KEYS, NOW)
    assert claims.identity == "?x"
    assert claims.attributes == {"?": "?"}


# -- refusals


@pytest.mark.parametrize(
    "claims",
    [
        {"video": {"canPublish": "false"}},
        {"video": {"roomJoin": 1}},
        {"video": {"room": 5}},
        {"video": {"canPublishSources": "camera"}},
        {"video": {"canPublishSources": [1]}},
        {"video": []},
        {"name": 5},
        {"sub": 5},
        {"kind": 5},
        {"kindDetails": "x"},
        {"metadata": {}},
        {"attributes": []},
        {"attributes": {"a": 1}},
        {"sha256": 1},
        {"roomPreset": 1},
        {"roomConfig": "x"},
        {"roomConfig": {"emptyTimeout": "soon"}},
        {"roomConfig": {"agents": {}}},
        {"sip": {"admin": "yes"}},
        {"agent": 1},
        {"inference": [True]},
        {"observability": {"write": 0}},
    ],
)
def test_claims_of_a_wrong_type_refuse_the_token(claims):
    """What is not understood must not fall back to a default that allows more."""
    payload = jwt.encode({"iss": KEY, "exp": NOW, **{k: v for k, v in claims.items() if k != "sub"}}, SECRET)
    if "sub" in claims:
        payload = jwt.PyJWS().encode(json.dumps({"iss": KEY, "exp": NOW, **claims}).encode(), SECRET, "HS256")
    wanted = "invalid authorization token" if "sub" in claims else "token is malformed"
    assert wanted in str(refusal(payload))


def test_unknown_issuer():
    for issuer in ("nobody", "", None, 5, ["devkey"]):
        raw = jwt.PyJWS().encode(json.dumps({"iss": issuer, "exp": NOW}).encode(), SECRET, "HS256")
        assert "invalid API key" in str(refusal(raw)) or "invalid authorization token" in str(refusal(raw))
    assert str(refusal(signed(iss=...))) == "invalid API key: "
    assert len(str(refusal(signed(iss="x" * 5000)))) < 100


def test_wrong_secret_and_changed_claims():
    token = signed(secret="another-secret-of-thirty-two-bytes!!", sub="bob")
    error = refusal(token)
    assert "signature is invalid" in str(error)
    assert token not in str(error)
    assert token in error.body(token)
    head, _, signature = signed(sub="bob").split(".")
    claims = base64.urlsafe_b64encode(json.dumps({"iss": KEY, "exp": NOW + 60, "sub": "eve"}).encode()).decode()
    assert "signature is invalid" in str(refusal(f"{head}.{claims.rstrip('=')}.{signature}"))


def _segment(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "RS256", "ES256", "HS384", "HS512", "PS256", 5, None]
)
def test_only_hs256(algorithm):
    body = _segment({"iss": KEY, "exp": NOW + 60})
    unsigned = f"{_segment({'alg': algorithm, 'typ': 'JWT'})}.{body}"
    known = algorithm in ("none", "RS256", "ES256", "HS384", "HS512", "PS256")
    reason = (
        f"token signature is invalid: signing method {algorithm} is invalid" if known else "invalid authorization token"
    )
    for signature in ("", "AAAA"):
        assert str(refusal(f"{unsigned}.{signature}")) == reason


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_right_signature_by_another_algorithm(algorithm):
    token = jwt.encode({"iss": KEY, "exp": NOW + 60}, SECRET * 2, algorithm=algorithm)
    reason = f"token signature is invalid: signing method {algorithm} is invalid"
    assert str(refusal(token, {KEY: SECRET * 2})) == reason


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "x" * 70000, "é.é.é", "\x00", "e30.e30.e30", "[" * 1000, _segment([]) + ".e30."]
)
def test_what_is_no_token(token):
    assert str(refusal(token)) == "invalid authorization token"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_refused(token):
    assert isinstance(refusal(token), AuthError)


@settings(deadline=None, max_examples=60)
@given(ANYTHING)
def test_any_claims_are_taken_or_refused(value):
    payload = {"exp": NOW, "sub": "x", **(value if isinstance(value, dict) else {"video": value}), "iss": KEY}
    token = jwt.PyJWS().encode(json.dumps(payload).encode(), SECRET, "HS256")
    try:
        assert verify(token, KEYS, NOW).api_key == KEY
    except AuthError:
        pass


# -- times


@pytest.mark.parametrize(("late", "good"), [(0, True), (59, True), (59.9, True), (60, False), (3600, False)])
def test_expiry_has_a_minute_of_leeway(late, good):
    token = signed(exp=NOW)
    if good:
        assert verify(token, KEYS, NOW + late).expires_at == NOW
    else:
        assert "token is expired" in str(refusal(token, now=NOW + late))


@pytest.mark.parametrize(("early", "good"), [(0, True), (60, True), (60.5, False), (3600, False)])
def test_not_before_has_a_minute_of_leeway(early, good):
    token = signed(nbf=NOW, exp=NOW + 9000)
    if good:
        verify(token, KEYS, NOW - early)
    else:
        assert "token is not valid yet" in str(refusal(token, now=NOW - early))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["tomorrow", True, 1e300, [], {}])
def test_times_are_numbers(name, value):
    raw = {"iss": KEY, "exp": NOW + 60, name: value}
    token = jwt.PyJWS().encode(json.dumps(raw).encode(), SECRET, "HS256")
    assert str(refusal(token)) == "invalid authorization token"


@pytest.mark.parametrize("claims", [{}, {"exp": None}])
def test_a_token_without_an_end_has_none(claims):
    """As the reference: whoever has the secret may give such tokens out."""
    token = jwt.PyJWS().encode(json.dumps({"iss": KEY, "sub": "a", **claims}).encode(), SECRET, "HS256")
    accepted_claims = verify(token, KEYS, NOW + 1e9)
    assert accepted_claims.expires_at == math.inf
    fresh = issue_refresh_token(accepted_claims, models.ParticipantInfo(identity="a"), KEYS, NOW)
    assert verify(fresh, KEYS, NOW).expires_at == NOW + DEFAULT_LIFE


def test_iat_in_the_future_is_no_matter():
    accepted(iat=NOW + 9999)


# -- permissions


def test_permission_of_a_grant():
    video = VideoGrant(
        can_publish=False,
        can_subscribe=False,
        can_publish_data=False,
        can_publish_sources=("camera", "microphone", "screen_share", "screen_share_audio"),
        can_update_own_metadata=True,
        hidden=True,
        recorder=True,
        agent=True,
        can_subscribe_metrics=True,
        can_manage_agent_session=True,
    )
    permission = auth.to_participant_permission(video)
    assert list(permission.can_publish_sources) == [1, 2, 3, 4]
    for name in ("can_publish", "can_subscribe", "can_publish_data"):
        assert not getattr(permission, name)
    for name in ("can_update_metadata", "hidden", "recorder", "agent", "can_subscribe_metrics"):
        assert getattr(permission, name)
    assert permission.can_manage_agent_session


def test_permission_without_a_grant_is_the_default():
    permission = auth.to_participant_permission(None)
    assert permission.can_publish and permission.can_subscribe and permission.can_publish_data
    assert not permission.can_publish_sources
    assert not permission.hidden


def test_an_unknown_source_does_not_open_all_sources():
    permission = auth.to_participant_permission(VideoGrant(can_publish_sources=("hologram",)))
    assert list(permission.can_publish_sources) == [models.TrackSource.UNKNOWN]
    claims = Claims(api_key=KEY, identity="a", expires_at=NOW)
    again = verify(issue_refresh_token(claims, models.ParticipantInfo(permission=permission), KEYS, NOW), KEYS, NOW)
    assert auth.to_participant_permission(again.video) == permission


# -- issuing


def full_token(**more):
    return issue_token(
        KEY,
        SECRET,
        identity="bob",
        name="Bob",
        metadata="m",
        attributes={"a": "b"},
        kind="agent",
        kind_details=["cloud_agent"],
        room_preset="preset",
        room_config={"name": "r", "maxParticipants": 3, "agents": [{"agentName": "x"}]},
        video={
            "room": "r",
            "room_join": True,
            "room_create": True,
            "room_list": True,
            "room_record": True,
            "room_admin": True,
            "ingress_admin": True,
            "destination_room": "d",
            "can_publish_sources": ["camera"],
            "can_update_own_metadata": True,
            "can_subscribe_metrics": True,
            "can_manage_agent_session": True,
            "agent": True,
            "hidden": True,
            "recorder": True,
        },
        grants={
            "sip": {"admin": True, "call": True},
            "agent": {"simulation_admin": True},
            "inference": {"perform": True},
            "observability": {"write": True},
        },
        now_unix=NOW,
        **more,
    )


def info_of(claims, **changes):
    return models.ParticipantInfo(
        identity=claims.identity,
        name=claims.name,
        metadata=claims.metadata,
        attributes=claims.attributes,
        permission=auth.to_participant_permission(claims.video),
        **changes,
    )


def test_a_refresh_token_carries_all_of_the_original():
    claims = verify(full_token(), KEYS, NOW)
    assert claims.room_config is not None and claims.sip is not None
    again = verify(issue_refresh_token(claims, info_of(claims), KEYS, NOW + 5), KEYS, NOW + 5)
    assert again == claims


def test_a_refresh_token_says_what_is_true_now():
    claims = verify(full_token(), KEYS, NOW)
    info = models.ParticipantInfo(
        identity="bob#x",
        name="Robert",
        metadata="new",
        attributes={"k": "v"},
        permission=models.ParticipantPermission(can_subscribe=True, can_publish_data=True),
    )
    again = verify(issue_refresh_token(claims, info, KEYS, NOW), KEYS, NOW)
    assert (again.identity, again.name, again.metadata, again.attributes) == ("bob#x", "Robert", "new", {"k": "v"})
    assert auth.to_participant_permission(again.video) == info.permission
    assert again.video.room_record and again.video.room_admin
    assert again.sha256 == ""


@pytest.mark.parametrize(("left", "life"), [(10.0, 600.0), (-5.0, 600.0), (600.0, 600.0), (7200.0, 7200.0)])
def test_a_refresh_token_lives_ten_minutes_or_as_long_as_the_original(left, life):
    claims = Claims(api_key=KEY, identity="a", expires_at=NOW + left)
    assert verify(issue_refresh_token(claims, info_of(claims), KEYS, NOW), KEYS, NOW).expires_at == NOW + life


def test_a_refresh_token_survives_the_removal_of_its_key():
    claims = Claims(api_key="gone", identity="a", expires_at=NOW)
    assert verify(issue_refresh_token(claims, info_of(claims), KEYS, NOW), KEYS, NOW).api_key == KEY


@pytest.mark.parametrize(
    "wrong",
    [
        {"video": {"canPublsh": True}},
        {"video": {"can_publish": "no"}},
        {"video": {"can_publish_sources": "camera"}},
        {"grants": {"sipp": {"admin": True}}},
        {"grants": {"sip": {"write": True}}},
        {"room_config": {"emptyTimeout": "soon"}},
    ],
)
def test_a_token_that_no_server_would_take_is_not_issued(wrong):
    with pytest.raises(ValueError):
        issue_token(KEY, SECRET, now_unix=NOW, **wrong)


def test_a_webhook_token_has_a_digest_and_no_video_grant():
    digest = base64.b64encode(hashlib.sha256(b"body").digest()).decode()
    token = issue_token(KEY, SECRET, sha256=digest, ttl=300.0, now_unix=time.time())
    assert "video" not in jwt.decode(token, options={"verify_signature": False})
    assert api.TokenVerifier(KEY, SECRET).verify(token).sha256 == digest


# -- against livekit-api


def test_livekit_api_understands_our_tokens():
    token = issue_token(
        KEY,
        SECRET,
        identity="bob",
        name="Bob",
        kind="agent",
        metadata="m",
        attributes={"a": "b"},
        room_preset="p",
        room_config={"name": "r", "emptyTimeout": 7},
        video={"room": "r", "room_join": True, "can_publish": False, "can_publish_sources": ["camera"]},
        grants={"sip": {"admin": True}},
        now_unix=time.time(),
    )
    claims = api.TokenVerifier(KEY, SECRET).verify(token)
    assert (claims.identity, claims.name, claims.kind, claims.metadata) == ("bob", "Bob", "agent", "m")
    assert claims.attributes == {"a": "b"}
    assert claims.room_preset == "p"
    assert claims.room_config.empty_timeout == 7
    assert (claims.video.room, claims.video.room_join, claims.video.can_publish) == ("r", True, False)
    assert claims.video.can_publish_sources == ["camera"]
    assert claims.sip.admin


def test_we_understand_livekit_apis_tokens():
    token = (
        api.AccessToken(KEY, SECRET)
        .with_identity("bob")
        .with_name("Bob")
        .with_kind("agent")
        .with_metadata("m")
        .with_attributes({"a": "b"})
        .with_sha256("digest")
        .with_room_preset("p")
        .with_room_config(room.RoomConfiguration(name="r", empty_timeout=7))
        .with_ttl(datetime.timedelta(hours=1))
        .with_grants(
            api.VideoGrants(
                room_join=True,
                room="r",
                room_admin=True,
                can_publish=False,
                can_publish_sources=["microphone"],
                can_update_own_metadata=True,
                destination_room="d",
                hidden=True,
            )
        )
        .with_sip_grants(api.SIPGrants(admin=True, call=True))
        .to_jwt()
    )
    now = time.time()
    claims = verify(token, KEYS, now)
    assert claims.expires_at == pytest.approx(now + 3600, abs=5)
    assert (claims.identity, claims.name, claims.kind, claims.metadata) == ("bob", "Bob", "agent", "m")
    assert (claims.attributes, claims.sha256, claims.room_preset) == ({"a": "b"}, "digest", "p")
    assert claims.room_config == room.RoomConfiguration(name="r", empty_timeout=7)
    assert claims.sip == auth.SipGrant(admin=True, call=True)
    assert claims.video == VideoGrant(
        room_join=True,
        room="r",
        room_admin=True,
        can_publish=False,
        can_publish_data=True,
        can_publish_sources=("microphone",),
        can_update_own_metadata=True,
        destination_room="d",
        hidden=True,
    )


@pytest.mark.parametrize(
    ("issued_at", "by"), [(1_000_000.0, "(3300 s ago)"), (1_010_000.0, "(for another 6100 s)")], ids=["old", "early"]
)
def test_how_far_a_token_is_off_is_for_the_log_only(issued_at: float, by: str) -> None:
    token = issue_token("k", "s" * 32, identity="ann", video={}, ttl=600.0, now_unix=issued_at)
    with pytest.raises(AuthError) as refused:
        verify(token, {"k": "s" * 32}, 1_003_900.0)
    assert by in refused.value.log_text
    assert by not in refused.value.body(token)


def test_a_known_token_is_judged_anew_but_for_its_signature(monkeypatch):
    cache, token = TokenCache(), signed(sub="ann", exp=NOW + 60)
    assert cache.verify(token, KEYS, NOW) == verify(token, KEYS, NOW)
    monkeypatch.setattr(jwt, "decode", None)  # Nothing is decoded again.
    assert cache.verify(token, KEYS, NOW).identity == "ann"
    with pytest.raises(AuthError, match="expired"):
        cache.verify(token, KEYS, NOW + 121)


@pytest.mark.parametrize("keys", [{}, {KEY: "another-secret-of-thirty-two-bytes-too"}, {"other": SECRET}])
def test_a_known_token_goes_with_its_key(keys):
    cache, token = TokenCache(), signed(sub="ann")
    cache.verify(token, KEYS, NOW)
    with pytest.raises(AuthError):
        cache.verify(token, keys, NOW)
    assert cache.verify(token, KEYS, NOW).identity == "ann"


def test_what_is_refused_is_not_remembered_and_what_is_kept_is_bounded():
    cache = TokenCache()
    forged = signed(secret="a-secret-of-somebody-else-thirty-two", sub="eve")
    for _ in range(2):
        with pytest.raises(AuthError):
            cache.verify(forged, KEYS, NOW)
    assert not cache._known
    cache.verify(signed(sub="x" * MAX_CACHED), KEYS, NOW)
    assert not cache._known
    for number in range(CACHED + 3):
        cache.verify(signed(sub=str(number)), KEYS, NOW)
    assert len(cache._known) == CACHED
    assert signed(sub="0") not in cache._known


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.text(min_size=32, max_size=70))
def test_what_we_sign_is_what_anybody_verifies(attributes, secret):
    """PyJWT is the judge of our own signature, with keys up to and longer than a block of the hash."""
    token = issue_token("k", secret, now_unix=NOW, identity="ann", attributes=attributes)
    options = {"verify_exp": False, "verify_nbf": False}
    payload = jwt.decode(token, secret, algorithms=["HS256"], options=options)
    assert payload["sub"] == "ann"
    assert payload.get("attributes", {}) == attributes
