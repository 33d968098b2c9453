"""Both sides may offer, sections carry media both ways: what webrtcbin needs (RFC 3264, RFC 8829, RFC 9143)."""

import pytest

from lkactor.errors import ProtocolViolation
from lkactor.fingerprint import Fingerprint
from lkactor.sdp import LocalTransport, SendTrack, SessionDescription
from lkactor.sdp.either import MAX_SECTIONS, EitherSide
from lkactor.wire.extensions import PLAYOUT_DELAY

CODECS = ("audio/opus", "audio/red", "video/vp8", "video/h264", "video/vp9")
LOCAL = LocalTransport(
    "ufrag", "p" * 22, False, Fingerprint("sha-256", ":".join(["AB"] * 32)), ("candidate:1 1 udp 1 1.2.3.4 5",)
)
DIGEST = ":".join(["CD"] * 32)
TRANSPORT = f"a=ice-ufrag:peer\r\na=ice-pwd:{'q' * 22}\r\na=fingerprint:sha-256 {DIGEST}\r\n"
RTPMAPS = {"opus": "97 OPUS/48000/2", "vp8": "96 VP8/90000", "h264": "98 H264/90000", "g722": "9 G722/8000"}


def section(kind: str, mid: str, codec: str, direction: str = "sendrecv", setup: str = "actpass", port: int = 9) -> str:
    rtpmap = RTPMAPS[codec]
    return (
        f"m={kind} {port} UDP/TLS/RTP/SAVPF {rtpmap.split()[0]}\r\nc=IN IP4 0.0.0.0\r\n{TRANSPORT}a=setup:{setup}\r\n"
        f"a=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\na=rtpmap:{rtpmap}\r\n"
        f"a=ssrc:{1000 + len(mid)} msid:s {mid}-t\r\n"
    )


def peer(*sections: str, bundle: str | None = None) -> str:
    mids = " ".join(text.split("a=mid:")[1].split("\r\n")[0] for text in sections)
    head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    return f"{head}a=group:BUNDLE {mids if bundle is None else bundle}\r\n{''.join(sections)}"


def track(name: str, kind: str = "audio", *mimes: str) -> SendTrack:
    mimes = mimes or (("audio/opus",) if kind == "audio" else ("video/vp8",))
    return SendTrack(name, f"stream-{name}", kind, ssrc=abs(hash(name)) % 2**32 or 1, mimes=mimes)


def directions(sdp: str) -> list[str]:
    return [f"{s.kind} {'refused' if s.port == 0 else s.direction}" for s in SessionDescription.parse(sdp).media]


def msids(sdp: str) -> list[str]:
    return [s.msid[1] for s in SessionDescription.parse(sdp).media]


CALL = peer(section("audio", "a0", "opus"), section("video", "v1", "vp8"))


def answered(offer: str = CALL, *tracks: SendTrack) -> tuple[EitherSide, str]:
    side = EitherSide(codecs=CODECS)
    side.set_send_tracks(tracks)
    side.receive_offer(offer)
    return side, side.create_answer(LOCAL)


def reply(offer: str, **changed: str) -> str:
    """An agreeable peer: every section answered with the mirrored direction, or as `changed` by mid says."""
    mirror = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
    sections = []
    for offered in SessionDescription.parse(offer).media:
        direction = changed.get(offered.mid, mirror[offered.direction])
        rtpmaps = {value.split()[0]: value for value in offered.get_all("rtpmap")}
        number = offered.formats[0]
        port = 0 if direction == "refused" else 9
        directed = "inactive" if direction == "refused" else direction
        sections.append(
            f"m={offered.kind} {port} UDP/TLS/RTP/SAVPF {number}\r\n{TRANSPORT}a=setup:active\r\n"
            f"a=mid:{offered.mid}\r\na={directed}\r\na=rtpmap:{rtpmaps[number]}\r\n"
        )
    return peer(*sections)


# -- answering


@pytest.mark.parametrize("wanted", [True, False])
def test_playout_delay_is_taken_where_the_room_wants_it(wanted: bool) -> None:
    side = EitherSide(codecs=CODECS, playout_delay=wanted)
    side.set_send_tracks([track("a", "video")])
    extension = f"a=extmap:9 {PLAYOUT_DELAY}\r\n"
    side.receive_offer(peer(section("video", "v1", "vp8") + extension))
    answer = SessionDescription.parse(side.create_answer(LOCAL))
    assert answer.media[0].extensions.get(PLAYOUT_DELAY, 0) == 9 * wanted
    assert side.send_media()[0].extensions.get(PLAYOUT_DELAY, 0) == 9 * wanted


@pytest.mark.parametrize(
    ("offered", "tracks", "directed"),
    [
        ("sendrecv", [], "recvonly"),
        ("sendrecv", [track("x")], "sendrecv"),
        ("sendonly", [track("x")], "recvonly"),
        ("recvonly", [track("x")], "sendonly"),
        ("recvonly", [], "inactive"),
        ("inactive", [track("x")], "inactive"),
    ],
)
def test_directions_of_an_answer(offered: str, tracks: list[SendTrack], directed: str) -> None:
    side, answer = answered(peer(section("audio", "a0", "opus", offered)), *tracks)
    assert directions(answer) == [f"audio {directed}"]
    assert len(side.send_media()) == (directed in ("sendrecv", "sendonly"))
    assert len(side.receive_media()) == (offered in ("sendrecv", "sendonly"))


def test_an_answer_with_media_both_ways() -> None:
    side, answer = answered(CALL, track("mic"), track("cam", "video"))
    assert directions(answer) == ["audio sendrecv", "video sendrecv"]
    assert msids(answer) == ["mic", "cam"]
    parsed = SessionDescription.parse(answer)
    assert parsed.bundle == ("a0", "v1")
    assert [s.get("setup") for s in parsed.media] == ["active", "active"]
    assert parsed.media[0].candidates and not parsed.media[1].candidates
    received = side.receive_media()
    assert [(m.mid, m.kind, m.cid, m.codecs[0].payload_type) for m in received] == [
        ("a0", "audio", "a0-t", 97), ("v1", "video", "v1-t", 96),
    ]  # fmt: skip
    assert [(m.track_id, m.mid) for m in side.send_media()] == [("mic", "a0"), ("cam", "v1")]
    assert not side.must_offer()


def test_a_track_goes_only_where_its_codec_is() -> None:
    side, answer = answered(CALL, track("cam", "video", "video/h264"))
    assert directions(answer) == ["audio recvonly", "video recvonly"]
    assert side.must_offer()


def test_red_goes_where_opus_is() -> None:
    _, answer = answered(CALL, track("mic", "audio", "audio/red"))
    assert msids(answer) == ["mic", ""]


@pytest.mark.parametrize(
    ("offer", "directed"),
    [
        (CALL.replace("m=video 9", "m=video 0"), ["recvonly", "refused"]),
        (peer(section("audio", "a0", "g722"), section("video", "v1", "vp8")), ["refused", "recvonly"]),
        (CALL.replace("BUNDLE a0 v1", "BUNDLE v1"), ["refused", "recvonly"]),
        (CALL.replace("BUNDLE a0 v1", "LS a0 v1"), ["recvonly", "refused"]),
    ],
)
def test_what_cannot_be_used_is_refused(offer: str, directed: list[str]) -> None:
    _, answer = answered(offer)
    assert [text.split()[1] for text in directions(answer)] == directed


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ("", "sdp.no_version"),
        ("v=0\r\n", "sdp.no_sections"),
        (peer(section("audio", "a", "opus"), section("video", "a", "vp8")), "sdp.bad_mid"),
        (CALL.replace("m=audio 9", "m=audio 0").replace("m=video 9", "m=video 0"), "sdp.bad_mid"),
        (CALL.replace("ufrag:peer", "ufrag:x"), "sdp.no_ice_credentials"),
        (peer(section("audio", "a0", "opus")), "sdp.section_count"),
        (peer(*(section("audio", f"a{n}", "opus") for n in range(MAX_SECTIONS + 1))), "sdp.section_count"),
    ],
)
def test_bad_offers(offer: str, reason: str) -> None:
    side, _ = answered(CALL, track("mic"))
    before = side.send_media()
    with pytest.raises(ProtocolViolation) as caught:
        side.receive_offer(offer)
    assert caught.value.reason == reason
    assert side.send_media() == before


def test_no_answer_without_an_offer() -> None:
    with pytest.raises(ProtocolViolation):
        EitherSide(codecs=CODECS).create_answer(LOCAL)


# -- offering


def test_more_tracks_are_offered_on_sections_of_their_own() -> None:
    side, _ = answered(CALL, track("mic"))
    side.set_send_tracks([track("mic"), track("mic2"), track("cam", "video"), track("cam2", "video", "video/h264")])
    assert side.must_offer()
    offer = side.create_offer(LOCAL)
    # The peer's video was answered recvonly: that direction stays, so the camera has a section of its own.
    assert [text.split()[1] for text in directions(offer)] == [
        "sendrecv",
        "recvonly",
        "sendonly",
        "sendonly",
        "sendonly",
    ]
    assert msids(offer) == ["mic", "", "mic2", "cam", "cam2"]
    media = SessionDescription.parse(offer).media
    assert media[2].formats == media[0].formats, "one meaning for a payload type in a bundle"
    assert media[3].formats[0] == media[1].formats[0]
    assert not set(media[4].formats) & set(media[3].formats)
    assert {s.get("setup") for s in media} == {"active"}, "the role of the association that lives"
    side.receive_answer(reply(offer))
    assert {m.track_id for m in side.send_media()} == {"mic", "cam", "mic2", "cam2"}
    assert not side.must_offer()


def test_nothing_is_sent_on_a_section_before_its_answer() -> None:
    side, _ = answered(CALL, track("mic"))
    side.set_send_tracks([track("mic"), track("mic2")])
    side.create_offer(LOCAL)
    assert [m.track_id for m in side.send_media() if m.track_id == "mic2"] == []


def test_a_section_rests_for_one_description() -> None:
    side, _ = answered(CALL, track("one"))
    side.set_send_tracks([track("two")])
    offer = side.create_offer(LOCAL)
    assert msids(offer) == ["", ""]
    assert directions(offer)[0] == "audio sendrecv", "the direction that was agreed on stays"
    side.receive_answer(reply(offer))
    assert side.must_offer()
    offer = side.create_offer(LOCAL)
    assert msids(offer) == ["two", ""]
    assert len(SessionDescription.parse(offer).media) == 2
    side.receive_answer(reply(offer))
    assert [(m.track_id, m.mid) for m in side.send_media()] == [("two", "a0")]


def test_a_section_of_ours_rests_inactive_and_is_used_again() -> None:
    side, _ = answered(CALL, track("mic"))
    for tracks, directed in (
        (["mic", "mic2"], "sendonly"), (["mic"], "inactive"), (["mic", "mic3"], "sendonly"),
    ):  # fmt: skip
        side.set_send_tracks([track(name) for name in tracks])
        offer = side.create_offer(LOCAL)
        assert directions(offer) == ["audio sendrecv", "video recvonly", f"audio {directed}"]
        side.receive_answer(reply(offer))
        assert [m.track_id for m in side.send_media()] == tracks


def test_a_sendrecv_section_that_the_peer_only_sends_on() -> None:
    """Offered both ways, answered sendonly: its track gets a section of its own."""
    side = EitherSide(codecs=CODECS)
    side.set_send_tracks([track("mic")])
    side.receive_answer(reply(side.create_offer(LOCAL), audio0="sendonly"))
    assert side.send_media() == ()
    assert side.must_offer()
    offer = side.create_offer(LOCAL)
    assert directions(offer) == ["audio recvonly", "video recvonly", "audio sendonly"]
    side.receive_answer(reply(offer))
    assert [m.track_id for m in side.send_media()] == ["mic"]


@pytest.mark.parametrize("answer", ["refused", "inactive"])
def test_a_track_that_is_not_wanted_is_not_offered_again(answer: str) -> None:
    side, _ = answered(CALL, track("mic"))
    side.set_send_tracks([track("mic"), track("mic2")])
    offer = side.create_offer(LOCAL)
    mid = SessionDescription.parse(offer).media[2].mid
    side.receive_answer(reply(offer, **{mid: answer}))
    assert [m.track_id for m in side.send_media()] == ["mic"]
    assert not side.must_offer()
    side.set_send_tracks([track("mic")])
    side.set_send_tracks([track("mic"), track("mic2")])
    assert side.must_offer() is True, "taken away and back it is a new wish"


def test_the_first_offer_has_room_for_the_peer() -> None:
    side = EitherSide(codecs=CODECS)
    side.set_send_tracks([track("mic")])
    offer = side.create_offer(LOCAL)
    assert directions(offer) == ["audio sendrecv", "video recvonly"]
    assert SessionDescription.parse(offer).media[0].get("setup") == "actpass"
    assert "red" not in offer
    transport = side.receive_answer(reply(offer))
    assert transport.setup == "active"
    assert [m.kind for m in side.receive_media()] == ["audio", "video"]
    assert [m.codecs[0].mime for m in side.receive_media()] == ["audio/opus", "video/vp8"]
    side.set_send_tracks([track("mic"), track("mic2")])
    assert SessionDescription.parse(side.create_offer(LOCAL)).media[0].get("setup") == "passive"


def test_a_peer_that_sends_nothing() -> None:
    side = EitherSide(codecs=CODECS)
    offer = side.create_offer(LOCAL)
    side.receive_answer(reply(offer, audio0="inactive", video0="inactive"))
    assert side.receive_media() == ()


def test_an_offer_that_crosses_ours_wins() -> None:
    side, _ = answered(CALL, track("mic"))
    side.set_send_tracks([track("mic"), track("mic2")])
    withdrawn = side.create_offer(LOCAL)
    side.receive_offer(CALL)
    answer = side.create_answer(LOCAL)
    assert msids(answer) == ["mic", ""]
    with pytest.raises(ProtocolViolation):
        side.receive_answer(reply(withdrawn))
    assert side.must_offer()
    offer = side.create_offer(LOCAL)
    assert msids(offer) == ["mic", "", "mic2"]
    side.receive_answer(reply(offer))
    assert [m.track_id for m in side.send_media()] == ["mic", "mic2"]


def test_the_peer_may_add_sections_to_ours() -> None:
    side, _ = answered(CALL, track("mic"))
    side.set_send_tracks([track("mic"), track("mic2")])
    side.receive_answer(reply(side.create_offer(LOCAL)))
    mid = side.send_media()[1].mid
    more = peer(
        section("audio", "a0", "opus"), section("video", "v1", "vp8"),
        section("audio", mid, "opus", "recvonly"), section("video", "v9", "vp8", "sendonly"),
    )  # fmt: skip
    side.receive_offer(more)
    directed = [text.split()[1] for text in directions(side.create_answer(LOCAL))]
    assert directed == ["sendrecv", "recvonly", "sendonly", "recvonly"]


def test_sections_are_bounded() -> None:
    side, _ = answered(CALL)
    side.set_send_tracks([track(f"t{n}") for n in range(2 * MAX_SECTIONS)])
    offer = side.create_offer(LOCAL)
    assert len(SessionDescription.parse(offer).media) == MAX_SECTIONS
    side.receive_answer(reply(offer))
    assert not side.must_offer()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text + section("audio", "x", "opus"), "sdp.section_count"),
        (lambda text: text.replace("a=mid:a0", "a=mid:b0"), "sdp.section_mismatch"),
        (lambda text: text.replace("m=audio", "m=video"), "sdp.section_mismatch"),
        (lambda text: text.replace("setup:active", "setup:actpass"), "sdp.bad_setup"),
        (lambda text: text.replace("a=ice-ufrag:peer\r\n", ""), "sdp.no_ice_credentials"),
        (lambda text: "garbage", "sdp.no_version"),
    ],
)
def test_bad_answers(spoil: object, reason: str) -> None:
    side, _ = answered(CALL)
    side.set_send_tracks([track("mic")])
    good = reply(side.create_offer(LOCAL))
    with pytest.raises(ProtocolViolation) as caught:
        side.receive_answer(spoil(good))  # type: ignore[operator]
    assert caught.value.reason == reason
    side.receive_answer(good)
