"""One room, two engines: the Python SDK and livekit-client in Chromium understand each other through the server."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit import rtc
from support.browser import Browser, Page
from support.interop import BLUE, GREEN, LIMIT, MARKS, RED, YELLOW, Client, Server, hears_tone, party, run, sees_colours

pytestmark = [*MARKS, pytest.mark.browser]

HEX = {RED: "#dc1e1e", GREEN: "#1ec81e", BLUE: "#1e1edc", YELLOW: "#dcdc1e"}
PLAIN = {"videoCodec": "vp8", "simulcast": False}


@asynccontextmanager
async def couple(
    server: Server, room: str, single_pc: bool, browser: Browser, *, meet: bool = True
) -> AsyncIterator[tuple[Client, Page]]:
    """A Python client "pat" and a page "web" in one room; with `meet` they see each other as active."""
    async with party(server, room, single_pc) as guests, browser.pages() as (web,):
        pat = await guests.join("pat")
        token = server.token(identity="web", room=room, can_update_own_metadata=True)
        await web.call("connect", server.url, token, {"singlePeerConnection": single_pc})
        if meet:
            await asyncio.gather(pat.meets("web"), web.call("meets", ["pat"]))
        yield pat, web


def test_media_both_ways(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser, meet=False) as (pat, web):
            await pat.publish_tone(440)
            await pat.publish_picture(RED, BLUE)
            await web.call("publishTone", 1000)
            await web.call("publishCanvas", HEX[GREEN], HEX[YELLOW], [320, 180], PLAIN)
            await asyncio.gather(
                web.call("frequency", "pat", "tone", 440),
                web.call("colours", "pat", "picture", RED, BLUE),
                hears_tone(await pat.track("web", "tone"), 1000),
                sees_colours(await pat.track("web", "canvas"), GREEN, YELLOW),
            )

    run(test)


def test_generations_mix(lk_server: Server, lk_room: str, browser: Browser) -> None:
    """One connection on one side, two on the other, in the same room."""

    async def test() -> None:
        async with party(lk_server, lk_room) as guests, browser.pages() as (web,):
            new, old = await asyncio.gather(guests.join("new", single_pc=True), guests.join("old", single_pc=False))
            token = lk_server.token(identity="web", room=lk_room)
            await web.call("connect", lk_server.url, token, {"singlePeerConnection": False})
            await new.publish_picture(RED)
            await old.publish_picture(BLUE)
            await asyncio.gather(
                sees_colours(await old.track("new", "picture"), RED),
                sees_colours(await new.track("old", "picture"), BLUE),
                web.call("colours", "new", "picture", RED, RED),
                web.call("colours", "old", "picture", BLUE, BLUE),
            )

    run(test)


def test_data_both_ways(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser) as (pat, web):
            for reliable in (True, False):
                await pat.local.publish_data("from python", reliable=reliable, topic=f"r{reliable}")
                event = await web.call("event", "dataReceived", f"r{reliable}")
                payload, sender, kind, topic = event["args"][:4]
                # DataPacket_Kind: RELIABLE 0, LOSSY 1; the page shows what the server set
                assert (payload, sender, kind, topic) == ("from python", "pat", 0 if reliable else 1, f"r{reliable}")
                await web.call("publishData", "from the page", {"reliable": reliable, "topic": f"w{reliable}"})
                packet = (await pat.event("data_received", lambda p, t=f"w{reliable}": p.topic == t)).args[0]
                assert (packet.data, packet.participant.identity) == (b"from the page", "web")

    run(test)


@pytest.mark.parametrize("payload", ["ping", "x" * 40_000], ids=["short", "40kB"])
def test_rpc_both_ways(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser, payload: str) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser) as (pat, web):

            async def reverse(call: rtc.RpcInvocationData) -> str:
                return call.caller_identity + call.payload[::-1]

            pat.local.register_rpc_method("reverse", reverse)
            await web.call("serveRpc", "reverse")
            assert await web.call("performRpc", "pat", "reverse", payload) == "web" + payload[::-1]
            answer = await pat.local.perform_rpc(destination_identity="web", method="reverse", payload=payload)
            assert answer == f"pat:{len(payload)}:{payload[::-1]}"

    run(test)


def test_streams_both_ways(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser) as (pat, web):
            got: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

            async def read_text(reader: rtc.TextStreamReader) -> None:
                got.put_nowait(("text", await reader.read_all()))

            async def read_bytes(reader: rtc.ByteStreamReader) -> None:
                digest = hashlib.sha256()
                async for chunk in reader:
                    digest.update(chunk)
                got.put_nowait(("bytes", digest.hexdigest()))

            pat.room.register_text_stream_handler("t", lambda reader, _: pat.spawn(read_text(reader)))
            pat.room.register_byte_stream_handler("t", lambda reader, _: pat.spawn(read_bytes(reader)))
            await web.call("listenStreams", "t")

            await web.call("sendText", "Grüße " * 3000, {"topic": "t"})
            assert await asyncio.wait_for(got.get(), LIMIT) == ("text", "Grüße " * 3000)
            digest = await web.call("sendBytes", 1_000_000, "t")
            assert await asyncio.wait_for(got.get(), LIMIT) == ("bytes", digest)

            await pat.local.send_text("zurück", topic="t")
            assert (await web.call("event", "textStream"))["args"] == ["pat", "zurück"]
            content = random.Random(3).randbytes(1_000_000)
            await pat.local.send_bytes(content, name="blob", topic="t")
            expected = ["pat", hashlib.sha256(content).hexdigest(), "blob"]
            assert (await web.call("event", "byteStream"))["args"] == expected

    run(test)


def test_mute_metadata_and_leaving(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser) as (pat, web):
            await web.call("publishTone", 700)
            await hears_tone(await pat.track("web", "tone"), 700)
            await web.call("mute", "tone")
            await pat.event("track_muted", lambda who, _: who.identity == "web")
            await web.call("setMetadata", "page")
            await pat.event("participant_metadata_changed", lambda who, _, new: (who.identity, new) == ("web", "page"))
            await web.call("setAttributes", {"a": "1"})
            await pat.event("participant_attributes_changed", lambda changed, _: changed == {"a": "1"})
            assert (await web.call("me"))["attributes"] == {"a": "1"}
            await web.call("disconnect")
            await pat.event("participant_disconnected", lambda who: who.identity == "web")

    run(test)


def test_python_simulcast_to_the_page(lk_server: Server, lk_room: str, single_pc: bool, browser: Browser) -> None:
    async def test() -> None:
        async with couple(lk_server, lk_room, single_pc, browser, meet=False) as (pat, web):
            await pat.publish_picture(RED, GREEN, size=(960, 540), simulcast=True)
            await web.call("subscribed", "pat", "picture")
            await web.call("widthBetween", "pat", "picture", 960, 960)
            await web.call("setQuality", "pat", "picture", "LOW")
            await web.call("widthBetween", "pat", "picture", 1, 479)
            await web.call("colours", "pat", "picture", RED, GREEN)

    run(test)
