"""B6 API: Twirp over CONNECTIONS kept connections."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import trio
from google.protobuf.message import Message
from livekit.protocol import models, room
from load.peers import Member
from load.servers import Server
from load.window import Row, Window, crowd, join_all

from lkactor.auth import issue_token

CONNECTIONS = 8
MANY_ROOMS = 1000
Call = tuple[str, bytes]
"""Method and body."""


class Connection:
    """HTTP/1.1, one request after the other."""

    def __init__(self, server: Server, *, as_json: bool) -> None:
        grants = {"room_create": True, "room_list": True, "room_admin": True, "room": "b6"}
        token = issue_token(server.key, server.secret, identity="api", video=grants, now_unix=time.time())
        self._address = urlsplit(server.http)
        self._head = (
            f" HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/{'json' if as_json else 'protobuf'}\r\nContent-Length: "
        )
        self._buffer = b""

    async def open(self) -> None:
        self._stream = await trio.open_tcp_stream(self._address.hostname or "", self._address.port or 80)

    async def call(self, method: str, body: bytes) -> bytes:
        head = f"POST /twirp/livekit.RoomService/{method}{self._head}{len(body)}\r\n\r\n"
        await self._stream.send_all(head.encode() + body)
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        answer, _, rest = self._buffer.partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{method}: {answer[:40]!r} {rest[:200]!r}")
        return await self._body(answer.lower(), rest)

    async def _more(self) -> bytes:
        data = bytes(await self._stream.receive_some(1 << 20))
        if not data:
            raise RuntimeError("the server closed a kept connection")
        return data

    async def _body(self, head: bytes, rest: bytes) -> bytes:
        if b"chunked" in head:
            while not rest.endswith(b"0\r\n\r\n"):
                rest += await self._more()
            self._buffer = b""
            return rest
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        parts, have = [rest], len(rest)
        while have < length:
            parts.append(await self._more())
            have += len(parts[-1])
        whole = b"".join(parts)
        self._buffer = whole[length:]
        return whole[:length]


async def create_and_delete(server: Server, n: int, seconds: float) -> Row:
    """Two requests: CreateRoom, then DeleteRoom."""

    def calls(lane: int) -> Iterator[Call]:
        for number in itertools.count():
            name = f"b6-{lane}-{number}"
            yield "CreateRoom", room.CreateRoomRequest(name=name).SerializeToString()
            yield "DeleteRoom", room.DeleteRoomRequest(room=name).SerializeToString()

    row = await _drive(server, calls, seconds)
    return row | {"cpu_us_per_request": row["cpu_us_per_request"] * 2}


async def update_participant(server: Server, n: int, seconds: float) -> Row:
    numbers = itertools.count()

    def calls(lane: int) -> Iterator[Call]:
        for number in numbers:
            request = room.UpdateParticipantRequest(room="b6", identity="member", metadata=f"value {number}")
            yield "UpdateParticipant", request.SerializeToString()

    return await _with_member(server, calls, seconds)


async def send_data(server: Server, n: int, seconds: float) -> Row:
    request = room.SendDataRequest(room="b6", data=bytes(100), kind=models.DataPacket.RELIABLE)
    return await _with_member(server, _always("SendData", request), seconds)


async def list_rooms(server: Server, n: int, seconds: float, *, as_json: bool = False) -> Row:
    """With `n` rooms, protobuf."""
    connection = Connection(server, as_json=False)
    await connection.open()
    names = [f"b6-many-{number}" for number in range(n)]
    for name in names:
        request = room.CreateRoomRequest(name=name, empty_timeout=600, metadata="a room of many")
        await connection.call("CreateRoom", request.SerializeToString())
    body = b"{}" if as_json else room.ListRoomsRequest().SerializeToString()
    if as_json:
        asking = Connection(server, as_json=True)
        await asking.open()
        found = len(json.loads(await asking.call("ListRooms", body))["rooms"])
        assert found >= n
    row = await _drive(server, lambda _: itertools.repeat(("ListRooms", body)), seconds, as_json=as_json)
    for name in names:
        await connection.call("DeleteRoom", room.DeleteRoomRequest(room=name).SerializeToString())
    return row


async def list_rooms_json(server: Server, n: int, seconds: float) -> Row:
    return await list_rooms(server, n, seconds, as_json=True)


def _always(method: str, request: Message) -> Callable[[int], Iterator[Call]]:
    body = request.SerializeToString()
    return lambda _: itertools.repeat((method, body))


async def _with_member(server: Server, calls: Callable[[int], Iterator[Call]], seconds: float) -> Row:
    async with crowd() as (pool, nursery):
        await join_all([member := Member(server, pool, "b6", "member")], nursery)
        with trio.fail_after(30):
            await member.subscriber.connected.wait()
        await trio.sleep(0.5)
        return await _drive(server, calls, seconds)


async def _drive(
    server: Server, calls: Callable[[int], Iterator[Call]], seconds: float, *, as_json: bool = False
) -> Row:
    latencies: list[float] = []
    connections = [Connection(server, as_json=as_json) for _ in range(CONNECTIONS)]

    async def run(lane: int, until: float) -> None:
        for method, body in calls(lane):
            if time.monotonic() > until:
                return
            begun = time.monotonic()
            await connections[lane].call(method, body)
            latencies.append(time.monotonic() - begun)

    for connection in connections:
        await connection.open()
    window = Window(server)
    async with trio.open_nursery() as nursery:
        for lane in range(CONNECTIONS):
            nursery.start_soon(run, lane, window.began + seconds)
    used = window.end()
    cpu, elapsed = used.pop("cpu"), used.pop("elapsed")
    latencies.sort()
    return {
        "requests_per_second": round(len(latencies) / elapsed),
        "cpu_us_per_request": round(cpu / len(latencies) * 1e6, 1),
        "latency_p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "latency_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
        **used,
    }
