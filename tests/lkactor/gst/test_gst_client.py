"""What peers say through the server, and what the bridge makes of it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from lkactor.auth import Claims, VideoGrant
from lkactor.errors import ProtocolViolation
from lkactor.gst import IceCandidate, OfferRequest, PeerSdp, parse_payload, write_sdp
from lkactor.gst.client import IN_ROOM, MAX_TRACKS, BridgeClient

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"


def section(kind: str, mid: str, direction: str = "sendrecv", msid: str = "", port: int = 9) -> str:
    lines = [f"m={kind} {port} UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", f"a=mid:{mid}", f"a={direction}"]
    if msid:
        lines.append(f"a=ssrc:1 msid:{msid}")
    return "".join(f"{line}\r\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("OFFER_REQUEST", OfferRequest()),
        (" OFFER_REQUEST\n", OfferRequest()),
        ('{"sdp": {"type": "offer", "sdp": "v=0"}}', PeerSdp("offer", "v=0")),
        ('{"sdp": {"type": "answer", "sdp": ""}, "more": 1}', PeerSdp("answer", "")),
        ('{"sdp": {"type": "offer", "sdp": "\\ud800"}}', PeerSdp("offer", "?")),
        ('{"ice": {"candidate": "candidate:1 1 UDP", "sdpMLineIndex": 0}}', IceCandidate("candidate:1 1 UDP")),
        ('{"ice": {"candidate": "a=candidate:1", "sdpMid": "0"}}', IceCandidate("candidate:1")),
        ('{"ice": {"candidate": "", "sdpMLineIndex": 0}}', IceCandidate("")),
        ('{"ice": null}', IceCandidate("")),
    ],
)
def test_payloads(text: str, payload: object) -> None:
    assert parse_payload(text) == payload


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "gst.payload_not_json"),
        ("", "gst.payload_not_json"),
        ("[" * 100_000, "gst.payload_not_json"),
        (" " * 300_000 + "{", "gst.payload_too_large"),
        ("[]", "gst.payload_not_object"),
        ("{}", "gst.payload_unknown"),
        ('{"sdp": "v=0"}', "gst.bad_sdp"),
        ('{"sdp": {"type": "pranswer", "sdp": ""}}', "gst.bad_sdp"),
        ('{"sdp": {"type": ["offer"], "sdp": ""}}', "gst.bad_sdp"),
        ('{"sdp": {"type": "offer"}}', "gst.bad_sdp"),
        ('{"ice": "candidate"}', "gst.bad_candidate"),
        ('{"ice": {}}', "gst.bad_candidate"),
        ('{"ice": {"candidate": 1}}', "gst.bad_candidate"),
        (json.dumps({"ice": {"candidate": "x" * 2000}}), "gst.bad_candidate"),
    ],
)
def test_bad_payloads(text: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_payload(text)
    assert caught.value.reason == reason


@given(st.text())
def test_any_text_is_a_payload_or_a_violation(text: str) -> None:
    try:
        parse_payload(text)
    except ProtocolViolation:
        pass


def test_written_payloads_are_read_back() -> None:
    assert parse_payload(write_sdp("answer", "v=0\r\n")) == PeerSdp("answer", "v=0\r\n")


def kinds(requests: tuple[rtc.SignalRequest, ...]) -> list[str | None]:
    return [request.WhichOneof("message") for request in requests]


def test_the_join_is_that_of_a_token_for_this_room() -> None:
    intent = BridgeClient("cam", "demo", in_room=True).intent(now_unix=1000.0, server_offers="first", api_key="key")
    assert (intent.identity, intent.room, intent.claims.name) == ("gst-cam", "demo", "cam")
    assert intent.claims.video is not None
    video = intent.claims.video
    assert (video.room, video.room_admin, video.room_create) == ("demo", False, False)
    assert (intent.parameters.single, intent.parameters.server_offers) == (True, "first")
    assert intent.claims.attributes == {IN_ROOM: "demo"}


def test_what_the_peer_sends_is_announced_once() -> None:
    client = BridgeClient("cam", "demo", in_room=False)
    sdp = HEAD + section("audio", "a0", msid="u@h mic") + section("video", "v1", msid="u@h eye")
    *tracks, offer = client.described("offer", sdp)
    assert [(t.add_track.cid, t.add_track.type, t.add_track.source) for t in tracks] == [
        ("mic", models.TrackType.AUDIO, models.TrackSource.MICROPHONE),
        ("eye", models.TrackType.VIDEO, models.TrackSource.CAMERA),
    ]
    assert offer.offer.sdp == sdp
    assert kinds(client.described("answer", sdp)) == ["answer"]


def test_sections_without_media_of_the_peer_are_not_announced() -> None:
    client = BridgeClient("cam", "demo", in_room=False)
    sdp = HEAD + section("audio", "0", "recvonly") + section("video", "1", "inactive") + section("video", "2", port=0)
    assert kinds(client.described("offer", sdp + section("application", "3"))) == ["offer"]


def test_a_second_camera_and_tracks_without_a_name() -> None:
    client = BridgeClient("cam", "demo", in_room=False)
    sdp = HEAD + section("video", "0", msid="s x") + section("video", "1", msid="s x") + section("video", "2")
    *tracks, _ = client.described("offer", sdp)
    assert [t.add_track.cid for t in tracks] == ["x", "video-1", "video-2"]
    sources = [t.add_track.source for t in tracks]
    assert sources == [models.TrackSource.CAMERA, models.TrackSource.UNKNOWN, models.TrackSource.UNKNOWN]


def test_a_section_that_sends_again_is_announced_again() -> None:
    client = BridgeClient("cam", "demo", in_room=False)
    client.described("offer", HEAD + section("audio", "0"))
    assert kinds(client.described("offer", HEAD + section("audio", "0", "recvonly"))) == ["offer"]
    assert kinds(client.described("offer", HEAD + section("audio", "0"))) == ["add_track", "offer"]


def test_tracks_are_bounded() -> None:
    sdp = HEAD + "".join(section("audio", str(n)) for n in range(MAX_TRACKS + 5))
    assert len(BridgeClient("c", "r", in_room=False).described("offer", sdp)) == MAX_TRACKS + 1


def test_a_description_that_is_none() -> None:
    with pytest.raises(ProtocolViolation):
        BridgeClient("c", "r", in_room=False).described("offer", "nonsense")


def person(identity: str, *tracks: str, gone: bool = False, room: str = "") -> models.ParticipantInfo:
    states = models.ParticipantInfo.State
    return models.ParticipantInfo(
        sid=f"PA_{identity}",
        identity=identity,
        state=states.DISCONNECTED if gone else states.ACTIVE,
        tracks=[models.TrackInfo(sid=sid) for sid in tracks],
        attributes={IN_ROOM: room} if room else {},
    )


def wanted(client: BridgeClient, *people: models.ParticipantInfo) -> list[str]:
    requests = client.participants(people)
    assert all(request.subscription.subscribe for request in requests)
    return [sid for request in requests for sid in request.subscription.track_sids]


def test_every_track_of_others_is_asked_for_once() -> None:
    client = BridgeClient("cam", "demo", in_room=False)
    assert wanted(client, person("alice", "TR_1"), person("gst-cam", "TR_own")) == ["TR_1"]
    assert wanted(client, person("alice", "TR_1", "TR_2")) == ["TR_2"]
    assert wanted(client, person("alice", "TR_1")) == []
    assert wanted(client, person("alice", "TR_2")) == ["TR_2"]
    assert wanted(client, person("alice", gone=True)) == []
    assert wanted(client, person("alice", "TR_2")) == ["TR_2"]


def test_peers_of_the_same_room_have_each_other_already() -> None:
    in_room, called = BridgeClient("a", "hall", in_room=True), BridgeClient("b", "hall", in_room=False)
    member = person("gst-x", "TR_1", room="hall")
    assert wanted(in_room, member) == []
    assert wanted(called, member) == ["TR_1"]
    assert wanted(in_room, person("gst-y", "TR_2", room="other")) == ["TR_2"]


def test_a_token_gives_its_identity_and_permissions():
    video = VideoGrant(room_join=True, room="studio", can_publish=False)
    claims = Claims(api_key="k", identity="cam", expires_at=5.0, name="Cam", attributes={"a": "b"}, video=video)
    client = BridgeClient("uid", "studio", in_room=True)
    intent = client.intent(now_unix=0.0, server_offers="later", api_key="other", token=claims)
    assert (intent.identity, intent.claims.name, intent.claims.api_key) == ("cam", "Cam", "k")
    assert intent.claims.video == video
    assert intent.claims.attributes == {"a": "b", IN_ROOM: "studio"}
    nameless = replace(claims, identity="", name="")
    intent = client.intent(now_unix=0.0, server_offers="later", api_key="other", token=nameless)
    assert (intent.identity, intent.claims.identity, intent.claims.name) == ("gst-uid", "gst-uid", "uid")
