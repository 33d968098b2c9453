"""Calls of clients that are told to relay, through the built-in TURN server (livekit-media 1.5)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from support.browser import Browser, Page, missing
from support.interop import BLUE, LIMIT, MARKS, RED, Client, hears_tone, party, run, sees_colours
from support.turn import turn_server

from lkactor.testing import LkServer

pytestmark = MARKS

WEB = Path(__file__).parent / "web"
RELAY = {"rtcConfig": {"iceTransportPolicy": "relay"}}
PLAIN = {"videoCodec": "vp8", "simulcast": False}


@pytest.fixture(scope="module")
def trusting() -> Iterator[Browser]:
    """A browser that takes the test's certificate."""
    reason = missing(WEB)
    if reason:
        pytest.skip(reason)
    with Browser(WEB, extra_flags=("--ignore-certificate-errors",)) as chromium:
        yield chromium


async def enter(server: LkServer, page: Page, identity: str, single_pc: bool, connect: dict[str, Any] = RELAY) -> None:
    token = server.token(identity=identity, room="r")
    await page.call("connect", server.url, token, {"singlePeerConnection": single_pc}, connect)


def paths(server: LkServer, identity: str) -> dict[str, str]:
    """What each connection of this client goes over, as the server knows it: {"publisher": "relay"}."""
    found: dict[str, str] = {}
    for entry in server.events("r"):
        role, _, what = entry.event.partition(".")
        detail = entry.detail.partition(" over ")[2] if what == "connected" else entry.detail
        if entry.participant == identity and what in ("connected", "path") and detail:
            found[role] = detail.partition(" ")[0]
    return found


def relays(server: LkServer) -> int:
    """Open relay sockets."""
    return sum("read_relay" in task for task in server.tasks())


@pytest.mark.browser
@pytest.mark.parametrize("over", ["udp", "tls"])
def test_pages_call_through_a_relay(tmp_path: Path, single_pc: bool, trusting: Browser, over: str) -> None:
    async def call(server: LkServer) -> None:
        async with trusting.pages(2) as (ann, ben):
            await asyncio.gather(enter(server, ann, "ann", single_pc), enter(server, ben, "ben", single_pc))
            await ann.call("publishTone", 440)
            await ann.call("publishCanvas", "#dc1e1e", "#1e1edc", [320, 180], PLAIN)
            await ben.call("publishTone", 1000)
            await ben.call("frequency", "ann", "tone", 440)
            await ann.call("frequency", "ben", "tone", 1000)
            await ben.call("colours", "ann", "canvas", RED, BLUE)
            assert await ben.call("selectedProtocol", "ann", "canvas") == f"relay/{over}"
            assert await ann.call("selectedProtocol", "ann", "canvas") == f"relay/{over}"
            await ann.call("publishData", "by relay")
            await ben.call("event", "dataReceived", "by relay")

    with turn_server(tmp_path, udp=over == "udp", tls=over == "tls") as server:
        run(lambda: call(server))
        for identity in ("ann", "ben"):
            assert set(paths(server, identity).values()) == {"relay"}


@pytest.mark.browser
def test_a_page_that_vanishes_leaves_no_relay(tmp_path: Path, single_pc: bool, trusting: Browser) -> None:
    """It closes without a word: TURN over TLS ends with its connection, the session when nobody comes back."""

    async def call(server: LkServer) -> None:
        async with trusting.pages() as (ann,):
            await enter(server, ann, "ann", single_pc)
            await ann.call("publishTone", 440)
            assert relays(server) > 0

    with turn_server(tmp_path, udp=False) as server:
        tasks = server.tasks()
        run(lambda: call(server))
        server.wait_for(lambda _: relays(server) == 0)
        server.close_room("r")
        server.check_no_leaks(tasks=tasks)


def python_relay(single_pc: bool) -> rtc.RoomOptions:
    return rtc.RoomOptions(
        single_peer_connection=single_pc,
        rtc_config=rtc.RtcConfiguration(
            ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY,
            continual_gathering_policy=rtc.ContinualGatheringPolicy.GATHER_ONCE,
            ice_servers=[],
        ),
    )


def test_python_sound_and_pictures_through_turn_udp(tmp_path: Path, single_pc: bool) -> None:
    async def call(server: LkServer) -> None:
        ann, ben = Client(server, "ann"), Client(server, "ben")
        try:
            for client in (ann, ben):
                token = server.token(client.identity, "r")
                await asyncio.wait_for(client.room.connect(server.url, token, python_relay(single_pc)), LIMIT)
            await ann.publish_tone(440)
            await ben.publish_picture(RED, BLUE)
            await hears_tone(await ben.track("ann", "tone"), 440)
            await sees_colours(await ann.track("ben", "picture"), RED, BLUE)
        finally:
            await asyncio.gather(ann.close(), ben.close())

    with turn_server(tmp_path, tls=False) as server:
        run(lambda: call(server))
        for identity in ("ann", "ben"):
            assert set(paths(server, identity).values()) == {"relay"}
        server.wait_for(lambda _: relays(server) == 0)


@pytest.mark.browser
def test_page_talks_by_tls_to_python_by_udp(tmp_path: Path, trusting: Browser) -> None:
    """Everyone comes as best they can; the relay is nobody else's business."""

    async def call(server: LkServer) -> None:
        async with party(server, "r") as guests, trusting.pages() as (web,):
            pat = await guests.join("pat")
            await enter(server, web, "web", True)
            await pat.publish_picture(RED, BLUE)
            await web.call("publishTone", 1000)
            await hears_tone(await pat.track("web", "tone"), 1000)
            await web.call("colours", "pat", "picture", RED, BLUE)

    with turn_server(tmp_path, udp=False) as server:
        run(lambda: call(server))
        assert (paths(server, "pat"), paths(server, "web")) == ({"publisher": "udp"}, {"publisher": "relay"})
