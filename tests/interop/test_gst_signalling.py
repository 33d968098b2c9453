"""GStreamer's webrtcbin through `lkactor gst-signalling`: two peers over TLS, a mesh of three, who comes and goes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.gst import gst_peers, missing
from support.interop import GREEN, MARKS, RED, run
from support.tls import self_signed

pytestmark = [*MARKS, pytest.mark.skipif(bool(missing()), reason=missing())]


@contextmanager
def signalling(*options: str) -> Iterator[str]:
    """The URL of a server of its own, as a user starts it."""
    command = [sys.executable, "-m", "lkactor", "gst-signalling", "--addr", "127.0.0.1", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"wss?://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()
            assert process.wait(10) == 0


@pytest.fixture
def plain() -> Iterator[str]:
    with signalling() as url:
        yield url


def test_two_peers_over_tls(tmp_path: Path) -> None:
    async def test(url: str) -> None:
        async with gst_peers(url) as peers:
            callee = await peers.start("callee", "--tone", "440", "--colour", "dc1e1e")
            caller = await peers.start("caller", "--call", "callee", "--tone", "1000", "--colour", "1ec81e")
            await asyncio.gather(callee.hears(1000), callee.sees(GREEN), caller.hears(440), caller.sees(RED))
            # GStreamer's clients take the end of their connection as the end of the call.
            await caller.hang_up()
            closed = await callee.until(lambda e: e["event"] == "closed", "end of the connection")
            assert closed["code"] == 1000

    cert, key = self_signed(tmp_path)
    with signalling("--cert", cert, "--key", key) as url:
        assert url.startswith("wss://")
        run(lambda: test(url))


def test_mesh_of_three(plain: str) -> None:
    async def test() -> None:
        async with gst_peers(plain) as peers:
            a = await peers.start("a", "--room", "mesh", "--audio-only", "--tone", "440")
            await a.said("ROOM_OK ")
            b = await peers.start("b", "--room", "mesh", "--audio-only", "--tone", "700")
            await b.said("ROOM_OK a")
            c = await peers.start("c", "--room", "mesh", "--audio-only", "--tone", "1000")
            await c.said("ROOM_OK a b")
            await asyncio.gather(
                a.hears(700, peer="b"), a.hears(1000, peer="c"), b.hears(440, peer="a"), b.hears(1000, peer="c"),
                c.hears(440, peer="a"), c.hears(700, peer="b"),
            )  # fmt: skip
            await a.command("ROOM_PEER_LIST")
            await a.said("ROOM_PEER_LIST b c")
            await c.hang_up()
            await asyncio.gather(a.said("ROOM_PEER_LEFT c"), b.said("ROOM_PEER_LEFT c"))

    run(test)


def test_the_callee_may_offer(plain: str) -> None:
    async def test() -> None:
        async with gst_peers(plain) as peers:
            callee = await peers.start("callee", "--audio-only", "--tone", "440")
            caller = await peers.start(
                "caller", "--call", "callee", "--remote-offerer", "--audio-only", "--tone", "880"
            )
            await callee.said("OFFER_REQUEST")
            await asyncio.gather(callee.hears(880), caller.hears(440))
            third = await peers.start("third", "--call", "callee")
            await third.said("ERROR peer 'callee' busy")
            assert caller.process.returncode is None

    run(test)
