"""What is published: files by suffix, or the demo that comes with the package; paced by its timestamps."""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from livekit.protocol import models

from lkactor.cli.common import FAILED, USAGE, CliError
from lkactor.errors import ProtocolViolation
from lkactor.media.files import read_media
from lkactor.media.frame import MediaFile

if TYPE_CHECKING:
    from lkactor.client.session import Session
    from lkactor.client.tracks import LocalTrack, TrackSpec

DEMO = Path(__file__).parent.parent / "media" / "demo"
MAX_TRACKS = 16
BURST, PAUSE = 32, 0.002
"""Packets of a large picture that leave at once, and the pause after them: socket buffers on the way are small."""
SOURCES = {
    ("video", False): models.TrackSource.CAMERA,
    ("audio", False): models.TrackSource.MICROPHONE,
    ("video", True): models.TrackSource.SCREEN_SHARE,
    ("audio", True): models.TrackSource.SCREEN_SHARE_AUDIO,
}


@dataclass(frozen=True, slots=True)
class Source:
    media: MediaFile
    spec: TrackSpec
    path: str


def source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--publish-demo", action="store_true", help="a moving picture and a tone, made for this")
    parser.add_argument("--once", action="store_true", help="end after the files, instead of looping")
    parser.add_argument("--fps", type=_fps, default=30.0, metavar="N", help="frame rate of .h264, which has none (30)")
    parser.add_argument("--screen", action="store_true", help="as screen share, not as camera and microphone")


def _fps(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 240:
        raise argparse.ArgumentTypeError(f"{text!r}: a frame rate of 0.1 to 240")
    return value


def open_sources(files: Sequence[str], arguments: argparse.Namespace) -> list[Source]:
    """Raises CliError for what cannot be read."""
    paths = [Path(name) for name in files]
    if arguments.publish_demo:
        paths += [DEMO / "demo.ivf", DEMO / "demo.ogg"]
    if len(paths) > MAX_TRACKS:
        raise CliError(f"{len(paths)} tracks: at most {MAX_TRACKS}", USAGE)
    return [open_source(path, arguments) for path in paths]


def open_source(path: Path, arguments: argparse.Namespace) -> Source:
    """`arguments` has fps and screen. Raises CliError for what cannot be read."""
    from lkactor.client.tracks import TrackSpec

    try:
        with path.open("rb") as file:
            # Mapped, not read: the file may be larger than memory, and looping costs nothing.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        media = read_media(data, path.suffix.lower(), arguments.fps)
        first = next(iter(media.frames()), None)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", USAGE) from None
    except ValueError:
        raise CliError(f"{path} is empty", FAILED) from None
    except ProtocolViolation as violation:
        status = USAGE if violation.reason == "media.suffix" else FAILED
        raise CliError(f"{path} cannot be published: {violation.detail or violation.reason}", status) from None
    if first is None:
        raise CliError(f"{path} holds no frames", FAILED)
    spec = TrackSpec(
        mime=media.mime,
        name=path.stem,
        source=SOURCES[media.kind, arguments.screen],
        width=media.width,
        height=media.height,
        clock_rate=media.clock_rate,
        channels=media.channels,
    )
    return Source(media, spec, str(path))


async def publish_all(session: Session, sources: Sequence[Source], *, once: bool) -> None:
    """Publish and play all, in step, until the files end (`once`) or cancelled. Raises SignalError, CliError."""
    import trio

    tracks = await session.publish([source.spec for source in sources])
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for source, track in zip(sources, tracks, strict=True):
            nursery.start_soon(_play, source, track, start, once)


async def _play(source: Source, track: LocalTrack, start: float, once: bool) -> None:
    import trio

    begun = 0.0
    while True:
        at = 0.0
        try:
            for frame in source.media.frames():
                at = frame.time
                await trio.sleep_until(start + begun + at)
                payloads = track.payloads(frame)
                for index in range(0, len(payloads), BURST):
                    last = index + BURST >= len(payloads)
                    track.send_payloads(payloads[index : index + BURST], begun + at, ends=last)
                    if not last:
                        await trio.sleep(PAUSE)
        except ProtocolViolation as violation:
            raise CliError(f"{source.path} is damaged: {violation.detail or violation.reason}", FAILED) from None
        begun += at + source.media.frame_time
        if once:
            await trio.sleep_until(start + begun + 0.5)  # for retransmissions of the end
            return
