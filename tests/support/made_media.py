"""Media files made and read by PyAV (ffmpeg's codecs): what ours is compared with.

`python tests/support/made_media.py DIRECTORY` makes the files of `lkactor publish --publish-demo`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

ENCODERS = {"video/vp8": "libvpx", "video/vp9": "libvpx-vp9", "video/av1": "libsvtav1", "video/h264": "libx264"}
OPTIONS: dict[str, dict[str, str]] = {
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "15", "auto-alt-ref": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "15", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "12", "g": "15"},
    "libx264": {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": "15", "bf": "0"},
}
FPS = 15
RATE = 48000


def picture(number: int, width: int, height: int) -> Any:
    """A bar that walks over a slow change of colour."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (40, 90 + int(60 * np.sin(number / 10)), 160)
    at = number * width // 30 % width
    image[:, at : at + width // 10] = (240, 200, 40)
    return av.VideoFrame.from_ndarray(image, format="rgb24")


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """SVT-AV1, when root runs it, makes the thread that opens it SCHED_FIFO 99 and leaves it so: the tests after it,
    and all that they start, would get both cores before everything else on the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def make_video(path: Path, mime: str, *, seconds: float = 2.0, width: int = 160, height: int = 96) -> int:
    """An .ivf or .h264 file; returns the number of frames."""
    count = int(seconds * FPS)
    form = "h264" if mime == "video/h264" else "ivf"
    with _as_before(), av.open(str(path), "w", format=form) as container:
        encoder = ENCODERS[mime]
        stream: Any = container.add_stream(encoder, rate=FPS, options=OPTIONS[encoder])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 120_000
        stream.time_base = Fraction(1, FPS)
        for number in range(count):
            frame = picture(number, width, height)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count


def make_audio(path: Path, *, seconds: float = 2.0) -> None:
    """An .ogg file with Opus: a short tone every half second."""
    with av.open(str(path), "w", format="ogg") as container:
        stream: Any = container.add_stream("libopus", rate=RATE)
        stream.layout = "mono"
        stream.bit_rate = 24_000
        time = np.arange(int(seconds * RATE)) / RATE
        wave = np.sin(2 * np.pi * 440 * time) * np.clip(1 - (time % 0.5) * 4, 0, 1) * 9000
        for at in range(0, len(wave), 960):
            part = wave[at : at + 960].astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path) -> list[Any]:
    """All decoded frames of the first stream."""
    with av.open(str(path)) as container:
        return list(container.decode(container.streams[0]))


def sample_count(path: Path) -> int:
    return sum(frame.samples for frame in decode(path))


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    make_video(directory / "demo.ivf", "video/vp8", seconds=4, width=320, height=180)
    make_audio(directory / "demo.ogg", seconds=4)
