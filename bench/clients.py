"""What users feel, with the real SDKs: connect, first video, data and RPC round trips, resume to media. Medians.

    python bench/clients.py [--runs 7] [--no-browser] [--url ws://other --key K --secret S [--strict]]

Without `--url` our own server is started. With `--url` both are measured in turn, run by run, and the ratios
ours/theirs are printed: the only comparison that means something on a shared machine. `to_listed` compares with what
the Go server took on a machine like this one. --strict: exit status 1 if a row is above 1.3 in both, or in the latter
when nothing else is measured. Rows that begin with js_ are livekit-client in Chromium, the others the Python SDK.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from livekit import rtc

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from load.servers import KEY, SECRET, server  # noqa: E402
from support.browser import Browser, Page, missing  # noqa: E402

from lkactor.auth import issue_token  # noqa: E402

WEB = ROOT / "tests" / "interop" / "web"
LISTED = {
    "connect": 130,
    "first_video": 430,
    "data_round_trip": 2.7,
    "rpc": 3.2,
    "js_connect": 380,
    "js_first_video": 430,
    "js_resume_to_media": 2600 + 800,
}
"""Milliseconds that the Go server took on a machine like this (reference-server.md).

The resume begins with the client's own back-off of 2.6 s.
"""
Runs = list[dict[str, float]]
LIMIT = 1.3


def token_for(key: str, secret: str, room: str, identity: str) -> str:
    video = {"room": room, "room_join": True}
    return issue_token(key, secret, identity=identity, video=video, now_unix=time.time())


async def once(url: str, key: str, secret: str, room: str) -> dict[str, float]:
    """One meeting of two; milliseconds."""
    alice, bob = rtc.Room(), rtc.Room()
    figures: dict[str, float] = {}
    await alice.connect(url, token_for(key, secret, room, "alice"))
    begun = time.perf_counter()
    await bob.connect(url, token_for(key, secret, room, "bob"))
    figures["connect"] = time.perf_counter() - begun
    figures["first_video"] = await first_video(alice, bob)
    figures["data_round_trip"] = await data_round_trip(alice, bob)

    @bob.local_participant.register_rpc_method("echo")
    async def echo(call: rtc.RpcInvocationData) -> str:
        return call.payload

    trips = []
    for _ in range(15):
        begun = time.perf_counter()
        await alice.local_participant.perform_rpc(destination_identity="bob", method="echo", payload="x")
        trips.append(time.perf_counter() - begun)
    figures["rpc"] = statistics.median(trips)
    await alice.disconnect()
    await bob.disconnect()
    return {name: value * 1000 for name, value in figures.items()}


async def in_browser(browser: Browser, url: str, key: str, secret: str, room: str) -> dict[str, float]:
    """The same for two pages; milliseconds. Both have devices of their own, and what is shown is a canvas."""
    figures: dict[str, float] = {}
    async with browser.pages(2) as (ann, ben):
        await ann.call("connect", url, token_for(key, secret, room, "ann"), {"singlePeerConnection": True})
        begun = time.perf_counter()
        await ben.call("connect", url, token_for(key, secret, room, "ben"), {"singlePeerConnection": True})
        figures["js_connect"] = time.perf_counter() - begun
        begun = time.perf_counter()
        shown = asyncio.create_task(ben.call("firstFrame", "ann", "canvas"))
        await ann.call("publishCanvas", [220, 30, 30], [30, 30, 220])
        await shown
        figures["js_first_video"] = time.perf_counter() - begun
        begun = time.perf_counter()
        await ben.call("simulate", "signal-reconnect")
        await until_seen(ben, "reconnected")
        await ben.call("firstFrame", "ann", "canvas")
        figures["js_resume_to_media"] = time.perf_counter() - begun
    return {name: value * 1000 for name, value in figures.items()}


async def until_seen(page: Page, event: str) -> None:
    async with asyncio.timeout(20):
        while not await page.call("seen", event):  # noqa: ASYNC110 - the page tells nobody
            await asyncio.sleep(0.002)


async def first_video(alice: rtc.Room, bob: rtc.Room) -> float:
    """From publishing to the first decoded frame."""
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    tasks: list[asyncio.Task[None]] = []

    async def watch(track: rtc.Track) -> None:
        stream = rtc.VideoStream(track)
        async for _ in stream:
            arrived.set_result(time.perf_counter())
            break
        await stream.aclose()

    bob.on("track_subscribed", lambda track, *_: tasks.append(asyncio.create_task(watch(track))))
    source = rtc.VideoSource(320, 240)
    track = rtc.LocalVideoTrack.create_video_track("video", source)
    frame = rtc.VideoFrame(320, 240, rtc.VideoBufferType.RGBA, bytes(320 * 240 * 4))

    async def feed() -> None:
        while True:
            source.capture_frame(frame)
            await asyncio.sleep(1 / 30)

    feeding = asyncio.create_task(feed())
    begun = time.perf_counter()
    await alice.local_participant.publish_track(track)
    duration = await asyncio.wait_for(arrived, 20) - begun
    feeding.cancel()
    return duration


async def data_round_trip(alice: rtc.Room, bob: rtc.Room) -> float:
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()

    def answer(packet: rtc.DataPacket) -> None:
        task = asyncio.create_task(bob.local_participant.publish_data(packet.data, topic="pong"))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    bob.on("data_received", answer)
    alice.on("data_received", lambda packet: answers.put_nowait(packet.data))
    trips = []
    for number in range(15):
        begun = time.perf_counter()
        await alice.local_participant.publish_data(str(number).encode(), topic="ping")
        await asyncio.wait_for(answers.get(), 10)
        trips.append(time.perf_counter() - begun)
    return statistics.median(trips)


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {f"{name}_ms": round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--url", help="of a server to be measured beside ours")
    parser.add_argument("--key", default="devkey")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--no-browser", action="store_true", help="the Python SDK only")
    parser.add_argument("--strict", action="store_true", help=f"exit status 1 if a ratio is above {LIMIT}")
    return parser.parse_args()


def measure(options: argparse.Namespace, browser: Browser | None) -> tuple[Runs, Runs]:
    """Runs of ours and of theirs, in turn, so that both see the same weather."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with server() as host:
        places = [(ours, host.url, KEY, SECRET)]
        if options.url:
            places.append((theirs, options.url, options.key, options.secret))
        for number in range(options.runs):
            for runs, *place in places if number % 2 else reversed(places):
                room = f"clients-{number}-{time.time_ns()}"
                figures = asyncio.run(once(*place, room))
                if browser is not None:
                    figures |= asyncio.run(in_browser(browser, *place, f"{room}-js"))
                runs.append(figures)
    return ours, theirs


def main() -> int:
    options = arguments()
    if not options.no_browser and (reason := missing(WEB)):
        raise SystemExit(reason)
    with contextlib.ExitStack() as stack:
        browser = None if options.no_browser else stack.enter_context(Browser(WEB))
        ours, theirs = measure(options, browser)
    result: dict[str, Any] = {"runs": options.runs, "ours": medians(ours)}
    if theirs:
        result["theirs"] = medians(theirs)
        result["ratio"] = {name: round(value / result["theirs"][name], 2) for name, value in result["ours"].items()}
    listed = {
        name: round(result["ours"][f"{name}_ms"] / ms, 2)
        for name, ms in LISTED.items()
        if f"{name}_ms" in result["ours"]
    }
    result["to_listed"] = listed
    beside = result.get("ratio", {})
    result["slow"] = [n for n, ratio in listed.items() if ratio > LIMIT and beside.get(f"{n}_ms", ratio) > LIMIT]
    print(json.dumps(result, indent=2))
    return 1 if options.strict and result["slow"] else 0


if __name__ == "__main__":
    sys.exit(main())
