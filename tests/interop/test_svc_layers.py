"""Layers inside one stream (VP9, AV1 SVC): two subscribers of one publisher get two sizes of the same stream."""

import asyncio
from typing import Any

import pytest
from livekit import rtc
from support.browser import Browser
from support.interop import LIMIT, MARKS, Server, party, run

pytestmark = [*MARKS, pytest.mark.browser]


@pytest.mark.parametrize("codec", ["vp9", "av1"])
@pytest.mark.parametrize("mode", ["L3T3_KEY", "L3T3"])
def test_two_sizes_of_one_stream(lk_server: Server, lk_room: str, browser: Browser, codec: str, mode: str) -> None:
    async def test() -> None:
        async with browser.pages(3) as (ann, ben, carl):
            for page, name in ((ann, "ann"), (ben, "ben"), (carl, "carl")):
                options = {"singlePeerConnection": True}
                await page.call("connect", lk_server.url, lk_server.token(identity=name, room=lk_room), options)
            published = {"videoCodec": codec, "backupCodec": False, "scalabilityMode": mode}
            await ann.call("publishCamera", {"width": 1280, "height": 720}, published)
            for page in (ben, carl):
                await page.call("subscribed", "ann", "camera")
                await page.call("widthBetween", "ann", "camera", 960, 1280)
            await carl.call("setQuality", "ann", "camera", "LOW")
            await carl.call("widthBetween", "ann", "camera", 1, 400)
            await asyncio.gather(
                *(page.call("framesAdvance", "ann", "camera", 20) for page in (ben, carl)),
            )
            assert (await width(ben)) >= 960
            assert (await width(carl)) <= 400
            await carl.call("setQuality", "ann", "camera", "MEDIUM")
            await carl.call("widthBetween", "ann", "camera", 500, 700)
            await carl.call("framesAdvance", "ann", "camera", 10)
            await carl.call("setQuality", "ann", "camera", "HIGH")
            await carl.call("widthBetween", "ann", "camera", 960, 1280)
            await carl.call("framesAdvance", "ann", "camera", 10)

    async def width(page: Any) -> int:
        stats = await page.call("inbound", "ann", "camera")
        return int(stats["frameWidth"])

    run(test)


@pytest.mark.parametrize("codec", ["vp9", "av1"])
def test_the_rust_core_sees_the_highest_layer(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser, codec: str
) -> None:
    """It takes no dependency descriptor on a single peer connection."""

    async def wide_frames(track: rtc.Track, wanted: int) -> None:
        stream = rtc.VideoStream(track)
        seen: list[int] = []
        try:
            async with asyncio.timeout(LIMIT):
                async for event in stream:
                    seen.append(event.frame.width)
                    if sum(width >= 960 for width in seen) >= wanted:
                        return
        except TimeoutError:
            raise AssertionError(f"not {wanted} wide frames: {seen[-50:]}") from None
        finally:
            await stream.aclose()

    async def test() -> None:
        async with browser.pages(1) as (ann,), party(lk_server, lk_room, single_pc) as guests:
            await ann.call("connect", lk_server.url, lk_server.token(identity="ann", room=lk_room), {})
            ben = await guests.join("ben")
            published = {"videoCodec": codec, "backupCodec": False, "scalabilityMode": "L3T3_KEY"}
            await ann.call("publishCamera", {"width": 1280, "height": 720}, published)
            await wide_frames(await ben.track("ann", "camera"), 30)

    run(test)
