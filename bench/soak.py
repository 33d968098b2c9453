"""N Chromium pages in one room for M seconds, each with camera and microphone: how often does a picture stand still?

    python bench/soak.py --pages 3 --seconds 60 --loss 0.05          our server, dropping 5 % of its datagrams each way
    python bench/soak.py --url ws://127.0.0.1:7880 ...               any LiveKit server, keys devkey/secret

Our server's tasks, actors, open descriptors and memory are sampled too, from the moment all media flows to the end.
Every subscribed video is sampled four times a second through getStats. Printed as JSON: per track the frames decoded,
spells of more than a second without a new frame (a track that never decoded one is a single long spell), the browser's
own freeze count, losses, NACKs and PLIs; and a summary. With --strict the exit status is 1 if there was a freeze or if
tasks, actors or descriptors have grown.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import trio

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import Browser, Page, missing  # noqa: E402 (tests/ is no package, pytest adds it to the path)

SAMPLES = 100
"""Of the server's resources, spread over the run."""
WEB = ROOT / "tests" / "interop" / "web"


class Remote:
    """A server that somebody else runs."""

    def __init__(self, url: str, key: str, secret: str) -> None:
        self.url = url
        self._key = key
        self._secret = secret

    def token(self, *, identity: str, room: str) -> str:
        now = int(time.time())
        video = {"roomJoin": True, "room": room}
        claims = {"iss": self._key, "sub": identity, "nbf": now - 10, "exp": now + 86400, "video": video}
        return jwt.encode(claims, self._secret, "HS256")


@contextlib.contextmanager
def server(options: argparse.Namespace) -> Iterator[Any]:
    """Something with `.url` and `.token(identity=, room=)`."""
    if options.url:
        if options.loss:
            raise SystemExit("--loss needs our own server: it drops the datagrams itself")
        yield Remote(options.url, options.api_key, options.api_secret)
        return
    from lkactor.testing import LkServer

    with LkServer(loss=options.loss, seed=options.seed) as ours:
        yield ours


async def enter(page: Page, url: str, token: str, options: argparse.Namespace) -> None:
    room_options = {"singlePeerConnection": not options.two_connections, "dynacast": True}
    await page.call("connect", url, token, room_options)
    width, height = options.width, options.width * 9 // 16
    await page.call("publishCamera", {"width": width, "height": height}, {"videoCodec": options.codec})
    await page.call("publishMicrophone")


async def soak(lk: Any, browser: Browser, options: argparse.Namespace) -> dict[str, Any]:
    room = f"soak-{secrets.token_hex(4)}"
    names = [f"page{number}" for number in range(options.pages)]
    async with browser.pages(options.pages) as pages:
        for name, page in zip(names, pages, strict=True):
            await enter(page, lk.url, lk.token(identity=name, room=room), options)
        for name, page in zip(names, pages, strict=True):
            await asyncio.gather(*(page.call("subscribed", other, "camera") for other in names if other != name))
            await page.call("watch", 250)
        growth = await watch_resources(lk, options.seconds)
        reports = await asyncio.gather(*(page.call("watchReport") for page in pages))
        reconnects = [len(await page.call("seen", "reconnecting")) for page in pages]
    found = summary(dict(zip(names, reports, strict=True)), dict(zip(names, reconnects, strict=True)), options)
    grown = [what for what in ("tasks", "actors", "descriptors") if growth and growth[what]["grown"] > 0]
    return {**found, "clean": found["clean"] and not grown, "resources": growth}


def resources(lk: Any) -> dict[str, int]:
    """Of our server, which runs in this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "tasks": lk.call(lambda: trio.lowlevel.current_statistics().tasks_living),
        "actors": len(lk.actors()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "rss_kb": pages * 4,
    }


async def watch_resources(lk: Any, seconds: float) -> dict[str, Any]:
    """Sleep that long; what grew meanwhile, by the medians of the first and of the last tenth of the samples."""
    if isinstance(lk, Remote):
        await asyncio.sleep(seconds)
        return {}
    samples: list[dict[str, int]] = []
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        samples.append(resources(lk))
        await asyncio.sleep(min(left, seconds / SAMPLES))
    tenth = max(1, len(samples) // 10)
    growth: dict[str, Any] = {}
    for what in samples[0]:
        first = statistics.median(sample[what] for sample in samples[:tenth])
        last = statistics.median(sample[what] for sample in samples[-tenth:])
        growth[what] = {"first": first, "last": last, "grown": last - first}
    return growth


def summary(tracks: dict[str, Any], reconnects: dict[str, int], options: argparse.Namespace) -> dict[str, Any]:
    every = [track for watched in tracks.values() for track in watched.values()]
    wanted = options.pages * (options.pages - 1)
    frozen = sum(track["freezes_over_1s"] > 0 for track in every)
    return {
        "pages": options.pages,
        "seconds": options.seconds,
        "loss": options.loss,
        "seed": options.seed,
        "tracks_expected": wanted,
        "tracks_watched": len(every),
        "tracks_frozen": frozen,
        "freezes_over_1s": sum(track["freezes_over_1s"] for track in every),
        "longest_gap_ms": max((track["longest_gap_ms"] for track in every), default=0),
        "frames_per_second": round(sum(t["frames_decoded"] / t["seconds"] for t in every) / max(len(every), 1), 2),
        "full_reconnects": sum(reconnects.values()),
        "clean": frozen == 0 and len(every) == wanted and not any(reconnects.values()),
        "tracks": tracks,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams our server drops, 0 to 1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=640, help="of the camera; 16:9")
    parser.add_argument("--codec", default="vp8", choices=["vp8", "h264", "vp9", "av1"])
    parser.add_argument("--two-connections", action="store_true", help="the older signalling, /rtc")
    parser.add_argument("--url", help="ws URL of a running server instead of ours")
    parser.add_argument("--api-key", default="devkey")
    parser.add_argument("--api-secret", default="secret")
    parser.add_argument("--strict", action="store_true", help="exit 1 unless no track froze and nobody reconnected")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if reason := missing(WEB):
        raise SystemExit(reason)
    with server(options) as lk, Browser(WEB) as browser:
        result = asyncio.run(soak(lk, browser, options))
    print(json.dumps(result, indent=2))
    return 1 if options.strict and not result["clean"] else 0


if __name__ == "__main__":
    sys.exit(main())
