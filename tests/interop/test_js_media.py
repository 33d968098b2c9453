"""Media between two Chromium pages that run livekit-client as it is published."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Error
from support.browser import Browser, Page
from support.interop import MARKS, Server, eventually, raw_token, run

pytestmark = [*MARKS, pytest.mark.browser]

CLEAR = {"videoCodec": "vp8", "simulcast": False}


async def enter(server: Server, room: str, page: Page, identity: str, single_pc: bool, **options: Any) -> Any:
    room_options = {"singlePeerConnection": single_pc, **options}
    return await page.call("connect", server.url, server.token(identity=identity, room=room), room_options)


async def both(server: Server, room: str, pages: list[Page], single_pc: bool, **options: Any) -> None:
    names = ["ann", "ben"]
    await asyncio.gather(
        *(enter(server, room, page, name, single_pc, **options) for page, name in zip(pages, names, strict=True))
    )


def test_fake_devices_both_ways(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            for page in pages:
                await page.call("publishCamera", {"width": 640, "height": 360})
                await page.call("publishMicrophone")
            stats = await asyncio.gather(
                ann.call("framesAdvance", "ben"),
                ben.call("framesAdvance", "ann"),
                ann.call("soundAdvances", "ben"),
                ben.call("soundAdvances", "ann"),
            )
            assert all(entry["framesDecoded"] >= 10 for entry in stats[:2])
            assert all(entry["totalAudioEnergy"] > 0 for entry in stats[2:])

    run(test)


def test_tone_and_colours(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], CLEAR)
            await ben.call("frequency", "ann", "tone", 440)
            await ben.call("colours", "ann", "canvas", [220, 30, 30], [30, 30, 220])

    run(test)


@pytest.mark.parametrize("codec", ["h264", "vp9", "av1"])
def test_other_codecs(lk_server: Server, lk_room: str, browser: Browser, codec: str) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, True)
            ann, ben = pages
            await ann.call("publishCanvas", "#1ec81e", "#dc1e1e", [320, 180], {"videoCodec": codec})
            await ben.call("colours", "ann", "canvas", [30, 200, 30], [220, 30, 30])
            (track,) = (await ben.call("people"))[0]["tracks"]
            assert track["mime"].lower() == f"video/{codec}"

    run(test)


def test_quality_changes_the_received_width(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            await ann.call("publishCamera", {"width": 1280, "height": 720}, {"videoCodec": "vp8", "simulcast": True})
            await ben.call("subscribed", "ann", "camera")
            await ben.call("widthBetween", "ann", "camera", 640, 1280)
            await ben.call("setQuality", "ann", "camera", "LOW")
            await ben.call("widthBetween", "ann", "camera", 1, 400)
            await ben.call("framesAdvance", "ann", "camera", 10)
            await ben.call("setQuality", "ann", "camera", "HIGH")
            await ben.call("widthBetween", "ann", "camera", 640, 1280)
            await ben.call("framesAdvance", "ann", "camera", 10)

    run(test)


def test_dynacast_stops_unused_layers(lk_server: Server, lk_room: str, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, True, dynacast=True)
            ann, ben = pages
            await ann.call("publishCamera", {"width": 1280, "height": 720}, {"videoCodec": "vp8", "simulcast": True})
            await ben.call("subscribed", "ann", "camera")
            await ben.call("framesAdvance", "ann", "camera", 5)
            await ben.call("setQuality", "ann", "camera", "LOW")

            async def active() -> list[str]:
                return [entry["rid"] for entry in await ann.call("outbound", "camera") if entry.get("active")]

            async def only_the_lowest() -> bool:
                return await active() == ["q"]

            async def more() -> bool:
                return len(await active()) > 1

            await eventually(only_the_lowest, "the unused layers stop", limit=40)
            await ben.call("framesAdvance", "ann", "camera", 5)
            await ben.call("setQuality", "ann", "camera", "HIGH")
            await eventually(more, "the layers come back", limit=40)

    run(test)


def test_mute_unsubscribe_and_unpublish(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1ec81e", [320, 180], CLEAR)
            await ben.call("frequency", "ann", "tone", 440)
            await ann.call("mute", "tone")
            await ben.call("event", "trackMuted", '"ann"')
            await ann.call("unmute", "tone")
            await ben.call("event", "trackUnmuted", '"ann"')
            await ben.call("frequency", "ann", "tone", 440)

            await ben.call("framesAdvance", "ann", "canvas")
            await ben.call("setSubscribed", "ann", "canvas", False)
            await ben.call("event", "trackUnsubscribed", "video")
            mark = await ben.call("mark")
            await ben.call("setSubscribed", "ann", "canvas", True)
            await ben.call("event", "trackSubscribed", "video", mark)
            await ben.call("framesAdvance", "ann", "canvas")

            await ann.call("unpublish", "canvas")
            await ben.call("event", "trackUnpublished", "canvas")
            await ann.call("publishCanvas", "#1e1edc", "#1ec81e", [320, 180], {**CLEAR, "name": "again"})
            await ben.call("colours", "ann", "again", [30, 30, 220], [30, 200, 30])

    run(test)


def test_late_joiner_and_selective_subscription(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser
) -> None:
    async def test() -> None:
        async with browser.pages(2) as (ann, ben):
            await enter(lk_server, lk_room, ann, "ann", single_pc)
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1ec81e", [320, 180], CLEAR)
            token = lk_server.token(identity="ben", room=lk_room)
            options = {"singlePeerConnection": single_pc}
            await ben.call("connect", lk_server.url, token, options, {"autoSubscribe": False})
            (person,) = await ben.call("people")
            assert {track["name"] for track in person["tracks"]} == {"tone", "canvas"}
            await ben.call("setSubscribed", "ann", "canvas", True)
            await ben.call("colours", "ann", "canvas", [220, 30, 30], [30, 200, 30])
            (person,) = await ben.call("people")
            assert {track["name"]: track["subscribed"] for track in person["tracks"]} == {"tone": False, "canvas": True}

    run(test)


def test_active_speaker(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            await ann.call("publishTone", 440)
            await ben.call("event", "activeSpeakersChanged", '"ann"')
            await ann.call("event", "activeSpeakersChanged", '"ann"')
            mark = await ben.call("mark")
            await ann.call("mute", "tone")
            await ben.call("event", "activeSpeakersChanged", "[[]]", mark)

    run(test)


def test_disabled_track_pauses(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as pages:
            await both(lk_server, lk_room, pages, single_pc)
            ann, ben = pages
            await ann.call("publishCanvas", "#dc1e1e", "#1ec81e", [320, 180], CLEAR)
            await ben.call("framesAdvance", "ann", "canvas")
            await ben.call("setEnabled", "ann", "canvas", False)

            async with asyncio.timeout(25):  # until a second passes without a single new frame
                last = -1
                while (now := (await ben.call("inbound", "ann", "canvas"))["framesDecoded"]) != last:
                    last = now
                    await asyncio.sleep(1)
            await ben.call("setEnabled", "ann", "canvas", True)
            await ben.call("framesAdvance", "ann", "canvas")

    run(test)


@pytest.mark.parametrize("reason", ["expired", "signature"])
def test_a_bad_token_is_told_as_not_allowed(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser, reason: str
) -> None:
    """The page learns of it only through /validate and its CORS header."""
    bad: dict[str, Any] = {"exp": 1_000_000} if reason == "expired" else {"secret": "not the right secret"}
    token = raw_token(lk_server, sub="ann", video={"roomJoin": True, "room": lk_room}, **bad)

    async def test() -> None:
        async with browser.pages() as (page,):
            with pytest.raises(Error) as refused:
                await page.call("connect", lk_server.url, token, {"singlePeerConnection": single_pc})
            wanted = "token is expired" if reason == "expired" else "signature is invalid"
            assert wanted in str(refused.value)

    run(test)


def test_duplicate_identity(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as (one, two):
            await enter(lk_server, lk_room, one, "same", single_pc)
            await enter(lk_server, lk_room, two, "same", single_pc)
            gone = await one.call("event", "disconnected")
            assert gone["args"] == [2]  # DUPLICATE_IDENTITY
            assert await two.call("state") == "connected"

    run(test)
