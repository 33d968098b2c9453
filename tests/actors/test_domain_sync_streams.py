"""`sync_streams`: what one publisher's camera and microphone send comes as one stream. Source: livekit-surface 2.5."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from livekit.protocol import models
from livekit.protocol import rtc as signal
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, world

FINGERPRINT = ":".join(["AB"] * 32)
OPUS, VP8 = "111 opus/48000/2", "96 VP8/90000"
AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
SOURCES = models.TrackSource


def in_world(test: Callable[[World], Awaitable[None]], config: str = "") -> None:
    async def main() -> None:
        async with world(config) as hall:
            await test(hall)

    run_actors(main)


def section(kind: str, mid: int, direction: str, cid: str = "") -> str:
    codec = OPUS if kind == "audio" else VP8
    lines = [
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {codec.split()[0]}", "c=IN IP4 0.0.0.0", "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901", "a=setup:actpass", f"a=mid:{mid}", f"a={direction}", "a=rtcp-mux",
        f"a=rtpmap:{codec}", *([f"a=msid:- {cid}"] if cid else []),
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


async def offer(guest: Guest, *sections: str) -> list[str]:
    """The stream ids of the answer's tracks."""
    mids = " ".join(str(n) for n in range(len(sections)))
    head = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n"
    sdp = f"{head}a=group:BUNDLE {mids}\r\n" + "".join(sections)
    await guest.ask(offer=signal.SessionDescription(type="offer", sdp=sdp, id=1))
    return re.findall(r"^a=msid:\S+?\|(\S+) ", guest.heard("answer")[-1].sdp, re.MULTILINE)


async def streams(hall: World, client: models.ClientInfo, *, sync: bool = False) -> list[str]:
    """What `client` is told of somebody's camera, microphone and screen; TR where it is the track itself."""
    await hall.open(sync_streams=sync)
    ann, ben = await hall.join("ann"), await hall.join("ben", client=client)
    wanted = [("video", SOURCES.CAMERA), ("audio", SOURCES.MICROPHONE), ("video", SOURCES.SCREEN_SHARE)]
    for number, (kind, source) in enumerate(wanted):
        track = signal.AddTrackRequest(cid=f"c{number}", type=AUDIO if kind == "audio" else VIDEO, source=source)
        await ann.ask(add_track=track)
    await offer(ann, *(section(kind, n, "sendonly", f"c{n}") for n, (kind, _) in enumerate(wanted)))
    found = await offer(ben, *(section(kind, n, "recvonly") for n, (kind, _) in enumerate(wanted)))
    return sorted(stream.partition("_")[0] for stream in found)


ABLE = models.ClientInfo(protocol=16)
TOGETHER, APART = ["camera", "camera", "screen"], ["TR", "TR", "TR"]


@pytest.mark.parametrize(
    ("client", "asked", "config", "heard"),
    [
        (ABLE, True, "", TOGETHER),
        (ABLE, False, "room: {sync_streams: true}", TOGETHER),
        (ABLE, False, "", APART),
        (models.ClientInfo(protocol=9), True, "", APART),
        (models.ClientInfo(protocol=16, browser="Firefox"), True, "", APART),
    ],
    ids=["by CreateRoom", "by the configuration", "by nobody", "an old client", "a client that cannot"],
)
def test_camera_and_microphone_are_one_stream(
    client: models.ClientInfo, asked: bool, config: str, heard: list[str]
) -> None:
    async def test(hall: World) -> None:
        assert await streams(hall, client, sync=asked) == heard

    in_world(test, config)
