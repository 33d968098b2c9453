"""Who is asked to hold video back: by CreateRoom or the configuration. Source: livekit-media 4.10."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit.protocol import models
from livekit.protocol import rtc as signal
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, world

from lkactor.sdp import SessionDescription
from lkactor.wire.extensions import PLAYOUT_DELAY

FINGERPRINT = ":".join(["AB"] * 32)
NUMBER = 9
BY_CONFIG = "room: {playout_delay: {enabled: true, min: 100, max: 2000}}"
SWITCHED_OFF = "room: {playout_delay: {min: 100, max: 2000}}"
CHROME, FIREFOX = models.ClientInfo(protocol=16, browser="chrome"), models.ClientInfo(protocol=16, browser="Firefox")


def in_world(test: Callable[[World], Awaitable[None]], config: str = "") -> None:
    async def main() -> None:
        async with world(config) as hall:
            await test(hall)

    run_actors(main)


def section(kind: str, mid: int, codec: str, *more: str) -> str:
    lines = [
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {codec.split()[0]}", "c=IN IP4 0.0.0.0", "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901", "a=setup:actpass", f"a=mid:{mid}", "a=rtcp-mux", f"a=rtpmap:{codec}",
        f"a=extmap:{NUMBER} {PLAYOUT_DELAY}", *more,
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


async def ids(guest: Guest) -> list[int]:
    """The extension's id in the sections for a sound and for a picture, 0 without it."""
    head = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n"
    sound = section("audio", 0, "111 opus/48000/2", "a=recvonly")
    sdp = f"{head}a=group:BUNDLE 0 1\r\n{sound}{section('video', 1, '96 VP8/90000', 'a=recvonly')}"
    await guest.ask(offer=signal.SessionDescription(type="offer", sdp=sdp, id=1))
    answer = SessionDescription.parse(guest.heard("answer")[-1].sdp)
    return [media.extensions.get(PLAYOUT_DELAY, 0) for media in answer.media]


@pytest.mark.parametrize(
    ("asked", "config", "number"),
    [
        ({"min_playout_delay": 100}, "", NUMBER),
        ({"max_playout_delay": 100}, "", NUMBER),
        ({"min_playout_delay": 100}, SWITCHED_OFF, NUMBER),
        ({}, BY_CONFIG, NUMBER),
        ({}, SWITCHED_OFF, 0),
        ({}, "", 0),
    ],
    ids=["the least", "the most", "over a configuration", "by the configuration", "switched off", "by nobody"],
)
def test_the_room_decides(asked: dict[str, Any], config: str, number: int) -> None:
    async def test(hall: World) -> None:
        await hall.open(**asked)
        assert await ids(await hall.join("ann", client=CHROME)) == [0, number]

    in_world(test, config)


@pytest.mark.parametrize(
    ("client", "sync", "number"), [(FIREFOX, True, 0), (FIREFOX, False, NUMBER), (CHROME, True, NUMBER)]
)
def test_sound_that_would_not_wait_for_the_picture_keeps_it_from_waiting(
    client: models.ClientInfo, sync: bool, number: int
) -> None:
    async def test(hall: World) -> None:
        await hall.open(min_playout_delay=100, sync_streams=sync)
        assert await ids(await hall.join("ann", client=client)) == [0, number]

    in_world(test)
