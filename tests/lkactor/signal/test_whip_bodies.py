"""WHIP bodies: offers become joins, fragments become candidates and restarts (RFC 9725)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from lkactor.errors import ProtocolViolation
from lkactor.signal import whip

OFFER = (
    "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=msid:s mic\r\n"
    "a=ice-ufrag:old1\r\na=ice-pwd:oldpasswordoldpasswordold\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\na=end-of-candidates\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=msid:s cam\r\n"
    "a=rtpmap:96 VP8/90000\r\n"
    "a=ice-ufrag:old1\r\na=ice-pwd:oldpasswordoldpasswordold\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n"
)
FRAGMENT = (
    "a=ice-ufrag:new1\r\na=ice-pwd:newpasswordnewpasswordnew\r\na=candidate:2 1 udp 1 192.0.2.2 6000 typ host\r\n"
)


def test_what_is_sent_is_announced():
    parameters = whip.parameters(OFFER)
    assert [(t.cid, t.name, t.type, t.source) for t in parameters.add_tracks] == [
        ("mic", "synthesized-microphone", models.TrackType.AUDIO, models.TrackSource.MICROPHONE),
        ("cam", "synthesized-camera", models.TrackType.VIDEO, models.TrackSource.CAMERA),
    ]
    assert parameters.single and parameters.disable_ice_lite and parameters.protocol == 17
    assert parameters.offer is not None and parameters.offer.sdp == OFFER


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        ("", "sdp.no_version"),
        ("v=0", "sdp.no_sections"),
        (OFFER.replace("m=audio 9", "m=audio 0").replace("m=video 9", "m=video 0"), "sdp.no_sections"),
        (OFFER.replace("a=ice-", "a=nice-"), "sdp.no_ice_credentials"),
    ],
)
def test_an_offer_that_nobody_could_answer_lets_nobody_in(offer, reason):
    with pytest.raises(ProtocolViolation, match=reason):
        whip.parameters(offer)


def test_a_restart_replaces_credentials_and_candidates_everywhere():
    text = whip.restarted(OFFER, FRAGMENT)
    assert text.count("a=ice-ufrag:new1\r\n") == 2 and "old" not in text
    assert whip.candidates_of(text) == ["candidate:2 1 udp 1 192.0.2.2 6000 typ host"]
    assert "end-of-candidates" not in text


@pytest.mark.parametrize("fragment", ["", "a=ice-ufrag:x\r\n", "a=ice-pwd:x\r\n", "nonsense"])
def test_a_restart_needs_credentials(fragment):
    with pytest.raises(ProtocolViolation):
        whip.restarted(OFFER, fragment)


def test_the_answer_to_a_restart_is_a_fragment():
    assert whip.fragment_of(OFFER) == (
        "a=ice-ufrag:old1\r\na=ice-pwd:oldpasswordoldpasswordold\r\n"
        "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\na=end-of-candidates\r\n"
    )


def test_links_carry_credentials():
    servers = [
        rtc.ICEServer(urls=["stun:stun.example:3478"]),
        rtc.ICEServer(urls=["turn:a?transport=udp", "turns:b?transport=tcp"], username="u", credential="c"),
    ]
    assert whip.links(servers) == [
        '<stun:stun.example:3478>; rel="ice-server"',
        '<turn:a?transport=udp>; rel="ice-server"; username="u"; credential="c"; credential-type="password"',
        '<turns:b?transport=tcp>; rel="ice-server"; username="u"; credential="c"; credential-type="password"',
    ]


def test_candidates_are_bounded():
    assert len(whip.candidates_of("a=candidate:x\r\n" * 1000)) == whip.MAX_CANDIDATES


@given(st.text(max_size=300))
def test_any_body(text):
    for call in (lambda: whip.parameters(text), lambda: whip.restarted(OFFER, text), lambda: whip.candidates_of(text)):
        try:
            call()
        except ProtocolViolation:
            pass
