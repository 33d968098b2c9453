"""GStreamer peers as processes of the system's Python (`gst_peer.py`), and what they report."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from support.interop import LIMIT, Colour, near

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("gst_peer.py")
PROBE = """
import gi, websockets
for name in ("Gst", "GstSdp", "GstWebRTC"):
    gi.require_version(name, "1.0")
from gi.repository import Gst
Gst.init(None)
wanted = ("webrtcbin", "nicesrc", "dtlssrtpenc", "srtpenc", "vp8enc", "opusenc", "rtpvp8pay", "appsink")
print(" ".join(name for name in wanted if Gst.ElementFactory.find(name) is None))
"""


@cache
def missing() -> str:
    """Why no GStreamer peer can run here; empty if one can."""
    try:
        done = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no GStreamer for {PYTHON}: {error} (tests/setup.sh installs it)"
    if done.returncode:
        return f"no GStreamer for {PYTHON}: {(done.stderr.splitlines() or ['?'])[-1]} (tests/setup.sh installs it)"
    return f"GStreamer elements missing: {done.stdout.strip()}" if done.stdout.strip() else ""


class GstPeer:
    """One running peer. `events` holds everything it printed."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line))
            self._changed.set()

    async def until(self, fits: Callable[[dict[str, Any]], bool], what: str, *, since: int = 0) -> dict[str, Any]:
        """The first event that fits, past or future."""
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    found = next((event for event in self.events[since:] if fits(event)), None)
                    if found is not None:
                        return found
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = "\n".join(json.dumps(event) for event in self.events[-40:])
            raise AssertionError(f"{self.name}: no {what}; last events:\n{last}") from None

    async def said(self, text: str) -> None:
        """The signalling server said exactly that."""
        await self.until(lambda e: e["event"] == "said" and e["text"] == text, f"word {text!r}")

    async def hears(self, hz: float, *, peer: str = "session") -> None:
        """Half a second of that tone (within 5 Hz: zero crossings are counted), and loud."""

        def fits(event: dict[str, Any]) -> bool:
            tone = event["event"] == "tone" and event["peer"] == peer
            return tone and abs(event["hz"] - hz) <= 5 and event["loudness"] > 1000

        await self.until(fits, f"tone of {hz} Hz from {peer}")

    async def sees(self, left: Colour, right: Colour | None = None, *, peer: str = "session") -> None:
        def fits(event: dict[str, Any]) -> bool:
            if event["event"] != "picture" or event["peer"] != peer:
                return False
            return near(tuple(event["left"]), left) and near(tuple(event["right"]), right or left)

        await self.until(fits, f"picture {left} {right} from {peer}")

    def pads(self, kind: str, peer: str) -> set[int]:
        """The streams of that kind, "tone" or "picture", that have come from a peer."""
        return {event["pad"] for event in self.events if event["event"] == kind and event["peer"] == peer}

    async def command(self, line: str) -> None:
        """To the signalling server, as it is."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    async def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Peers:
    """The GStreamer peers of one test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._peers: list[GstPeer] = []
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, name: str, *options: str) -> GstPeer:
        """Options are those of `gst_peer.py`. Returns when the server has said HELLO."""
        process = await asyncio.create_subprocess_exec(
            PYTHON, str(SCRIPT), "--server", self.url, "--id", name, *options,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        peer = GstPeer(name, process)
        self._peers.append(peer)
        self._readers.append(asyncio.create_task(peer.read()))
        await peer.said("HELLO")
        return peer

    async def close(self) -> None:
        await asyncio.gather(*(peer.hang_up() for peer in self._peers if peer.process.returncode is None))
        await asyncio.gather(*self._readers)


@asynccontextmanager
async def gst_peers(url: str) -> AsyncIterator[Peers]:
    peers = Peers(url)
    try:
        yield peers
    finally:
        await peers.close()
