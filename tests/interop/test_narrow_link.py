"""Chromium behind a link that really carries little: its own REMB and NACKs bring the smaller picture, and the probes,
once the link is free again, the large one."""

from collections.abc import Iterator

import pytest
from support.browser import Browser
from support.interop import MARKS, run
from support.narrow import NarrowServer, missing, narrow_server

pytestmark = [*MARKS, pytest.mark.browser]

SIMULCAST = {"videoCodec": "vp8", "simulcast": True}


@pytest.fixture
def narrow() -> Iterator[NarrowServer]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with narrow_server() as server:
        yield server


def test_the_picture_follows_what_the_link_carries(narrow: NarrowServer, browser: Browser) -> None:
    async def test() -> None:
        async with browser.pages(2) as (ann, ben):
            for page, name in ((ann, "ann"), (ben, "ben")):
                await page.call("connect", narrow.url, narrow.token(name, "narrow"), {"singlePeerConnection": True})
            await ann.call("publishCamera", {"width": 1280, "height": 720}, SIMULCAST)
            await ben.call("subscribed", "ann", "camera")
            await ben.call("widthBetween", "ann", "camera", 1280, 1280)
            await ben.call("framesAdvance", "ann", "camera", 40)
            narrow.capacity("300kbit")
            await ben.call("widthBetween", "ann", "camera", 1, 640, 60000)
            await ben.call("framesAdvance", "ann", "camera", 20)
            narrow.capacity("")
            await ben.call("widthBetween", "ann", "camera", 1280, 1280, 90000)
            await ben.call("framesAdvance", "ann", "camera", 10)

    run(test, limit=240.0)
