"""A signal connection on its own socket, beside a participant that is a list."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from livekit.protocol import rtc
from support.domain_world import World, world

from actors.front.signalling import QUEUE, SignalSocket
from actors.front.types import Response
from actors.front.writing import LateWrites
from actors.kernel import Actor, ActorRef
from actors.looptime import LoopTime
from actors.messages.participant import SignalLost, SignalReceived
from lkactor.signal.outgoing import Outgoing
from lkactor.signal.websocket import BINARY, CLOSE, PING, TEXT, close_frame, frame, read_upgrade

LIMIT = 20.0
UPGRADE = (
    b"GET /rtc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PONG = Outgoing(rtc.SignalResponse(pong=7))
MASK = bytes(4)
"""A mask of zeros is one, too."""


def masked(opcode: int, payload: bytes) -> bytes:
    whole = frame(opcode, payload)
    head = len(whole) - len(payload)
    return bytes((whole[0], whole[1] | 0x80)) + whole[2:head] + MASK + payload


class Listener(Actor[Any]):
    """In a participant's place."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.came = trio.Event()

    async def receive(self, message: Any) -> None:
        if message == "crash":
            raise RuntimeError("a bug")
        self.heard.append(message)
        self.came.set()


class Client:
    """The other end, and what is between."""

    def __init__(self, hall: World, nursery: trio.Nursery, ref: ActorRef[Any], listener: Listener) -> None:
        self.peer, ours = socket.socketpair()
        self.peer.setblocking(False)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        upgrade = read_upgrade(UPGRADE)
        assert upgrade is not None
        self.ours, self.ref, self.listener = ours, ref, listener
        self.sink = SignalSocket(
            ours, upgrade, UPGRADE, hall.services, nursery.start_soon, LateWrites(hall.services.loop)
        )
        self.over = trio.Event()
        self.nursery = nursery

    def open(self, *, text: bool = False) -> None:
        self.sink.accept(text=text)
        self.nursery.start_soon(self._run)

    async def say_soon(self, response: Outgoing) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self.sink.send(response)

    async def close_soon(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self.sink.close()

    async def _run(self) -> None:
        try:
            await self.sink.run(self.ref, 1, 16)
        finally:
            self.ours.close()
            self.over.set()

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            await trio.lowlevel.wait_readable(self.peer)
            more = self.peer.recv(size - len(data))
            if not more:
                break
            data += more
        return data

    async def head(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await self.read(1)
        return data

    async def rest(self) -> bytes:
        return await self.read(1 << 30)


@pytest.fixture
def serving() -> Iterator[Callable[[Callable[[Client], Awaitable[None]]], None]]:
    """Run a test with a client, in real time: there are sockets."""

    def run(test: Callable[[Client], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(LIMIT):
                async with world() as hall, trio.open_nursery() as nursery:
                    listener = Listener()
                    ref = await hall.system.spawn(lambda: listener, "listener")
                    client = Client(hall, nursery, ref, listener)
                    with client.peer, client.ours:
                        await test(client)
                        nursery.cancel_scope.cancel()

        trio.run(main)

    yield run


Serving = Callable[[Callable[[Client], Awaitable[None]]], None]


def test_what_was_said_before_comes_with_the_upgrade(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.nursery.start_soon(client.say_soon, PONG)
        assert await client.sink.has_first()
        client.open()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.read(4) == frame(BINARY, b"\x90\x01\x07")[:4]

    serving(test)


def test_a_participant_that_says_nothing_has_no_first_message(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.nursery.start_soon(client.close_soon)
        assert not await client.sink.has_first()

    serving(test)


def test_a_denial_is_plain_http(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.sink.deny(Response(401, b"no permissions"))
        client.ours.close()
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 ") and b"connection: close" in head and body == b"no permissions"

    serving(test)


def test_requests_are_heard_in_order_and_its_end_too(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        for number in range(3):
            request = rtc.SignalRequest(ping=number)
            client.peer.send(masked(BINARY, request.SerializeToString()))
        client.peer.send(masked(PING, b"are you there") + masked(CLOSE, b"\x03\xe8"))
        await client.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        *requests, last = client.listener.heard
        assert [message.request.ping for message in requests] == [0, 1, 2]
        assert all(isinstance(message, SignalReceived) and message.connection == 1 for message in requests)
        assert last == SignalLost(1)
        await client.head()
        assert await client.rest() == frame(0xA, b"are you there") + close_frame(1000)

    serving(test)


def test_very_many_requests_at_once_are_all_heard(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        many = 3 * client.listener.mailbox_capacity
        frames = masked(BINARY, rtc.SignalRequest(ping=1).SerializeToString()) * many
        while frames:
            await trio.lowlevel.wait_writable(client.peer)
            frames = frames[client.peer.send(frames) :]
        client.peer.send(masked(CLOSE, b"\x03\xe8"))
        await client.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(client.listener.heard) == many + 1 and client.listener.heard[-1] == SignalLost(1)

    serving(test)


def test_the_answer_is_in_the_client_s_words(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        client.peer.send(masked(TEXT, b'{"ping": "1"}'))
        await client.listener.came.wait()
        client.sink.send(PONG)
        assert await client.read(15) == frame(TEXT, b'{"pong": "7"}')

    serving(test)


def test_a_client_that_does_not_read_is_cut_off(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        large = Outgoing(rtc.SignalResponse(refresh_token="x" * 20_000))
        sent = 0
        while client.sink.send(large):
            sent += 1
            assert sent < 2 * QUEUE
        assert sent >= QUEUE
        assert client.sink.left
        data = await client.rest()
        assert data.endswith(close_frame(1000)) and data.count(b"x" * 20_000) == sent

    serving(test)


def test_a_participant_that_dies_sends_its_client_into_a_reconnect(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        client.ref.tell("crash")
        data = await client.rest()
        response = rtc.SignalResponse.FromString(data[2 : 2 + data[1]])
        assert response.leave.action == rtc.LeaveRequest.Action.RECONNECT
        assert data.endswith(close_frame(1000))

    serving(test)


def test_one_that_said_goodbye_is_not_spoken_for(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        client.sink.send(Outgoing(rtc.SignalResponse(leave=rtc.LeaveRequest())))
        client.sink.close()
        client.ref.tell("crash")
        client.peer.send(masked(CLOSE, b"\x03\xe8"))
        data = await client.rest()
        assert data == frame(BINARY, rtc.SignalResponse(leave=rtc.LeaveRequest()).SerializeToString()) + close_frame(
            1000
        )

    serving(test)


def test_in_a_long_turn_news_wait_but_a_goodbye_does_not(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        monkeypatch.setattr(LoopTime, "turn_so_far", lambda self: 1.0)
        client.sink.send(PONG)
        with pytest.raises(BlockingIOError):
            client.peer.recv(1)
        client.sink.close()
        said = frame(BINARY, b"\x90\x01\x07") + close_frame(1000)
        assert client.peer.recv(100) == said, "nothing is awaited in between"
        client.peer.send(masked(CLOSE, b"\x03\xe8"))
        assert await client.rest() == b""

    serving(test)


@pytest.mark.parametrize(
    ("frames", "code"),
    [(masked(BINARY, b"\xff") * 22, 1000), (b"\x82\x02ab", 1002), (masked(TEXT, b"\xff"), 1007)],
)
def test_who_talks_nonsense_is_sent_away(serving: Serving, frames: bytes, code: int) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        client.peer.send(frames)
        assert await client.rest() == close_frame(code)
        await client.over.wait()

    serving(test)


def test_too_large_a_message_is_refused(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        await client.head()
        client.peer.send(b"\x82\xff" + (1 << 30).to_bytes(8, "big"))
        assert await client.rest() == close_frame(1009)

    serving(test)


def test_a_client_that_vanishes_is_told_of(serving: Serving) -> None:
    async def test(client: Client) -> None:
        client.open()
        client.peer.close()
        await client.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert client.listener.heard == [SignalLost(1)]
        assert client.sink.send(PONG)  # Into the void: it was not too slow.

    serving(test)
