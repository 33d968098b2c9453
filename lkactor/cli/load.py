"""`lkactor load`: publishers and subscribers in one process, and a table of what came through."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lkactor.cli.common import (
    FAILED,
    USAGE,
    CliError,
    add_command,
    duration,
    note,
    print_json,
    progress,
    table,
    whole,
)
from lkactor.cli.participant_options import Stop, access_of, participant_options, room_of, run_client
from lkactor.cli.sources import DEMO, open_source

if TYPE_CHECKING:
    from lkactor.client.load import Load, Medium

MAX_CLIENTS = 2000


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands,
        "load",
        _run,
        "publishers and subscribers in one process: loss, bitrate, join time and latency",
        example="lkactor load --room load --publishers 2 --subscribers 20 --bitrate 1.5M --duration 30s --dev",
    )
    parser.add_argument("--publishers", "--video-publishers", type=whole, default=1, metavar="N", help="of video (1)")
    parser.add_argument("--audio-publishers", type=whole, default=0, metavar="N", help="of audio (0)")
    parser.add_argument("--subscribers", type=whole, default=1, metavar="N", help="each receives every track (1)")
    parser.add_argument(
        "--duration", type=duration, default=15.0, metavar="TIME", help="measured, after all joined (15s)"
    )
    parser.add_argument(
        "--bitrate", type=_bits, metavar="BPS", help="VP8 is filled up to it: 500k, 2M (1M; a file of yours: as it is)"
    )
    parser.add_argument(
        "--fps", type=whole, default=30, metavar="N", help="pictures a second, of the demo and of .h264 (30)"
    )
    parser.add_argument("--video", metavar="FILE", help=".ivf or .h264 to send (a demo in VP8)")
    parser.add_argument("--audio", metavar="FILE", help=".ogg to send (a demo in Opus)")
    parser.add_argument("--num-per-second", type=float, default=10.0, metavar="N", help="joins a second (10)")
    participant_options(parser, identity="load")


def _bits(text: str) -> float:
    units = {"k": 1e3, "M": 1e6, "m": 1e6}
    try:
        value = float(text.rstrip("kMm")) * units.get(text[-1:], 1)
    except ValueError:
        value = 0.0
    if not 8000 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: a bitrate of 8k to 1000M")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from lkactor.client.load import Load, LoadPlan

    if arguments.token or arguments.identity:
        raise CliError("load needs an API key and makes identities itself: neither --token nor --identity", USAGE)
    count = arguments.publishers + arguments.audio_publishers + arguments.subscribers
    if not 0 < count <= MAX_CLIENTS:
        raise CliError(f"{count} participants: 1 to {MAX_CLIENTS}", USAGE)
    if not 1 <= arguments.fps <= 240 or not 0 < arguments.num_per_second <= 1000:
        raise CliError("--fps is 1 to 240, --num-per-second above 0 and at most 1000", USAGE)
    arguments.room = arguments.room or arguments.room_name or "lkactor-load"
    room = room_of(arguments)

    def token(identity: str, publishes: bool) -> tuple[str, str]:
        return access_of(arguments, identity=identity, can_publish=publishes, can_subscribe=not publishes)

    plan = LoadPlan(
        publishers=_media(arguments),
        subscribers=arguments.subscribers,
        joins_per_second=arguments.num_per_second,
        duration=arguments.duration,
    )
    load = Load(plan, token, arguments.transport)

    async def main(stop: Stop) -> int:
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show, load)
            nursery.start_soon(_stop, stop, load)
            await load.run()
            nursery.cancel_scope.cancel()
        return FAILED if load.errors else 0

    status = run_client(main, token("probe", True)[0])
    progress("", end=False)
    _report(load, room, arguments.json)
    return status


def _media(arguments: argparse.Namespace) -> list[tuple[Medium, int]]:
    """What is published how often. Raises CliError."""
    from lkactor.client.load import Medium

    arguments.screen = False
    video = open_source(Path(arguments.video) if arguments.video else DEMO / "demo.ivf", arguments)
    audio = open_source(Path(arguments.audio) if arguments.audio else DEMO / "demo.ogg", arguments)
    if video.media.kind != "video" or audio.media.kind != "audio":
        raise CliError("--video is an .ivf or .h264, --audio an .ogg", USAGE)
    if arguments.bitrate and video.media.mime != "video/vp8":
        raise CliError(f"--bitrate: only VP8 can be filled up; {arguments.video} is {video.media.mime}", USAGE)
    bitrate = arguments.bitrate or (0.0 if arguments.video else 1e6)
    rate = 0.0 if arguments.video else float(arguments.fps)
    return [
        (Medium(video.spec, video.media, rate, bitrate), arguments.publishers),
        (Medium(audio.spec, audio.media), arguments.audio_publishers),
    ]


async def _show(load: Load) -> None:
    import trio

    while True:
        await trio.sleep(1)
        progress(load.state())


async def _stop(stop: Stop, load: Load) -> None:
    await stop.event.wait()
    load.stop()


def _report(load: Load, room: str, as_json: bool) -> None:
    rows, total = load.rows(), load.total()
    if as_json:
        print_json({"room": room, "subscribers": rows, **total})
        return
    header = ("SUBSCRIBER", "TRACKS", "PACKETS", "LOSS", "BITRATE", "JOIN", "FIRST MEDIA", "LATENCY P50", "P95", "P99")
    print(table(header, [_cells(row) for row in [*rows[:50], total["total"]]]))
    if len(rows) > 50:
        print(f"({len(rows) - 50} more subscribers are only in the total; --json has them)")
    join = total["join_ms"]
    print(f"\njoin (all {join['count']}): p50 {join['p50']} ms, p95 {join['p95']} ms, p99 {join['p99']} ms")
    own = total["generator"]
    waited = own["waited_ms"]
    print(f"latency is from our sending to the arrival at our sockets, of {total['latency_samples']} packets;")
    print(f"there they waited for this generator, which is not counted: p50 {waited['p50']} ms, p95 {waited['p95']} ms")
    print(f"this generator used {own['cpu']:.0%} of a core; its timers were at most {own['late_ms']} ms late")
    for error in load.errors[:10]:
        note(error)
    if own["limited"]:
        note(f"this generator was the limit, not the server: {'; '.join(own['why'])}")


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    share = 100 * row["lost"] / max(1, row["lost"] + row["packets"])
    latency = [f"{row['latency_ms'][name]} ms" for name in ("p50", "p95", "p99")]
    return (
        row["identity"],
        f"{row['tracks']}/{row['expected_tracks']}",
        row["packets"],
        f"{row['lost']} ({share:.2f}%)",
        f"{row['bitrate'] / 1e6:.2f} Mbit/s",
        f"{row['join_ms']} ms",
        f"{row['first_media_ms']} ms" if row["first_media_ms"] else "none came",
        *latency,
    )
