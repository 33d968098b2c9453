"""What users feel, with the real Python SDK: connect, first video, data and RPC round trips. Medians.

    python bench/clients.py [--runs 7] [--url ws://other --key K --secret S]

Without `--url` our own server is started. With `--url` both are measured in turn, run by run, and the ratios
ours/theirs are printed: the only comparison that means something on a shared machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

from livekit import rtc
from support.process import KEY, SECRET, server

from lkactor.auth import issue_token


async def once(url: str, key: str, secret: str, room: str) -> dict[str, float]:
    """One meeting of two; milliseconds."""

    def token(identity: str) -> str:
        video = {"room": room, "room_join": True}
        return issue_token(key, secret, identity=identity, video=video, now_unix=time.time())

    alice, bob = rtc.Room(), rtc.Room()
    figures: dict[str, float] = {}
    await alice.connect(url, token("alice"))
    begun = time.perf_counter()
    await bob.connect(url, token("bob"))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--url")
    parser.add_argument("--key", default="devkey")
    parser.add_argument("--secret", default="secret")
    arguments = parser.parse_args()
    ours, theirs = [], []
    with server() as host:
        for number in range(arguments.runs):
            ours.append(asyncio.run(once(host.url, KEY, SECRET, f"clients-{number}")))
            if arguments.url:
                other = (arguments.url, arguments.key, arguments.secret)
                theirs.append(asyncio.run(once(*other, f"clients-{number}-{time.time_ns()}")))
    result: dict[str, Any] = {"ours": medians(ours)}
    if theirs:
        result["theirs"] = medians(theirs)
        result["ratio"] = {name: round(value / result["theirs"][name], 2) for name, value in result["ours"].items()}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
