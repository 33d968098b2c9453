"""Webhook receivers for tests in virtual time: real HTTP bytes over memory streams, behaviour by script."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
import trio
import trio.testing


@dataclass
class Post:
    """One request that was answered."""

    at: float
    headers: dict[str, str]
    target: str
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads(self.body)
        return tree


Answer = tuple[int, list[tuple[str, str]], bytes]
Behaviour = Callable[[Post], Awaitable[Answer | None]]


async def accept(post: Post) -> Answer | None:
    return 200, [], b"ok"


@dataclass
class FakeReceiver:
    """A server at one host name. `behaviour` gives an answer, or None to hang up; `refusing` means no connection."""

    behaviour: Behaviour = accept
    refusing: bool = False
    posts: list[Post] = field(default_factory=list)
    """All requests, accepted or not."""
    accepted: list[Post] = field(default_factory=list)
    connections: int = 0
    busy: int = 0
    most_busy: int = 0

    def ids(self) -> list[str]:
        return [post.event["id"] for post in self.accepted]

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        connection = h11.Connection(h11.SERVER)
        async with stream:
            while True:
                post = await self._request(stream, connection)
                if post is None:
                    return
                self.posts.append(post)
                self.busy += 1
                self.most_busy = max(self.busy, self.most_busy)
                answer = await self.behaviour(post)
                self.busy -= 1
                if answer is None:
                    return
                status, headers, body = answer
                if 200 <= status < 300:
                    self.accepted.append(post)
                fields = [*headers, ("Content-Length", str(len(body)))]
                data = connection.send(h11.Response(status_code=status, headers=fields)) or b""
                data += connection.send(h11.Data(data=body)) or b""
                data += connection.send(h11.EndOfMessage()) or b""
                try:
                    await stream.send_all(data)
                except trio.BrokenResourceError:
                    return
                if connection.our_state is h11.MUST_CLOSE:
                    return
                connection.start_next_cycle()

    async def _request(self, stream: trio.abc.Stream, connection: h11.Connection) -> Post | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(bytes(await stream.receive_some(65536)))
                except trio.BrokenResourceError:
                    return None
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Post(trio.current_time(), headers, head.target.decode(), body)
            else:
                return None


class FakeInternet:
    """`trio.open_tcp_stream` for the receivers by host name. Serve inside `async with`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: dict[str, FakeReceiver] = {}
        self._nursery: trio.Nursery | None = None
        self._manager: Any = None
        monkeypatch.setattr("actors.httpclient.trio.open_tcp_stream", self._open)

    async def __aenter__(self) -> FakeInternet:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(*exc)

    async def _open(self, host: str, port: int) -> trio.abc.Stream:
        receiver = self.hosts.get(host)
        await trio.sleep(0.001)
        if receiver is None or receiver.refusing:
            raise OSError(f"all attempts to connect to {host}:{port} failed")
        client, server = trio.testing.memory_stream_pair()
        assert self._nursery is not None
        self._nursery.start_soon(receiver.serve, server)
        return client
