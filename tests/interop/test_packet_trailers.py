"""Packet trailers: what a publisher hangs behind its pictures reaches who knows it, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from livekit import rtc
from support.interop import LIMIT, MARKS, Server, party, run

pytestmark = MARKS
USER_TIMESTAMP: Any = 0
"""FrameMetadataFeature, which the SDK does not export."""


def record(server: Server, room: str, folder: Path) -> subprocess.CompletedProcess[str]:
    keys = {"LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.api_key, "LIVEKIT_API_SECRET": server.api_secret}
    words = (sys.executable, "-m", "lkactor", "subscribe", room, "-o", str(folder), "--duration", "4")
    return subprocess.run(words, env={**os.environ, **keys}, capture_output=True, text=True, timeout=LIMIT)


async def stamp(source: rtc.VideoSource) -> None:
    for number in range(10_000):
        pixels = np.full((180, 320, 4), number % 250, np.uint8)
        frame = rtc.VideoFrame(320, 180, rtc.VideoBufferType.RGBA, pixels.tobytes())
        source.capture_frame(frame, metadata=rtc.FrameMetadata(user_timestamp=7_000_000 + number))
        await asyncio.sleep(1 / 15)


def test_timestamps_reach_a_client_that_knows_them_and_no_other(
    lk_server: Server, lk_room: str, tmp_path: Path, single_pc: bool
) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            alice, bob = await guests.meeting("alice", "bob")
            source = rtc.VideoSource(320, 180)
            track = rtc.LocalVideoTrack.create_video_track("stamped", source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
            options.video_codec = rtc.VideoCodec.VP8
            options.frame_metadata_features.append(USER_TIMESTAMP)
            await alice.local.publish_track(track, options)
            stamping = asyncio.create_task(stamp(source))
            recording = asyncio.create_task(asyncio.to_thread(record, lk_server, lk_room, tmp_path))
            async with asyncio.timeout(LIMIT):
                async for event in rtc.VideoStream(await bob.track("alice", "stamped")):
                    if event.metadata is not None and event.metadata.user_timestamp >= 7_000_000:
                        break
            assert (await recording).returncode == 0
            stamping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stamping

    run(test)
    (written,) = tmp_path.glob("*.ivf")
    assert written.stat().st_size > 1000
    assert b"LKTS" not in written.read_bytes(), "our client did not say that it knows trailers"
