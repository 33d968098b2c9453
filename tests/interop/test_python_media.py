"""Media between two Python SDKs: what is heard and seen is measured, not only announced."""

import asyncio

import pytest
from livekit import api, rtc
from support.interop import (
    BLUE,
    GREEN,
    MARKS,
    RED,
    YELLOW,
    Server,
    eventually,
    hears_silence,
    hears_tone,
    party,
    run,
    sees_colours,
    sees_frame,
)

pytestmark = MARKS


def test_tone_and_picture_both_ways(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            await bob.publish_tone(1000)
            await alice.publish_picture(RED, BLUE)
            await bob.publish_picture(GREEN, YELLOW)
            await asyncio.gather(
                hears_tone(await bob.track("alice", "tone"), 440),
                hears_tone(await alice.track("bob", "tone"), 1000),
                sees_colours(await bob.track("alice", "picture"), RED, BLUE),
                sees_colours(await alice.track("bob", "picture"), GREEN, YELLOW),
            )

    run(test)


def test_publication_says_what_was_published(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            tone = await alice.publish_tone(440)
            picture = await alice.publish_picture(RED)
            heard = await bob.published("alice", "tone")
            seen = await bob.published("alice", "picture")
            assert heard.sid == tone.publication.sid
            assert heard.sid.startswith("TR_")
            assert (heard.kind, heard.source) == (rtc.TrackKind.KIND_AUDIO, rtc.TrackSource.SOURCE_MICROPHONE)
            assert not heard.muted
            assert seen.sid == picture.publication.sid
            assert (seen.kind, seen.source) == (rtc.TrackKind.KIND_VIDEO, rtc.TrackSource.SOURCE_CAMERA)
            assert (seen.width, seen.height) == (320, 180)
            await bob.event("track_subscribed", lambda _t, pub, _p: pub.sid == seen.sid)
            assert bob.remote("alice").track_publications[seen.sid].mime_type.lower() == "video/vp8"

    run(test)


@pytest.mark.parametrize(
    "codec", [rtc.VideoCodec.H264, rtc.VideoCodec.VP9, rtc.VideoCodec.AV1], ids=["h264", "vp9", "av1"]
)
def test_other_codecs(lk_server: Server, lk_room: str, codec: "rtc.VideoCodec.ValueType") -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_picture(GREEN, RED, codec=codec)
            await sees_colours(await bob.track("alice", "picture"), GREEN, RED)
            name = {rtc.VideoCodec.H264: "video/h264", rtc.VideoCodec.VP9: "video/vp9", rtc.VideoCodec.AV1: "video/av1"}
            assert (await bob.published("alice", "picture")).mime_type.lower() == name[codec]

    run(test)


def test_audio_without_red(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(660, red=False)
            await hears_tone(await bob.track("alice", "tone"), 660)
            assert (await bob.published("alice", "tone")).mime_type.lower() == "audio/opus"

    run(test)


async def published(server: Server, room: str, identity: str, count: int) -> bool:
    """Whether the server lists so many tracks of a participant."""
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
        info = await client.room.get_participant(api.RoomParticipantIdentity(room=room, identity=identity))
    return len(info.tracks) == count


def test_late_joiner_gets_existing_tracks(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice = await guests.join("alice")
            await alice.publish_tone(440)
            await alice.publish_picture(BLUE, GREEN)
            # the SDK says "published" when it has offered; the others are told when the offer was answered
            await eventually(lambda: published(lk_server, lk_room, "alice", 2), "two tracks of alice")
            late = await guests.join("late")
            # in the join response itself, so known without any event
            assert {p.name for p in late.remote("alice").track_publications.values()} == {"tone", "picture"}
            await asyncio.gather(
                hears_tone(await late.track("alice", "tone"), 440),
                sees_colours(await late.track("alice", "picture"), BLUE, GREEN),
            )

    run(test)


def test_mute_is_seen_and_silent(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            tone = await alice.publish_tone(440)
            track = await bob.track("alice", "tone")
            await hears_tone(track)
            tone.track.mute()
            muted = await bob.event("track_muted", lambda who, _: who.identity == "alice")
            assert muted.args[1].sid == tone.publication.sid
            await hears_silence(track)
            tone.track.unmute()
            await bob.event("track_unmuted", lambda who, _: who.identity == "alice")
            await hears_tone(track)

    run(test)


def test_late_joiner_knows_of_the_mute(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            tone = await alice.publish_tone(440)
            await hears_tone(await bob.track("alice", "tone"))
            tone.track.mute()
            await bob.event("track_muted")
            late = await guests.join("late")
            assert (await late.published("alice", "tone")).muted
            tone.track.unmute()
            await late.event("track_unmuted")
            await hears_tone(await late.track("alice", "tone"))

    run(test)


def test_video_mute_and_back(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            picture = await alice.publish_picture(YELLOW)
            track = await bob.track("alice", "picture")
            await sees_colours(track, YELLOW)
            picture.track.mute()
            await bob.event("track_muted")
            picture.track.unmute()
            await bob.event("track_unmuted")
            await sees_colours(track, YELLOW)

    run(test)


def test_unsubscribe_and_subscribe_again(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            await alice.publish_picture(RED, GREEN)
            await hears_tone(await bob.track("alice", "tone"))
            await sees_colours(await bob.track("alice", "picture"), RED, GREEN)
            for name in ("tone", "picture"):
                publication = await bob.published("alice", name)
                publication.set_subscribed(False)
                await bob.event("track_unsubscribed", lambda _t, pub, _w, name=name: pub.name == name)
            if single_pc:
                # A subscription that ends and begins between two answers shows the Rust core no change, so no event:
                # the arrival of another track proves that the sections were given up in an answer.
                await alice.publish_tone(880, name="between")
                await hears_tone(await bob.track("alice", "between"), 880)
            mark = bob.mark()
            for name in ("tone", "picture"):
                (await bob.published("alice", name)).set_subscribed(True)
            await hears_tone(await bob.track("alice", "tone", since=mark))
            await sees_colours(await bob.track("alice", "picture", since=mark), RED, GREEN)

    run(test)


def test_nothing_comes_without_auto_subscribe(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice = await guests.join("alice")
            await alice.publish_tone(440)
            await alice.publish_picture(BLUE)
            bob = await guests.join("bob", auto_subscribe=False)
            await alice.publish_tone(880, name="second")
            await bob.published("alice", "second")
            (await bob.published("alice", "picture")).set_subscribed(True)
            await sees_colours(await bob.track("alice", "picture"), BLUE)
            (await bob.published("alice", "second")).set_subscribed(True)
            await hears_tone(await bob.track("alice", "second"), 880)
            assert {event.args[1].name for event in bob.seen("track_subscribed")} == {"picture", "second"}

    run(test)


def test_unpublish_and_publish_again(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            first = await alice.publish_picture(RED, name="first")
            await sees_colours(await bob.track("alice", "first"), RED)
            await first.unpublish(alice)
            gone = await bob.event("track_unpublished")
            assert gone.args[0].sid == first.publication.sid
            await bob.event("track_unsubscribed")
            await alice.publish_picture(GREEN, name="second")
            await alice.publish_tone(440)
            await sees_colours(await bob.track("alice", "second"), GREEN)
            await hears_tone(await bob.track("alice", "tone"))

    run(test)


def test_publisher_learns_of_its_first_subscriber(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice = await guests.join("alice")
            tone = await alice.publish_tone(440)
            assert not alice.seen("local_track_subscribed")
            await guests.join("bob")
            await asyncio.wait_for(tone.publication.wait_for_subscription(), 25)

    run(test)


def test_simulcast_layers_are_chosen_by_quality(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            picture = await alice.publish_picture(RED, BLUE, size=(960, 540), simulcast=True)
            sent: dict[str, int] = {}
            alice.background(picture.keep_widths(sent))
            track = await bob.track("alice", "picture")
            publication = await bob.published("alice", "picture")
            assert publication.simulcasted
            await sees_frame(track, lambda p: p.shape[1] == sent.get("f"), limit=40)
            publication.set_video_quality(rtc.VideoQuality.VIDEO_QUALITY_LOW)
            await sees_frame(track, lambda p: p.shape[1] == sent.get("q"), limit=40)
            publication.set_video_quality(rtc.VideoQuality.VIDEO_QUALITY_HIGH)
            await sees_frame(track, lambda p: p.shape[1] == sent.get("f"), limit=40)
            assert sent["q"] < sent["h"] < sent["f"]

    run(test)


def test_active_speaker(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.pair()
            tone = await alice.publish_tone(440)
            for client in (alice, bob):
                await client.event("active_speakers_changed", lambda people: [p.identity for p in people] == ["alice"])
            mark = bob.mark()
            tone.track.mute()
            await bob.event("active_speakers_changed", lambda people: not people, since=mark)

    run(test)


def test_connection_quality_is_told(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            alice, bob = await guests.pair()
            await alice.publish_picture(RED)
            for client in (alice, bob):
                await client.event("connection_quality_changed", lambda who, quality: quality >= 1)

    run(test)


def test_four_in_a_room(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    """More tracks than the six placeholders of the first offer, so sections have to be added."""

    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            names = ["p0", "p1", "p2", "p3"]
            people = await asyncio.gather(*(guests.join(name) for name in names))
            for index, person in enumerate(people):
                await person.publish_tone(400 + 200 * index)
                await person.publish_picture([RED, GREEN, BLUE, YELLOW][index], size=(160, 90))
            for person in people:
                for index, other in enumerate(names):
                    if other != person.identity:
                        await hears_tone(await person.track(other, "tone"), 400 + 200 * index)
                        await sees_colours(await person.track(other, "picture"), [RED, GREEN, BLUE, YELLOW][index])

    run(test)
