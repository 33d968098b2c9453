"""Connections of the front: plain calls are answered at once, everything else by hypercorn, on the same connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from actors.front.connections import Connections, Handlers
from actors.front.types import Request, Response, read_body
from lkactor.counters import Counters

TARGET = "POST /twirp/livekit.RoomService/Say HTTP/1.1\r\nHost: here\r\n"
LIMIT = 20.0


class Front:
    """A front that answers with what it was asked."""

    def __init__(self, listener: socket.socket) -> None:
        self.plain: list[tuple[Request, bytes]] = []
        self.failures: list[Exception] = []
        self.general: list[str] = []
        self.asked = trio.Event()
        self.hold: trio.Event | None = None
        """Calls wait for it."""
        config = Config()
        config.accesslog = config.errorlog = None
        config.include_server_header = False
        handlers = Handlers(self._call, self._app, self.failures.append, in_time=self._in_time)
        self.counters = Counters()
        self.connections = Connections(handlers, config, lambda: 1_000_000_000.0, self.counters)
        self.listener = listener
        self.listener.bind(("127.0.0.1", 0))

    async def _in_time(self) -> None:
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()

    async def _call(self, request: Request, body: bytes) -> Response:
        self.plain.append((request, body))
        if body == b"bug":
            raise KeyError("a bug")
        return Response(200, body * (1 << 16 if body == b"much" else 1), headers=(("vary", "Origin"),))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request.of(scope)
        self.general.append(f"{request.method} {request.path}")
        body = await read_body(receive, 1 << 20)
        await Response(200, body, headers=(("vary", "Origin"),)).send(send)

    async def open(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.listener.getsockname()[1])


def serving(test: Callable[[Front], Awaitable[None]], listener: socket.socket | None = None) -> None:
    async def main() -> None:
        front = Front(listener or socket.socket())
        with front.listener, trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(front.connections.run, (front.listener,))
                await trio.testing.wait_all_tasks_blocked()
                await test(front)
                nursery.cancel_scope.cancel()

    trio.run(main)


def plain(body: bytes, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"{TARGET}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(stream: trio.SocketStream) -> bytes:
    """One whole answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await more(stream)
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        rest += await more(stream)
    assert len(rest) == length
    return head + b"\r\n\r\n" + rest


async def more(stream: trio.SocketStream) -> bytes:
    data = bytes(await stream.receive_some(1 << 20))
    assert data, "closed"
    return data


def test_a_plain_call_and_the_next_one() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        for body in (b"one", b"two"):
            await stream.send_all(plain(body, "X-Y: z"))
            assert (await answer(stream)).endswith(body)
        request, _ = front.plain[0]
        assert (request.method, request.path, request.peer) == ("POST", "/twirp/livekit.RoomService/Say", "127.0.0.1")
        assert request.headers["x-y"] == "z"
        assert not front.general
        await stream.aclose()

    serving(test)


def test_hypercorn_says_the_same_byte_for_byte() -> None:
    async def test(front: Front) -> None:
        for extra in ("X: y", "Connection: close"):
            said = []
            for fields in ((extra,), (extra, "TE: trailers")):
                stream = await front.open()
                await stream.send_all(plain(b"hello", *fields))
                said.append([line for line in (await answer(stream)).split(b"\r\n") if not line.startswith(b"date: ")])
                await stream.aclose()
            assert said[0] == said[1]
        assert (len(front.plain), len(front.general)) == (2, 2)

    serving(test)


def test_the_date() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b""))
        assert b"\r\ndate: Sun, 09 Sep 2001 01:46:40 GMT\r\n" in await answer(stream)
        await stream.aclose()

    serving(test)


@pytest.mark.parametrize(
    "other",
    [
        b"GET /else HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nthere",
        TARGET.encode() + b"Transfer-Encoding: chunked\r\n\r\n5\r\nthere\r\n0\r\n\r\n",
        plain(b"there", "TE: trailers"),
    ],
)
def test_anything_else_in_mid_connection(other: bytes) -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"one") + other)
        data = b""
        while not data.endswith(b"there"):
            data += await more(stream)
        await stream.send_all(plain(b"again"))
        assert (await answer(stream)).endswith(b"again")
        assert len(front.plain) == 1
        assert len(front.general) == 2
        assert front.connections.handed_over == 1
        await stream.aclose()

    serving(test)


def test_a_call_in_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.front.connections.PATIENCE", LIMIT)

    async def test(front: Front) -> None:
        stream = await front.open()
        whole = plain(b"body")
        for at in (3, 40, len(whole) - 2):
            await stream.send_all(whole[:at])
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(whole[at:])
            assert (await answer(stream)).endswith(b"body")
        assert len(front.plain) == 3
        await stream.aclose()

    serving(test)


def test_patience_is_for_a_whole_call_not_for_each_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.front.connections.PATIENCE", 0.05)

    async def test(front: Front) -> None:
        stream = await front.open()
        whole = plain(b"x" * 5000)
        for at in range(len(whole)):
            await stream.send_all(whole[at : at + 1])
            if front.connections.handed_over:
                await stream.send_all(whole[at + 1 :])
                break
            await trio.sleep(0.005)
        assert (await answer(stream)).endswith(b"x" * 5000)
        assert not front.plain
        await stream.aclose()

    serving(test)


def test_who_is_slow_is_served_by_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.front.connections.PATIENCE", 0.01)

    async def test(front: Front) -> None:
        stream = await front.open()
        whole = plain(b"body")
        await stream.send_all(whole[:-1])
        while not front.general:  # noqa: ASYNC110
            await trio.sleep(0.001)
        await stream.send_all(whole[-1:])
        assert (await answer(stream)).endswith(b"body")
        assert not front.plain
        await stream.aclose()

    serving(test)


def test_a_call_waits_until_it_is_its_turn() -> None:
    async def test(front: Front) -> None:
        front.hold = trio.Event()
        stream = await front.open()
        await stream.send_all(plain(b"soon"))
        await front.asked.wait()
        assert not front.plain
        front.hold.set()
        assert (await answer(stream)).endswith(b"soon")
        await stream.aclose()

    serving(test)


def test_half_a_call_and_the_end() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"body")[:-1])
        await stream.send_eof()
        while await stream.receive_some(100):
            pass
        assert not front.plain
        await stream.aclose()

    serving(test)


def test_an_answer_is_sent_to_who_has_nothing_more_to_say() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"last"))
        await stream.send_eof()
        assert (await answer(stream)).endswith(b"last")
        assert await stream.receive_some(1) == b""
        await stream.aclose()

    serving(test)


def test_a_large_answer_waits_for_its_reader() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        for _ in range(8):
            await stream.send_all(plain(b"much"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        data = bytearray()
        while data.count(b"much", len(data) - 4) == 0 or data.count(b"much") < 8 << 16:
            data += await more(stream)
        assert data.count(b"HTTP/1.1 200 ") == 8
        await stream.aclose()

    serving(test)


def test_a_bug_is_that_call_s_alone() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"bug"))
        said = await answer(stream)
        assert said.startswith(b"HTTP/1.1 500 \r\ncontent-length: 0\r\n")
        assert b"Connection: close" in said
        assert await stream.receive_some(1) == b""
        await stream.aclose()
        assert [type(error) for error in front.failures] == [KeyError]
        assert front.counters == {"http.failed": 1}
        stream = await front.open()
        await stream.send_all(plain(b"fine"))
        assert (await answer(stream)).endswith(b"fine")
        await stream.aclose()

    serving(test)


def test_who_says_nothing_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.front.connections.SWEEP_INTERVAL", 0.01)

    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"one"))
        await answer(stream)
        front.connections._config.keep_alive_timeout = 0
        assert await stream.receive_some(1) == b""
        await stream.aclose()

    serving(test)


def test_an_answer_that_nobody_takes_is_counted() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"much") * 40)
        await trio.testing.wait_all_tasks_blocked(0.01)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await stream.aclose()
        while not front.counters:  # noqa: ASYNC110
            await trio.sleep(0.001)
        assert front.counters == {"http.answer_lost": 1}

    serving(test)


class Exhausted(socket.socket):
    """The first time no file descriptor is left."""

    failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "no more")
        return super().accept()


def test_a_listener_that_fails_is_tried_again() -> None:
    async def test(front: Front) -> None:
        stream = await front.open()
        await stream.send_all(plain(b"late"))
        assert (await answer(stream)).endswith(b"late")
        assert front.counters == {"http.accept_error": 1}
        await stream.aclose()

    serving(test, Exhausted())
