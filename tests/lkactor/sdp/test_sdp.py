"""Descriptions both ways, against aiortc's and hand-written ones in the shape of libwebrtc's."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.sdp import (
    Answerer,
    Fingerprint,
    LocalTransport,
    Offerer,
    ReceivePreference,
    SendTrack,
    SessionDescription,
    pick_codec,
)
from lkactor.wire.extensions import ABS_CAPTURE_TIME, DEPENDENCY_DESCRIPTOR, MID, PLAYOUT_DELAY, RID

HEX = ":".join(["AB"] * 32)
CANDIDATE = "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host"
LOCAL = LocalTransport("ufra", "p" * 24, True, Fingerprint("sha-256", HEX), (CANDIDATE,))
ALL = ("audio/opus", "audio/red", "audio/pcmu", "video/vp8", "video/h264", "video/vp9", "video/av1")
SESSION = [
    "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=extmap-allow-mixed", "a=ice-options:trickle goog-sped-v1",
    "a=ice-ufrag:abcd", f"a=ice-pwd:{'x' * 22}", f"a=fingerprint:SHA-256 {HEX.lower()}", "a=setup:actpass",
]  # fmt: skip
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 96 97 0 110", "c=IN IP4 0.0.0.0", "a=rtpmap:96 opus/48000/2",
    "a=fmtp:96 minptime=10;useinbandfec=1;stereo=1", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 transport-cc",
    "a=rtpmap:97 red/48000/2", "a=fmtp:97 96/96", "a=rtpmap:110 telephone-event/48000",
    f"a=extmap:4 {MID}", "a=extmap:5/recvonly urn:3gpp:video-orientation",
]  # fmt: skip
VIDEO = [
    "m=video 9 UDP/TLS/RTP/SAVPF 41 42 43 44 45", "c=IN IP4 0.0.0.0",
    "a=rtpmap:41 VP8/90000", "a=rtcp-fb:* nack pli", "a=rtcp-fb:41 goog-remb", "a=rtcp-fb:41 transport-cc",
    "a=rtpmap:42 rtx/90000", "a=fmtp:42 apt=41",
    "a=rtpmap:43 H264/90000", "a=fmtp:43 packetization-mode=1;profile-level-id=640c34;x-google-start-bitrate=900",
    "a=rtpmap:44 rtx/90000", "a=fmtp:44 apt=43", "a=rtpmap:45 VP9/90000", "a=fmtp:45 profile-id=2",
    f"a=extmap:4 {MID}", f"a=extmap:7 {RID}", f"a=extmap:12 {DEPENDENCY_DESCRIPTOR}",
]  # fmt: skip
DATA = ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=sctp-port:5000", "a=sctp-init:AAAA"]
MIC = ["a=sendonly", "a=msid:- mic"]
SIMULCAST = [
    "a=sendrecv", "a=msid:s cam", "a=rid:q send", "a=rid:h send", "a=rid:f send", "a=simulcast:send q;~h;f,q",
]  # fmt: skip


def offer(*sections: list[str], setup: str = "actpass", bundle: bool = True) -> str:
    lines = [*SESSION[:-1], f"a=setup:{setup}"]
    if bundle:
        lines.append("a=group:BUNDLE " + " ".join(str(i) for i in range(len(sections))))
    for index, section in enumerate(sections):
        lines += [*section, f"a=mid:{index}"]
    return "\r\n".join(lines) + "\r\n"


def answer_to(answerer: Answerer, sdp: str, **preferences: ReceivePreference) -> SessionDescription:
    answerer.receive_offer(sdp)
    return SessionDescription.parse(answerer.create_answer(LOCAL, preferences=preferences))


def track(name: str, kind: str = "video", ssrc: int = 1000, stereo: bool = False) -> SendTrack:
    return SendTrack(name, f"PA_x|{name}", kind, ssrc, ssrc + 1 if kind == "video" else None, stereo)


# -- answering ----------------------------------------------------------------------------------------------------


def test_answer_keeps_order_mids_payload_types_and_refuses_the_rest() -> None:
    answerer = Answerer(codecs=ALL)
    text = ["m=text 9 RTP/AVP 99", "a=sendrecv"]
    summary = answerer.receive_offer(offer([*AUDIO, *MIC], [*VIDEO, "a=recvonly"], text, DATA))
    assert summary.has_data and summary.transport.setup == "actpass"
    assert summary.transport.fingerprints == (Fingerprint("sha-256", HEX),)
    raw = answerer.create_answer(LOCAL)
    answer = SessionDescription.parse(raw)
    assert [section.mid for section in answer.media] == ["0", "1", "2", "3"]
    assert [section.port for section in answer.media] == [9, 9, 0, 9]
    assert answer.bundle == ("0", "1", "3") and answer.lite and answer.has("extmap-allow-mixed")
    assert [section.direction for section in answer.media[:3]] == ["recvonly", "inactive", "inactive"]
    assert answer.media[0].formats == ["96", "97", "0"]
    assert answer.media[1].formats == ["41", "42", "43", "44"]
    assert answer.media[1].get_all("rtcp-fb") == ["41 transport-cc", "41 nack pli", "43 nack pli"]
    assert "43 packetization-mode=1;profile-level-id=640c34" in answer.media[1].get_all("fmtp")
    assert answer.media[0].extensions == {MID: 4}
    assert answer.media[1].extensions == {MID: 4, RID: 7, DEPENDENCY_DESCRIPTOR: 12}
    assert answer.media[0].candidates == (CANDIDATE,) and answer.media[1].candidates == ()
    assert {section.get("setup") for section in answer.media} == {"active", None}
    assert "sped" not in raw and "sctp-init" not in raw


def test_what_a_client_may_not_send_is_still_sent_to_it() -> None:
    answerer = Answerer(codecs=ALL, publish_codecs=tuple(mime for mime in ALL if mime != "video/h264"), single=True)
    sendrecv, recvonly = [*VIDEO, "a=sendrecv"], [*VIDEO, "a=recvonly"]
    answer = answer_to(answerer, offer([*VIDEO, "a=sendonly", "a=msid:- cam"], sendrecv, recvonly))
    assert [section.formats for section in answer.media] == [["41", "42"], ["41", "42"], ["41", "42", "43", "44"]]


def test_remb_is_taken_only_by_the_single_connection() -> None:
    answer = answer_to(Answerer(codecs=ALL, single=True), offer([*VIDEO, "a=recvonly"]))
    assert "41 goog-remb" in answer.media[0].get_all("rtcp-fb")


@pytest.mark.parametrize("wanted", [True, False])
def test_playout_delay_is_taken_where_the_room_wants_it(wanted: bool) -> None:
    answerer = Answerer(codecs=ALL, single=True, playout_delay=wanted)
    both = [f"a=extmap:14 {PLAYOUT_DELAY}", "a=recvonly"]
    answer = answer_to(answerer, offer([*AUDIO, *both], [*VIDEO, *both]))
    assert [section.extensions.get(PLAYOUT_DELAY, 0) for section in answer.media] == [0, 14 * wanted]


def test_preferences_order_codecs_and_opus_parameters() -> None:
    sdp = offer([*AUDIO, *MIC], [*VIDEO, *SIMULCAST])
    preferences = {"mic": ReceivePreference(stereo=True), "cam": ReceivePreference(mime="video/h264")}
    answerer = Answerer(codecs=ALL)
    answer = answer_to(answerer, sdp, **preferences)
    assert answer.media[0].formats[0] == "97" and answer.media[1].formats[0] == "43"
    opus = "96 minptime=10;useinbandfec=1;usedtx=1;stereo=1;maxaveragebitrate=510000"
    assert opus in answer.media[0].get_all("fmtp")
    plain = answer_to(answerer, sdp, mic=ReceivePreference(disable_red=True, no_dtx=True))
    assert plain.media[0].formats[0] == "96"
    assert "96 minptime=10;useinbandfec=1" in plain.media[0].get_all("fmtp")


def test_simulcast_and_what_is_received() -> None:
    answerer = Answerer(codecs=ALL)
    answer = answer_to(answerer, offer([*VIDEO, *SIMULCAST], [*VIDEO, "a=sendonly", "a=ssrc-group:FID 7 8",
                                       "a=ssrc:7 msid:s old", "a=ssrc:8 msid:s old"]))  # fmt: skip
    assert answer.media[0].get_all("rid") == ["q recv", "h recv", "f recv"]
    assert answer.media[0].get("simulcast") == "recv q;h;f"
    simulcast, single = answerer.receive_media()
    assert (simulcast.cid, simulcast.stream_id, simulcast.rids) == ("cam", "s", ("q", "h", "f"))
    assert [(c.mime, c.payload_type, c.rtx_payload_type) for c in simulcast.codecs] == [
        ("video/vp8", 41, 42),
        ("video/h264", 43, 44),
    ]
    assert (single.cid, single.ssrcs, single.rtx_of) == ("old", (7,), {8: 7})


def test_tracks_take_receiving_sections_and_rest_them_between_tracks() -> None:
    answerer = Answerer(codecs=ALL, single=True)
    answerer.set_send_tracks([track("TR_A"), track("TR_B"), track("TR_M", "audio", 5, stereo=True)])
    assert answerer.missing_sections() == (1, 2)
    sdp = offer([*AUDIO, "a=recvonly"], [*VIDEO, "a=recvonly"])
    answer = answer_to(answerer, sdp)
    assert answerer.mid_to_track_id() == {"0": "TR_M", "1": "TR_A"} and answerer.missing_sections() == (0, 1)
    assert answer.media[1].direction == "sendonly" and answer.media[1].msid == ("PA_x|TR_A", "TR_A")
    assert answer.media[1].ssrcs() == ((1000,), {1001: 1000})
    assert "1001 cname:PA_x|TR_A" in answer.media[1].get_all("ssrc")
    assert any(fmtp.endswith(";sprop-stereo=1") for fmtp in answer.media[0].get_all("fmtp"))
    media = {media.track_id: media for media in answerer.send_media()}
    assert media["TR_A"].mid == "1" and media["TR_A"].extensions[DEPENDENCY_DESCRIPTOR] == 12
    answerer.set_send_tracks([track("TR_B")])
    assert answer_to(answerer, sdp).media[1].direction == "inactive"
    assert answerer.mid_to_track_id() == {} and answerer.missing_sections() == (0, 1)
    answer_to(answerer, sdp)
    assert answerer.mid_to_track_id() == {"1": "TR_B"} and answerer.missing_sections() == (0, 0)


def test_setup_is_kept_once_chosen() -> None:
    answerer = Answerer(codecs=ALL)
    assert answer_to(answerer, offer(DATA, setup="active")).media[0].get("setup") == "passive"
    assert answer_to(answerer, offer(DATA)).media[0].get("setup") == "passive"


def test_only_the_first_section_without_a_bundle() -> None:
    answer = answer_to(Answerer(codecs=ALL), offer([*AUDIO, *MIC], DATA, bundle=False))
    assert [section.port for section in answer.media] == [9, 0]


@pytest.mark.parametrize(
    ("sdp", "reason"),
    [
        ("", "sdp.no_version"),
        ("v=0\r\nfoo\r\n", "sdp.bad_line"),
        ("v=0\r\n", "sdp.no_sections"),
        ("v=0\r\nm=audio x UDP 1\r\n", "sdp.bad_port"),
        ("v=0\r\nm=audio\r\n", "sdp.bad_media_line"),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", "sdp.bad_mid"),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n", "sdp.no_ice_credentials"),
        ("v=0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n", "sdp.all_rejected"),
        (offer(DATA, setup="holdconn"), "sdp.bad_setup"),
        ("v=0\r\n" + "a=x\r\n" * 60000, "sdp.too_large"),
        ("v=0\r\n" + "m=audio 9 x 0\r\n" * 513, "sdp.too_many_sections"),
    ],
)
def test_bad_offers(sdp: str, reason: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        Answerer(codecs=ALL).receive_offer(sdp)
    assert caught.value.reason == reason


def test_removed_sections_are_refused() -> None:
    answerer = Answerer(codecs=ALL)
    answer_to(answerer, offer([*AUDIO, *MIC], DATA))
    with pytest.raises(ProtocolViolation, match=r"sdp\.sections_removed"):
        answerer.receive_offer(offer(DATA))


OFFER = offer([*AUDIO, *MIC], [*VIDEO, *SIMULCAST], DATA)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(OFFER)), st.integers(0, 40), st.text(max_size=12))
def test_damaged_offers_raise_nothing_else(at: int, cut: int, insert: str) -> None:
    damaged = OFFER[:at] + insert + OFFER[at + cut :]
    answerer = Answerer(codecs=ALL)
    try:
        answerer.receive_offer(damaged)
    except ProtocolViolation:
        return
    SessionDescription.parse(answerer.create_answer(LOCAL))


# -- offering -----------------------------------------------------------------------------------------------------


def agree(offerer: Offerer, *tracks: SendTrack) -> SessionDescription:
    """Offer the tracks and answer everything as a browser would."""
    offerer.set_send_tracks(tracks)
    sdp = offerer.create_offer(LOCAL)
    offerer.receive_answer(mirror(sdp))
    return SessionDescription.parse(sdp)


def mirror(sdp: str) -> str:
    return sdp.replace("a=sendonly", "a=recvonly").replace("a=setup:actpass", "a=setup:active")


def test_offer_numbers_and_data_section() -> None:
    offerer = Offerer(codecs=ALL, reuse_sections=True)
    sdp = agree(offerer, track("TR_M", "audio", 5, stereo=True), track("TR_A"))
    assert [(section.kind, section.mid) for section in sdp.media] == [
        ("audio", "0"), ("video", "1"), ("application", "2")]  # fmt: skip
    assert sdp.media[0].formats == ["111", "63", "0"]
    assert sdp.media[1].formats == ["96", "97", "125", "126", "108", "109", "98", "99", "100", "101", "35", "36"]
    assert "111 minptime=10;useinbandfec=1;sprop-stereo=1" in sdp.media[0].get_all("fmtp")
    assert sdp.media[0].extensions == {ABS_CAPTURE_TIME: 2} and sdp.media[1].extensions[DEPENDENCY_DESCRIPTOR] == 1
    assert sdp.media[1].msid == ("PA_x|TR_A", "TR_A") and sdp.media[0].get("setup") == "actpass"
    assert offerer.has_data and offerer.mid_to_track_id() == {"0": "TR_M", "1": "TR_A"}
    # The data section keeps its index for ever.
    later = agree(offerer, track("TR_M", "audio", 5), track("TR_A"), track("TR_B"))
    assert [section.kind for section in later.media] == ["audio", "video", "application", "video"]


@pytest.mark.parametrize("wanted", [True, False])
def test_playout_delay_is_offered_where_the_room_wants_it(wanted: bool) -> None:
    offerer = Offerer(codecs=ALL, playout_delay=wanted)
    sdp = agree(offerer, track("TR_M", "audio", 5), track("TR_A"))
    assert [section.extensions.get(PLAYOUT_DELAY, 0) for section in sdp.media] == [0, 4 * wanted, 0]
    assert [media.extensions.get(PLAYOUT_DELAY, 0) for media in offerer.send_media()] == [0, 4 * wanted]


def test_a_peer_need_not_take_the_playout_delay() -> None:
    offerer = Offerer(codecs=ALL, playout_delay=True)
    offerer.set_send_tracks([track("TR_A")])
    answer = mirror(offerer.create_offer(LOCAL)).replace(f"a=extmap:4 {PLAYOUT_DELAY}\r\n", "")
    offerer.receive_answer(answer)
    assert PLAYOUT_DELAY not in offerer.send_media()[0].extensions


def test_idle_sections_are_taken_after_a_rest() -> None:
    offerer = Offerer(codecs=ALL, reuse_sections=True)
    agree(offerer, track("TR_A"))
    swapped = agree(offerer, track("TR_B"))
    assert [section.direction for section in swapped.media] == ["inactive", "sendrecv", "sendonly"]
    assert [media.track_id for media in offerer.send_media()] == ["TR_B"]
    assert agree(offerer, track("TR_B"), track("TR_C")).media[0].msid[1] == "TR_C"
    fixed = Offerer(codecs=ALL, reuse_sections=False)
    agree(fixed, track("TR_A"))
    agree(fixed)
    assert len(agree(fixed, track("TR_B")).media) == 3


def test_answer_narrows_codecs_and_may_refuse() -> None:
    offerer = Offerer(codecs=ALL, reuse_sections=True)
    offerer.set_send_tracks([track("TR_A"), track("TR_B")])
    answer = SessionDescription.parse(mirror(offerer.create_offer(LOCAL)))
    answer.media[0].formats = ["50", "51", "99", "98"]
    answer.media[0].attributes += [("rtpmap", "50 H264/90000"), ("rtpmap", "51 rtx/90000"), ("fmtp", "51 apt=50")]
    answer.media[0].attributes += [("fmtp", "50 packetization-mode=1;profile-level-id=42e033")]
    answer.media[1].port = 0
    transport = offerer.receive_answer(str(answer))
    assert (transport.ufrag, transport.setup, transport.lite) == ("ufra", "active", True)
    assert transport.candidates == (CANDIDATE,)
    (media,) = offerer.send_media()
    assert media.track_id == "TR_A"
    assert [(c.mime, c.payload_type, c.rtx_payload_type) for c in media.codecs] == [
        ("video/h264", 50, 51), ("video/vp9", 98, 99)]  # fmt: skip
    again = SessionDescription.parse(offerer.create_offer(LOCAL))
    assert again.media[1].port == 0 and again.bundle == ("0", "2")


def test_bad_answers() -> None:
    offerer = Offerer(codecs=ALL, reuse_sections=True)
    with pytest.raises(ProtocolViolation, match=r"sdp\.no_offer"):
        offerer.receive_answer(offer(DATA, setup="active"))
    offerer.set_send_tracks([track("TR_A")])
    sdp = offerer.create_offer(LOCAL)
    for bad, reason in (
        (offer(DATA, setup="active"), "sdp.section_count"),
        (offer(DATA, DATA, setup="active"), "sdp.section_mismatch"),
        (sdp, "sdp.bad_setup"),
        (mirror(sdp).replace("ice-ufrag", "x"), "sdp.no_ice_credentials"),
    ):
        with pytest.raises(ProtocolViolation) as caught:
            offerer.receive_answer(bad)
        assert caught.value.reason == reason
    offerer.receive_answer(mirror(sdp))


def test_pick_codec() -> None:
    offerer = Offerer(codecs=ALL, reuse_sections=True)
    agree(offerer, track("TR_A"))
    (media,) = offerer.send_media()
    h264 = "level-asymmetry-allowed=1;packetization-mode={};profile-level-id=42e0{}"
    chosen = [
        pick_codec(media, "video/h264", h264.format(0, "0d")), pick_codec(media, "video/h264", h264.format(1, "1f")),
        pick_codec(media, "video/H264", "packetization-mode=1;profile-level-id=640032"),
        pick_codec(media, "video/vp9", "profile-id=1"), pick_codec(media, "video/vp9", "profile-id=2"),
        pick_codec(media, "video/vp8", ""), pick_codec(media, "audio/opus", ""),
    ]  # fmt: skip
    assert [codec and codec.payload_type for codec in chosen] == [125, 108, 108, 100, None, 96, None]


# -- aiortc -------------------------------------------------------------------------------------------------------


def test_aiortc_takes_our_answer() -> None:
    async def run() -> None:
        peer = RTCPeerConnection()
        peer.createDataChannel("_reliable")
        peer.addTransceiver("audio", direction="sendonly")
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        answerer = Answerer(codecs=ALL, single=True)
        answerer.set_send_tracks([track("TR_A")])
        summary = answerer.receive_offer(peer.localDescription.sdp)
        assert summary.has_data and summary.transport.candidates and not summary.transport.lite
        assert [media.kind for media in answerer.receive_media()] == []
        await peer.setRemoteDescription(RTCSessionDescription(answerer.create_answer(LOCAL), "answer"))
        assert [media.kind for media in answerer.receive_media()] == ["audio"]
        (sent,) = answerer.send_media()
        assert pick_codec(sent, "video/vp8", "") is not None
        assert [t.currentDirection for t in peer.getTransceivers()] == ["sendonly", "recvonly"]
        await peer.close()

    asyncio.run(run())


def test_aiortc_answers_our_offer() -> None:
    async def run() -> None:
        peer = RTCPeerConnection()
        offerer = Offerer(codecs=ALL, reuse_sections=True)
        offerer.set_send_tracks([track("TR_A"), track("TR_M", "audio", 5)])
        await peer.setRemoteDescription(RTCSessionDescription(offerer.create_offer(LOCAL), "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        transport = offerer.receive_answer(peer.localDescription.sdp)
        assert transport.setup == "active" and transport.fingerprints and offerer.has_data
        assert [media.track_id for media in offerer.send_media()] == ["TR_A", "TR_M"]
        video, audio = offerer.send_media()
        assert {codec.mime for codec in video.codecs} == {"video/vp8", "video/h264"}
        assert audio.codecs[0].payload_type == 111
        await peer.close()

    asyncio.run(run())
