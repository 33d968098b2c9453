"""A publisher of our own client that plays the demo."""

from __future__ import annotations

import trio
from livekit.protocol import models

from lkactor.cli.sources import DEMO
from lkactor.client.tracks import LocalTrack, TrackSpec
from lkactor.media.files import read_media

VP8 = TrackSpec("video/vp8", "demo", models.TrackSource.CAMERA, 320, 180)


async def play(track: LocalTrack, interval: float = 0.02) -> None:
    """Over and over, a picture every `interval` seconds, until cancelled."""
    media = read_media(memoryview((DEMO / "demo.ivf").read_bytes()), ".ivf")
    at = 0.0
    while True:
        for frame in media.frames():
            track.send_payloads(track.payloads(frame), at)
            at += interval
            await trio.sleep(interval)
