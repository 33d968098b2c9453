"""`lkactor serve` as a process: a signal lets everybody go and ends it; a second one does not wait."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc
from support.interop import LIMIT, MARKS, Client, run

from lkactor.testing import LkServer

pytestmark = MARKS
KEY, SECRET = "stopkey", "a-secret-for-tests-of-32-bytes-or-more"


@contextmanager
def serving() -> Iterator[Any]:
    """`.process`, and what a test client needs. Ready when the banner has been printed."""
    command = [sys.executable, "-m", "lkactor", "serve", "--bind", "127.0.0.1", "--keys", f"{KEY}: {SECRET}"]
    command += ["--config-body", "{port: 0, rtc: {udp_port: 0, tcp_port: 0}}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "announced" in line:
                break
        port = re.search(r"ws://127\.0\.0\.1:(\d+)", "".join(lines))
        assert port is not None, lines
        made = LkServer()  # never started: it only makes tokens
        made.api_key, made.api_secret = KEY, SECRET
        yield SimpleNamespace(process=process, url=port[0], port=int(port[1]), token=made.token)
    finally:
        process.kill()
        process.communicate()


async def ended(process: subprocess.Popen[str]) -> int:
    return await asyncio.wait_for(asyncio.to_thread(process.wait), LIMIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everyone_is_told_and_the_process_ends(number: signal.Signals) -> None:
    async def test() -> None:
        with serving() as server:
            people = [Client(server, name) for name in ("alice", "bob")]
            for client in people:
                await client.connect("hall")
            await people[0].meets("bob")
            server.process.send_signal(number)
            for client in people:
                gone = await client.event("disconnected")
                assert gone.args[0] == rtc.DisconnectReason.SERVER_SHUTDOWN, client.story()
            assert await ended(server.process) == 0
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port), 1)

    run(test)


def test_an_empty_server_ends_at_once() -> None:
    async def test() -> None:
        with serving() as server:
            server.process.terminate()
            assert await ended(server.process) == 0

    run(test)


def test_a_second_signal_does_not_wait_for_clients() -> None:
    """Both are there before a farewell can have gone out: the exit status says that it was not waited for."""

    async def test() -> None:
        with serving() as server:
            guest = await Client(server, "alice").connect("hall")
            server.process.send_signal(signal.SIGSTOP)
            for _ in range(2):
                server.process.send_signal(signal.SIGTERM)
                server.process.send_signal(signal.SIGINT)
            server.process.send_signal(signal.SIGCONT)
            assert await ended(server.process) == 1
            await guest.close()

    run(test)
