"""The GStreamer signalling server in virtual time: real WebSockets over memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trio_websocket
from support.actor_leaks import run_actors

from actors.gst.connection import PONG_TIMEOUT
from actors.gst.messages import Arrived, ServerRef
from actors.gst.server import GstServerActor, GstServerSpec
from actors.kernel import ActorSystem, Restart
from lkactor.counters import Counters


class Bench:
    """A server without sockets, and clients that are connected to it by memory."""

    def __init__(self, system: ActorSystem, server: ServerRef, counters: Counters, nursery: trio.Nursery) -> None:
        self.system = system
        self.server = server
        self.counters = counters
        self._nursery = nursery

    def stream(self, *, narrow: bool = False) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]:
        """The client's end of a new connection. `narrow`: it holds nothing that is not read."""
        client, server = trio.testing.lockstep_stream_pair() if narrow else trio.testing.memory_stream_pair()
        self.server.tell(Arrived(server))
        return client

    async def websocket(self, path: str = "/", *, narrow: bool = False) -> trio_websocket.WebSocketConnection:
        return await trio_websocket.wrap_client_stream(self._nursery, self.stream(narrow=narrow), "localhost", path)

    async def peer(self, name: str, *, narrow: bool = False) -> trio_websocket.WebSocketConnection:
        socket = await self.websocket(narrow=narrow)
        await say(socket, f"HELLO {name}")
        assert await socket.get_message() == "HELLO"
        return socket

    def actors(self) -> list[str]:
        return [info.path for info in self.system.tree()]


async def say(socket: trio_websocket.WebSocketConnection, text: str | bytes) -> None:
    await socket.send_message(text)


@asynccontextmanager
async def bench(keepalive: float = 30.0, health: str = "/health") -> AsyncIterator[Bench]:
    counters = Counters()
    spec = GstServerSpec(listeners=(), keepalive=keepalive, health=health, counters=counters)
    async with ActorSystem(seed=0) as system, trio.open_nursery() as nursery:
        server = await system.spawn(lambda: GstServerActor(spec), "gst", restart=Restart.PERMANENT)
        yield Bench(system, server, counters, nursery)
        nursery.cancel_scope.cancel()


def with_bench(test: Callable[[Bench], Awaitable[None]], **options: float | str) -> None:
    async def main() -> None:
        async with bench(**options) as table:  # type: ignore[arg-type]
            await test(table)

    run_actors(main)


def test_a_session_and_its_end() -> None:
    async def test(table: Bench) -> None:
        alice, bob = await table.peer("alice"), await table.peer("bob")
        await say(alice, "SESSION bob")
        assert await alice.get_message() == "SESSION_OK"
        for said in ("offer", b"\x00\x01", "x" * 500_000):
            await say(alice, said)
            assert await bob.get_message() == said
        await alice.aclose()
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await bob.get_message()
        assert closed.value.reason.code == 1000
        await trio.sleep(5)
        assert table.actors() == ["/gst"]

    with_bench(test)


def test_rooms() -> None:
    async def test(table: Bench) -> None:
        alice, bob = await table.peer("alice"), await table.peer("bob")
        await say(alice, "ROOM hall")
        assert await alice.get_message() == "ROOM_OK "
        await say(bob, "ROOM hall")
        assert [await alice.get_message(), await bob.get_message()] == ["ROOM_PEER_JOINED bob", "ROOM_OK alice"]
        await say(bob, "ROOM_PEER_MSG alice hi")
        assert await alice.get_message() == "ROOM_PEER_MSG bob hi"
        await say(alice, "SESSION lkactor:hall")
        assert await alice.get_message() == "ERROR invalid msg, already in room"
        await bob.aclose()
        assert await alice.get_message() == "ROOM_PEER_LEFT bob"

    with_bench(test)


@pytest.mark.parametrize(
    ("hello", "code", "reason"),
    [("HELLO", 1002, "invalid peer uid"), ("hi", 1002, "invalid protocol"), ("HELLO alice", 1002, "invalid peer uid")],
)
def test_bad_greetings_are_closed_with_a_reason(hello: str, code: int, reason: str) -> None:
    async def test(table: Bench) -> None:
        await table.peer("alice")
        socket = await table.websocket("/any/path")
        await say(socket, hello)
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await socket.get_message()
        assert (closed.value.reason.code, closed.value.reason.reason) == (code, reason)
        await trio.sleep(5)
        assert len(table.actors()) == 2

    with_bench(test)


def test_a_frame_that_is_too_large_ends_the_connection() -> None:
    async def test(table: Bench) -> None:
        socket = await table.peer("alice")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await say(socket, "x" * (1024 * 1024 + 1))
            await socket.get_message()
        assert closed.value.reason.code == 1009

    with_bench(test)


async def http(table: Bench, request: str) -> str:
    stream = table.stream()
    await stream.send_all(request.encode())
    answer = b""
    while data := await stream.receive_some():
        answer += data
    return answer.decode()


@pytest.mark.parametrize(
    ("request_line", "health", "status", "body"),
    [
        ("GET /health HTTP/1.1", "/health", "200 OK", "OK\n"),
        ("GET /health?x=1 HTTP/1.0", "/health", "200 OK", "OK\n"),
        ("HEAD /health HTTP/1.1", "/health", "200 OK", ""),
        ("GET /alive HTTP/1.1", "/alive", "200 OK", "OK\n"),
        ("GET /health HTTP/1.1", "", "426 Upgrade Required", "a WebSocket is needed here\n"),
        ("GET / HTTP/1.1", "/health", "426 Upgrade Required", "a WebSocket is needed here\n"),
        ("POST /health HTTP/1.1", "/health", "426 Upgrade Required", "a WebSocket is needed here\n"),
        ("nonsense", "/health", "426 Upgrade Required", "a WebSocket is needed here\n"),
    ],
)
def test_plain_http(request_line: str, health: str, status: str, body: str) -> None:
    async def test(table: Bench) -> None:
        head, _, rest = (await http(table, f"{request_line}\r\nHost: x\r\n\r\n")).partition("\r\n\r\n")
        assert head.splitlines()[0] == f"HTTP/1.1 {status}"
        assert rest == body

    with_bench(test, health=health)


@pytest.mark.parametrize("sent", ["", "GET / HT", "x" * 20_000, "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"])
def test_what_is_no_request_ends_in_time(sent: str) -> None:
    async def test(table: Bench) -> None:
        stream = table.stream()
        await stream.send_all(sent.encode())
        with trio.fail_after(30):
            while await stream.receive_some():
                pass
        await trio.sleep(20)
        assert table.actors() == ["/gst"]
        assert table.counters

    with_bench(test)


def test_a_silent_peer_is_pinged_and_kept() -> None:
    async def test(table: Bench) -> None:
        alice = await table.peer("alice")
        await trio.sleep(500)
        await say(alice, "SESSION nobody")
        assert await alice.get_message() == "ERROR peer 'nobody' not found"

    with_bench(test, keepalive=7.0)


def test_a_dead_peer_is_found_by_its_missing_pong() -> None:
    async def test(table: Bench) -> None:
        stream = table.stream()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await trio.sleep(7.0 + PONG_TIMEOUT - 1)
        assert len(table.actors()) == 2
        await trio.sleep(2)
        assert table.actors() == ["/gst"]
        assert table.counters["gst.no_pong"] == 1

    with_bench(test, keepalive=7.0)


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    async def test(table: Bench) -> None:
        alice, _bob = await table.peer("alice"), await table.peer("bob", narrow=True)
        await say(alice, "SESSION bob")
        await alice.get_message()
        with pytest.raises(trio_websocket.ConnectionClosed):
            # bob's client takes one message and then no more: the rest waits in the server, up to its limit.
            for _ in range(200):
                await say(alice, "x" * 100_000)
                await trio.sleep(0.1)
        await trio.sleep(10)
        assert table.actors() == ["/gst"]
        assert table.counters["gst.slow_reader"] == 1

    with_bench(test)


def test_a_crash_drops_the_connections_and_nothing_more() -> None:
    async def test(table: Bench) -> None:
        alice = await table.peer("alice")
        table.server.kill()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await alice.get_message()
        await trio.sleep(5)
        again = await table.peer("alice")
        await say(again, "ROOM hall")
        assert await again.get_message() == "ROOM_OK "

    with_bench(test)
