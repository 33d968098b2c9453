"""A publisher of VP9 or AV1 with a backup codec: who cannot decode the one gets the other (livekit-media 3.11)."""

import asyncio
from typing import Any

import pytest
from livekit import api
from support.aiortc_client import aiortc_client, sees
from support.browser import Browser, Page
from support.interop import MARKS, RED, Server, eventually, run

pytestmark = [*MARKS, pytest.mark.browser]

PREFER_REGRESSION, SIMULCAST, REGRESSION = range(3)
PICTURE = ("#dc1e1e", "#dc1e1e", [320, 180])


async def enter(
    server: Server, room: str, page: Page, identity: str, *, single_pc: bool = True, **options: Any
) -> None:
    room_options = {"singlePeerConnection": single_pc, **options}
    await page.call("connect", server.url, server.token(identity=identity, room=room), room_options)


async def publish(page: Page, codec: str, policy: int) -> None:
    options = {"videoCodec": codec, "backupCodec": True, "backupCodecPolicy": policy}
    await page.call("publishCanvas", *PICTURE, options)


async def running(page: Page) -> set[str]:
    """Codecs of which at least one encoding is switched on."""
    encodings = await page.call("encodings", "canvas")
    return {codec for codec, entries in encodings.items() if any(entry["active"] for entry in entries)}


async def runs(page: Page, *codecs: str) -> None:
    async def only_these() -> bool:
        return await running(page) == set(codecs)

    await eventually(only_these, f"the publisher sends {codecs} and nothing else", limit=40)


async def sees_all(page: Page, codec: str) -> None:
    await page.call("codecIs", "ann", "canvas", codec)
    await page.call("framesAdvance", "ann", "canvas", 10)
    await page.call("colours", "ann", "canvas", RED, RED)


async def track_info(server: Server, room: str) -> api.TrackInfo:
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as lk:
        found = await lk.room.get_participant(api.RoomParticipantIdentity(room=room, identity="ann"))
    return found.tracks[0]


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_each_subscriber_gets_what_it_can_decode(lk_server: Server, lk_room: str, browser: Browser, codec: str) -> None:
    async def test() -> None:
        async with browser.pages(2) as (ann, ben):
            await enter(lk_server, lk_room, ann, "ann")
            await enter(lk_server, lk_room, ben, "ben")
            await publish(ann, codec, SIMULCAST)
            await sees_all(ben, codec)
            assert await running(ann) == {codec}
            async with aiortc_client(lk_server, lk_room, "carl") as carl:
                track = await asyncio.wait_for(carl.tracks.get(), 25)
                await sees(track, RED)
                await runs(ann, codec, "vp8")
                await sees_all(ben, codec)
                info = await track_info(lk_server, lk_room)
                assert [entry.mime_type for entry in info.codecs] == [f"video/{codec.upper()}", "video/VP8"]
                assert all(entry.mid and entry.cid for entry in info.codecs)
                assert any(layer.ssrc for layer in info.codecs[1].layers)
            await runs(ann, codec)
            await sees_all(ben, codec)

    run(test)


def test_in_a_small_room_everybody_moves_to_the_backup(lk_server: Server, lk_room: str, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as (ann, ben):
            await enter(lk_server, lk_room, ann, "ann")
            await enter(lk_server, lk_room, ben, "ben")
            await publish(ann, "vp9", PREFER_REGRESSION)
            await sees_all(ben, "vp9")
            async with aiortc_client(lk_server, lk_room, "carl") as carl:
                track = await asyncio.wait_for(carl.tracks.get(), 25)
                await sees(track, RED)
                await sees_all(ben, "vp8")
                await runs(ann, "vp8")

    run(test)


def test_who_cannot_follow_a_change_of_codec_sees_a_new_track(
    lk_server: Server, lk_room: str, browser: Browser
) -> None:
    """As the Go SDK: its track ends and comes again."""

    async def test() -> None:
        async with browser.pages(2) as (ann, dora):
            await enter(lk_server, lk_room, ann, "ann")
            async with aiortc_client(lk_server, lk_room, "ben", sdk="go") as ben:
                options = {"videoCodec": "h264", "backupCodec": {"codec": "vp8"}, "backupCodecPolicy": REGRESSION}
                await ann.call("publishCanvas", *PICTURE, options)
                await sees(await asyncio.wait_for(ben.tracks.get(), 25), RED)
                assert await running(ann) == {"h264"}
                await dora.call("forgetCodec", "h264")
                await enter(lk_server, lk_room, dora, "dora")
                await sees_all(dora, "vp8")
                await sees(await asyncio.wait_for(ben.tracks.get(), 25), RED)
                await runs(ann, "vp8")

    run(test)


def test_a_crashed_track_comes_back_with_both_codecs(lk_server: Server, lk_room: str, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(3) as (ann, ben, carl):
            await carl.call("forgetCodec", "vp9")
            for page, name in ((ann, "ann"), (ben, "ben"), (carl, "carl")):
                await enter(lk_server, lk_room, page, name)
            await publish(ann, "vp9", SIMULCAST)
            await sees_all(ben, "vp9")
            await sees_all(carl, "vp8")
            sid = (await track_info(lk_server, lk_room)).sid
            (path,) = [actor.path for actor in lk_server.actors() if actor.path.endswith(f"/{sid}")]
            lk_server.crash(path)
            await sees_all(ben, "vp9")
            await sees_all(carl, "vp8")

    run(test)


def test_a_page_without_the_codec(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(3) as (ann, ben, dora):
            await ben.call("forgetCodec", "vp9")
            await enter(lk_server, lk_room, ann, "ann", single_pc=single_pc)
            await enter(lk_server, lk_room, ben, "ben", single_pc=single_pc)
            await enter(lk_server, lk_room, dora, "dora", single_pc=single_pc)
            await publish(ann, "vp9", SIMULCAST)
            await sees_all(ben, "vp8")
            await sees_all(dora, "vp9")
            await ben.call("disconnect")
            await runs(ann, "vp9")

    run(test)


def test_without_a_backup_the_subscriber_is_told(lk_server: Server, lk_room: str, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as (ann, ben):
            await ben.call("forgetCodec", "vp9")
            await enter(lk_server, lk_room, ann, "ann")
            await enter(lk_server, lk_room, ben, "ben")
            await ann.call("publishCanvas", *PICTURE, {"videoCodec": "vp9", "backupCodec": False})
            await ben.call("event", "trackSubscriptionFailed")

    run(test)
