"""What a subscriber gets when its downlink carries little: livekit-client asks for that by simulateScenario, and sees a
smaller picture or, if it allows so, a paused stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.browser import Browser, Page
from support.interop import MARKS, Server, run

pytestmark = [*MARKS, pytest.mark.browser]

SIMULCAST = {"videoCodec": "vp8", "simulcast": True}
STATE = "trackStreamStateChanged"
HARDLY_ANYTHING = 1000
"""Bits per second."""


@asynccontextmanager
async def watching(
    server: Server, room: str, browser: Browser, single_pc: bool, *, allow_pause: bool | None = None
) -> AsyncIterator[tuple[Page, Page]]:
    """Ann publishes three layers of a camera, Ben has its largest picture."""
    async with browser.pages(2) as (ann, ben):
        asked = {} if allow_pause is None else {"subscriberAllowPause": allow_pause}
        options = {"singlePeerConnection": single_pc}
        tokens = [server.token(identity=name, room=room) for name in ("ann", "ben")]
        await asyncio.gather(
            ann.call("connect", server.url, tokens[0], options),
            ben.call("connect", server.url, tokens[1], options, asked),
        )
        await ann.call("publishCamera", {"width": 1280, "height": 720}, SIMULCAST)
        await ben.call("subscribed", "ann", "camera")
        await ben.call("widthBetween", "ann", "camera", 1280, 1280)
        yield ann, ben


def test_little_bandwidth_is_a_smaller_picture(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser
) -> None:
    async def test() -> None:
        async with watching(lk_server, lk_room, browser, single_pc) as (_, ben):
            await ben.call("simulate", "subscriber-bandwidth", HARDLY_ANYTHING)
            await ben.call("widthBetween", "ann", "camera", 1, 320)
            await ben.call("framesAdvance", "ann", "camera", 10)
            assert await ben.call("seen", STATE) == []
            await ben.call("simulate", "subscriber-bandwidth", 0)
            await ben.call("widthBetween", "ann", "camera", 1280, 1280)
            await ben.call("framesAdvance", "ann", "camera", 10)

    run(test)


def test_with_allow_pause_the_stream_pauses_and_comes_back(
    lk_server: Server, lk_room: str, single_pc: bool, browser: Browser
) -> None:
    async def test() -> None:
        async with watching(lk_server, lk_room, browser, single_pc, allow_pause=True) as (_, ben):
            await ben.call("simulate", "subscriber-bandwidth", HARDLY_ANYTHING)
            await ben.call("event", STATE, '"paused"')
            mark = await ben.call("mark")
            await ben.call("simulate", "subscriber-bandwidth", 0)
            await ben.call("event", STATE, '"active"', mark)
            await ben.call("framesAdvance", "ann", "camera", 10)
            await ben.call("widthBetween", "ann", "camera", 1280, 1280)

    run(test)


def test_a_paused_stream_is_silent(lk_server: Server, lk_room: str, browser: Browser) -> None:
    async def test() -> None:
        async with watching(lk_server, lk_room, browser, True, allow_pause=True) as (_, ben):
            await ben.call("simulate", "subscriber-bandwidth", HARDLY_ANYTHING)
            await ben.call("event", STATE, '"paused"')
            await asyncio.sleep(1.0)  # What was on its way, and what was asked for again.
            before = await ben.call("inbound", "ann", "camera")
            await asyncio.sleep(2.0)
            after = await ben.call("inbound", "ann", "camera")
            assert after["framesDecoded"] == before["framesDecoded"]

    run(test)
