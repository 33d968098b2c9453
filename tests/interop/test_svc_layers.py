"""Layers inside one stream (VP9, AV1 SVC): two subscribers of one publisher get two sizes of the same stream."""

import asyncio
from typing import Any

import pytest
from support.browser import Browser
from support.interop import MARKS, Server, run

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
