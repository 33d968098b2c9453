"""Rooms with a playout delay: video says how long it is to be held back, until the subscriber has heard it.

aiortc, taught the name of the extension, tells what is on the wire, also of the livekit-server that LK_SIGNAL_URL may
name.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import RtpPacket as Received
from aiortc.sdp import SessionDescription
from livekit import api
from support.aiortc_client import Picture
from support.guest import WAYS, arrive, eventually, gets, show
from support.interop import MARKS, RED, run
from support.signal_client import CONFIG, Scene, Server, SignalClient, scene

from lkactor.testing import LkServer
from lkactor.wire.extensions import PLAYOUT_DELAY
from lkactor.wire.rtp import RtpPacket, parse_rtp

pytestmark = MARKS
ROOMS = itertools.count(1)
NUMBER = 12
"""Its id in offers of aiortc."""
LEAST, MOST = 500, 1500
SMALL = (160, 90)


@pytest.fixture(scope="module", params=["ours", *["reference"] * ("LK_SIGNAL_URL" in os.environ)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "reference":
        yield Server(os.environ["LK_SIGNAL_URL"], reference=True)
        return
    with LkServer(CONFIG) as ours:
        yield Server(ours.url, reference=False)


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RtpPacket]]:
    """What comes on any of aiortc's connections, which all know the extension."""
    heard: list[RtpPacket] = []
    parse = Received.parse

    def overheard(data: bytes, *more: Any) -> Received:
        heard.append(parse_rtp(data))
        return parse(data, *more)

    monkeypatch.setattr(Received, "parse", overheard)
    known = RTCRtpHeaderExtensionParameters(id=NUMBER, uri=PLAYOUT_DELAY)
    monkeypatch.setitem(HEADER_EXTENSIONS, "video", [*HEADER_EXTENSIONS["video"], known])
    yield heard


def numbers(client: SignalClient) -> list[int]:
    """The extension's id, 0 without it, in each video section on which the server sends."""
    description = client.media.subscriber.remoteDescription
    if description is None:
        return []
    return [
        next((extension.id for extension in media.rtp.headerExtensions if extension.uri == PLAYOUT_DELAY), 0)
        for media in SessionDescription.parse(description.sdp).media
        if media.kind == "video" and media.direction in ("sendonly", "sendrecv")
    ]


async def meet(stage: Scene, way: str, **claims: Any) -> SignalClient:
    """Somebody who is sent a picture of somebody else."""
    ann = await arrive(stage, "ann", way, **claims)
    ben = await arrive(stage, "ben", way, **claims)
    await gets(ben, ann, await show(ann, Picture(RED, SMALL), codec="VP8"))
    await eventually(lambda: numbers(ben), "a section for the picture")
    return ben


def delay(packet: RtpPacket, number: int) -> tuple[int, int] | None:
    value = packet.extension(number)
    return ((value[0] << 4 | value[1] >> 4) * 10, ((value[1] & 15) << 8 | value[2]) * 10) if value else None


@pytest.mark.parametrize("asked", ["by the API", "by the token"])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_on_the_wire_until_it_has_arrived(server: Server, packets: list[RtpPacket], way: str, asked: str) -> None:
    async def test() -> None:
        async with scene(server, f"playout-{next(ROOMS)}") as stage:
            claims: dict[str, Any] = {}
            if asked == "by the API":
                async with server.admin() as admin:
                    request = api.CreateRoomRequest(name=stage.room, min_playout_delay=LEAST, max_playout_delay=MOST)
                    await admin.create_room(request)
            else:
                claims["roomConfig"] = {"minPlayoutDelay": LEAST, "maxPlayoutDelay": MOST}
            ben = await meet(stage, way, **claims)
            (number,) = numbers(ben)
            assert number == (4 if way == "rtc" else NUMBER)
            said: list[tuple[int, int]] = []

            def heard() -> bool:
                said[:] = [found for packet in packets if (found := delay(packet, number)) is not None]
                return bool(said)

            await eventually(heard, "packets that say it")
            assert said[0] == (LEAST, MOST)
            await eventually(lambda: delay(packets[-1], number) is None, "the subscriber's report of one of them")
            assert all(least >= LEAST and most == MOST for least, most in said)

    run(test)


@pytest.mark.parametrize("way", WAYS)
def test_without_it_nothing_is_negotiated(server: Server, packets: list[RtpPacket], way: str) -> None:
    async def test() -> None:
        async with scene(server, f"playout-{next(ROOMS)}") as stage:
            ben = await meet(stage, way)
            await eventually(lambda: len(packets) > 5, "packets")
            assert numbers(ben) == [0]
            assert all(packet.extension(number) is None for packet in packets for number in (4, NUMBER))

    run(test)
