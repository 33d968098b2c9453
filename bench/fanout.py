"""What one packet to one leg costs, without the kernel: rewrite, with and without SRTP.

    python bench/fanout.py [--packets 40000] [--legs 1 10 100] [--bursts 1 8]

Prints JSON: for video (VP8, 1100 B) and audio (Opus, 160 B), by legs and burst size, thread CPU time per packet and
leg in us and packets per second and core. "forward": keys that do nothing and a path that takes nothing; "protect":
with AES-128-GCM. The difference is SRTP. Best of `--repeats`: other work on the machine only makes it slower.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.media import (  # noqa: E402 (tests/ is no package, pytest adds it to the path)
    Plain,
    Sink,
    audio_format,
    audio_leg,
    audio_packet,
    video_format,
    video_leg,
    vp8_payload,
)

from lkactor.sfu import Leg, TrackForwarder  # noqa: E402
from lkactor.srtp import SrtpKeys, SrtpProfile, SrtpSender  # noqa: E402
from lkactor.wire.rtp import RtpPacket, build_rtp, parse_rtp  # noqa: E402

TARGET_US = 5.0


class Nowhere(Sink):
    """Counts what would have been sent."""

    def __init__(self, srtp: Any) -> None:
        super().__init__()
        self.srtp = srtp
        self.sent = 0

    def send_run(self, segments: Sequence[memoryview]) -> None:
        self.sent += len(segments)


def keys() -> SrtpSender:
    profile = SrtpProfile.AEAD_AES_128_GCM
    return SrtpSender(SrtpKeys.from_exported(profile, bytes(range(profile.exported_size)), client=True))


def video(count: int) -> list[RtpPacket]:
    """The first packet is a key frame."""
    packets = []
    for index in range(count):
        payload = vp8_payload(index & 0x7FFF, index & 255, 1, key=index == 0) + bytes(1064)
        data = build_rtp(payload_type=96, sequence=index, timestamp=index * 3000, ssrc=5, marker=True, payload=payload)
        packets.append(parse_rtp(data, index / 1000))
    return packets


def audio(count: int) -> list[RtpPacket]:
    return [audio_packet(index & 0xFFFF, index * 960, index / 1000, payload=bytes(160)) for index in range(count)]


def run(kind: str, legs: int, burst: int, count: int, *, protect: bool) -> float:
    """Thread CPU seconds per packet and leg."""
    forwarder = TrackForwarder(video_format() if kind == "video" else audio_format())
    sinks = []
    for index in range(legs):
        sink = Nowhere(keys() if protect else Plain())
        leg: Leg = video_leg(sink, ssrc=2 * index + 1) if kind == "video" else audio_leg(sink, ssrc=2 * index + 1)
        leg.subscriber = f"PA_{index}"
        leg.abs_send_time_id = 3 if kind == "video" else 0
        leg.target_layer = 0
        sinks.append(sink)
        forwarder.add_leg(leg, 0.0)
    packets = video(count) if kind == "video" else audio(count)
    gc.collect()
    gc.disable()
    start = time.thread_time()
    for at in range(0, count, burst):
        forwarder.receive(0, packets[at : at + burst], packets[at].arrival)
    spent = time.thread_time() - start
    gc.enable()
    sent = sum(sink.sent for sink in sinks)
    if sent != count * legs:
        raise SystemExit(f"{sent} packets went out, {count * legs} should have: {dict(forwarder.counters)}")
    return spent / sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=40000, help="packets times legs per run")
    parser.add_argument("--legs", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--bursts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for kind in ("video", "audio"):
        for legs in arguments.legs:
            for burst in arguments.bursts:
                count = max(burst, arguments.packets // legs // burst * burst)
                row: dict[str, Any] = {"kind": kind, "legs": legs, "burst": burst, "packets": count * legs}
                for name, protect in (("forward", False), ("protect", True)):
                    best = min(run(kind, legs, burst, count, protect=protect) for _ in range(arguments.repeats))
                    row[f"{name}_us"] = round(best * 1e6, 2)
                    row[f"{name}_per_s"] = round(1 / best)
                rows.append(row)
    worst = max(row["forward_us"] for row in rows)
    print(json.dumps({"rows": rows, "worst_forward_us": worst, "target_us": TARGET_US, "met": worst <= TARGET_US}))


if __name__ == "__main__":
    main()
