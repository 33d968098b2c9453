"""A GStreamer peer in a LiveKit room: webrtcbin on one side, the Python SDK on the other, media measured both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from livekit import rtc
from support.gst import gst_peers, missing
from support.interop import BLUE, GREEN, MARKS, RED, YELLOW, Client, hears_tone, party, run, sees_colours

from lkactor.testing import LkServer

pytestmark = [*MARKS, pytest.mark.skipif(bool(missing()), reason=missing())]

# libnice does not gather loopback addresses, so the server must be announced at another one.
CONFIG = "gst_signalling: {port: 0, bridge: open}\nbind_addresses: ['0.0.0.0']\n"


@pytest.fixture
def server() -> Iterator[LkServer]:
    with LkServer(CONFIG) as running:
        yield running
        running.check_no_leaks()


def signalling(server: LkServer) -> str:
    return f"ws://127.0.0.1:{server.node.gst_port}"


async def from_gst(client: Client, identity: str, kind: int) -> rtc.Track:
    """The subscribed track of that kind of a bridged peer."""
    event = await client.event("track_subscribed", lambda t, _pub, who: who.identity == identity and t.kind == kind)
    track: rtc.Track = event.args[0]
    return track


def test_call_into_a_room(server: LkServer) -> None:
    """Both ways; then somebody comes, somebody goes, and the peer follows by answering our offers."""

    async def test() -> None:
        async with party(server, "studio") as guests, gst_peers(signalling(server)) as peers:
            alice = await guests.join("alice")
            await alice.publish_tone(440)
            await alice.publish_picture(RED, BLUE)
            camera = await peers.start("cam1", "--call", "lkactor:studio", "--tone", "1000", "--colour", "1ec81e")
            await camera.said("SESSION_OK")
            voice, picture = await asyncio.gather(
                from_gst(alice, "gst-cam1", rtc.TrackKind.KIND_AUDIO),
                from_gst(alice, "gst-cam1", rtc.TrackKind.KIND_VIDEO),
            )
            await asyncio.gather(
                hears_tone(voice, 1000), sees_colours(picture, GREEN), camera.hears(440), camera.sees(RED, BLUE)
            )
            person = alice.remote("gst-cam1")
            assert person.name == "cam1"
            assert {pub.source for pub in person.track_publications.values()} == {
                rtc.TrackSource.SOURCE_MICROPHONE,
                rtc.TrackSource.SOURCE_CAMERA,
            }
            bob = await guests.join("bob")
            await asyncio.gather(bob.publish_tone(700), bob.publish_picture(YELLOW))
            await asyncio.gather(camera.hears(700), camera.sees(YELLOW))
            await hears_tone(await from_gst(bob, "gst-cam1", rtc.TrackKind.KIND_AUDIO), 1000)
            await bob.close()
            carol = await guests.join("carol")
            await carol.publish_tone(550)
            await camera.hears(550)
            await camera.hang_up()
            await alice.event("participant_disconnected", lambda who: who.identity == "gst-cam1")

    run(test)


def test_another_takes_the_place(server: LkServer) -> None:
    """On a section that carries the peer's own media, too, so its direction must not change in between."""

    async def test() -> None:
        async with party(server, "turns") as guests, gst_peers(signalling(server)) as peers:
            alice = await guests.join("alice")
            await alice.publish_tone(440)
            peer = await peers.start("p", "--call", "lkactor:turns", "--audio-only", "--tone", "1000")
            await asyncio.gather(peer.hears(440), from_gst(alice, "gst-p", rtc.TrackKind.KIND_AUDIO))
            bob = await guests.join("bob")
            voice = await from_gst(bob, "gst-p", rtc.TrackKind.KIND_AUDIO)
            await alice.close()
            await bob.publish_tone(700)
            await asyncio.gather(peer.hears(700), hears_tone(voice, 1000))
            assert all(event["sections"] <= 2 for event in peer.events if event["event"] == "sdp")

    run(test)


def test_another_codec_has_a_section_of_its_own(server: LkServer) -> None:
    """The peer sends VP8, the room has H264: each is received, nothing is transcoded."""

    async def test() -> None:
        async with party(server, "codecs") as guests, gst_peers(signalling(server)) as peers:
            alice = await guests.join("alice")
            await alice.publish_picture(RED, BLUE, codec=rtc.VideoCodec.H264)
            peer = await peers.start("p", "--call", "lkactor:codecs", "--colour", "1ec81e")
            picture = await from_gst(alice, "gst-p", rtc.TrackKind.KIND_VIDEO)
            await asyncio.gather(peer.sees(RED, BLUE), sees_colours(picture, GREEN))

    run(test)


def test_the_bridge_offers_when_asked(server: LkServer) -> None:
    async def test() -> None:
        async with party(server, "asked") as guests, gst_peers(signalling(server)) as peers:
            alice = await guests.join("alice")
            await alice.publish_tone(440)
            peer = await peers.start(
                "p", "--call", "lkactor:asked", "--remote-offerer", "--audio-only", "--tone", "880"
            )
            voice = await from_gst(alice, "gst-p", rtc.TrackKind.KIND_AUDIO)
            await asyncio.gather(hears_tone(voice, 880), peer.hears(440))

    run(test)


def test_two_peers_meet_through_the_bridge(server: LkServer) -> None:
    """No LiveKit client at all: the room is made by the first call, and ends after the last."""

    async def test() -> None:
        async with gst_peers(signalling(server)) as peers:
            one = await peers.start("one", "--call", "lkactor:pair", "--audio-only", "--tone", "440")
            await one.said("SESSION_OK")
            two = await peers.start("two", "--call", "lkactor:pair", "--audio-only", "--tone", "880")
            await asyncio.gather(one.hears(880), two.hears(440))

    run(test)


def test_a_room_of_peers_meets_livekit(server: LkServer) -> None:
    """The LiveKit room comes later: the bridge joins the ROOM and offers. Peers of the ROOM hear each other once."""

    async def test() -> None:
        async with gst_peers(signalling(server)) as peers, party(server, "hall") as guests:
            one = await peers.start("one", "--room", "hall", "--audio-only", "--tone", "440")
            await one.said("ROOM_OK ")
            two = await peers.start("two", "--room", "hall", "--audio-only", "--tone", "880")
            await asyncio.gather(one.hears(880, peer="two"), two.hears(440, peer="one"))
            alice = await guests.join("alice")
            await alice.publish_tone(1200)
            await asyncio.gather(one.said("ROOM_PEER_JOINED lkactor:hall"), two.said("ROOM_PEER_JOINED lkactor:hall"))
            await asyncio.gather(one.hears(1200, peer="lkactor:hall"), two.hears(1200, peer="lkactor:hall"))
            await hears_tone(await from_gst(alice, "gst-one", rtc.TrackKind.KIND_AUDIO), 440)
            await hears_tone(await from_gst(alice, "gst-two", rtc.TrackKind.KIND_AUDIO), 880)
            three = await peers.start("three", "--room", "hall", "--audio-only", "--tone", "600")
            await three.said("ROOM_OK lkactor:hall one two")
            await three.hears(1200, peer="lkactor:hall")
            await hears_tone(await from_gst(alice, "gst-three", rtc.TrackKind.KIND_AUDIO), 600)
            assert [len(peer.pads("tone", "lkactor:hall")) for peer in (one, two, three)] == [1, 1, 1]

    run(test)


def test_removing_the_participant_ends_the_call(server: LkServer) -> None:
    async def test() -> None:
        async with gst_peers(signalling(server)) as peers:
            one = await peers.start("one", "--call", "lkactor:closing", "--audio-only")
            await one.until(lambda e: e.get("state") == "connected", "connection")
            await asyncio.to_thread(server.close_room, "closing")
            await one.until(lambda e: e["event"] == "closed", "end of the connection")

    run(test)


def test_a_room_that_may_not_be_made_is_not_found() -> None:
    async def test(server: LkServer) -> None:
        async with gst_peers(signalling(server)) as peers:
            one = await peers.start("one", "--call", "lkactor:none", "--audio-only")
            await one.said("ERROR peer 'lkactor:none' not found")

    with LkServer(CONFIG + "room: {auto_create: false}\n") as server:
        run(lambda: test(server))


def test_by_a_token() -> None:
    """Its identity, its name and what it permits; the address of webrtc-sendrecv's `--server` carries it."""

    async def test(server: LkServer) -> None:
        token = server.token(identity="lobby-camera", room="lobby", name="Lobby")
        address = f"{signalling(server)}/?access_token={token}"
        async with party(server, "lobby") as guests, gst_peers(address) as peers:
            alice = await guests.join("alice")
            peer = await peers.start("cam1", "--call", "lkactor:lobby", "--audio-only", "--tone", "1000")
            await hears_tone(await from_gst(alice, "lobby-camera", rtc.TrackKind.KIND_AUDIO), 1000)
            assert alice.remote("lobby-camera").name == "Lobby"
            await peer.hang_up()

    with LkServer(CONFIG.replace("open", "token")) as server:
        run(lambda: test(server))
