"""Calls of clients that are told to relay, through the built-in TURN server (livekit-media 1.5)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, Page, missing
from support.interop import BLUE, MARKS, RED, run
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


def relay_gone(server: LkServer) -> bool:
    """Every allocation has ended."""
    counters = server.counters()
    return counters.get("turn.allocated", 0) == counters.get("turn.allocation_ended", 0)


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
        connected = [entry.detail for entry in server.events("r") if entry.event.endswith(".connected")]
        assert connected and all(" over relay " in detail for detail in connected)
