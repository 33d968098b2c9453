"""A room with `sync_streams`: camera and microphone come as one stream, and clients still know which is which."""

from __future__ import annotations

import asyncio

import pytest
from livekit import api
from support.browser import Browser
from support.interop import BLUE, MARKS, RED, Server, hears_tone, party, run, sees_colours

pytestmark = MARKS


async def make(server: Server, room: str) -> None:
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as lk:
        await lk.room.create_room(api.CreateRoomRequest(name=room, sync_streams=True))


def test_the_python_sdk(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        await make(lk_server, lk_room)
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.publish_tone()
            await alice.publish_picture(BLUE)
            await bob.publish_tone(880.0)
            await bob.publish_picture(RED)
            await hears_tone(await bob.track("alice", "tone"))
            await sees_colours(await bob.track("alice", "picture"), BLUE)
            await hears_tone(await alice.track("bob", "tone"), 880.0)
            await sees_colours(await alice.track("bob", "picture"), RED)

    run(test)


@pytest.mark.browser
def test_pages(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        await make(lk_server, lk_room)
        async with browser.pages(2) as (ann, ben):
            for page, identity in ((ann, "ann"), (ben, "ben")):
                token = lk_server.token(identity=identity, room=lk_room)
                await page.call("connect", lk_server.url, token, {"singlePeerConnection": single_pc})
                await page.call("publishCamera", {"width": 320, "height": 180})
                await page.call("publishMicrophone")
            both = ((ann, "ben"), (ben, "ann"))
            await asyncio.gather(*(page.call("framesAdvance", other) for page, other in both))
            await asyncio.gather(*(page.call("soundAdvances", other) for page, other in both))

    run(test)
