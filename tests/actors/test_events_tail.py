"""`lkactor events tail` in virtual time: frames in any pieces, connections that break, servers that refuse."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from support.actor_leaks import run_actors

from actors.httpclient import HttpError
from lkactor.cli.events_tail import Frames, Refused, Tail, describe

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
TEXT = (
    'id: 5\n\n: a comment\n\nid: 6\nevent: room_started\ndata: {"event": "room_started", "room": {"name": "ä: b"}}\n\n'
    "event: gap\r\ndata:{}\r\n\r\n"
)


@given(st.lists(st.integers(0, len(TEXT.encode())), max_size=10))
def test_frames_in_any_pieces(cuts: list[int]) -> None:
    data, frames, taken = TEXT.encode(), Frames(), []
    places = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(places):
        taken += frames.feed(data[start:end])
    assert taken == [
        {"id": "5"},
        {"id": "6", "event": "room_started", "data": '{"event": "room_started", "room": {"name": "ä: b"}}'},
        {"event": "gap", "data": "{}"},
    ]


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    Frames().feed(data)


def test_an_event_in_one_line() -> None:
    event = {
        "event": "participant_left",
        "createdAt": "1700000000",
        "room": {"name": "demo"},
        "participant": {"identity": "al\nice\x1b", "disconnectReason": "CLIENT_INITIATED"},
    }
    assert describe(event) == "2023-11-14T22:13:20Z  participant_left  demo  al\\nice\\u001b  CLIENT_INITIATED"
    track = {"event": "track_published", "createdAt": "0", "track": {"sid": "TR_1", "source": "MICROPHONE"}}
    assert describe(track) == "1970-01-01T00:00:00Z  track_published  microphone  TR_1"


Script = Callable[[dict[str, str], trio.abc.Stream], Awaitable[None]]


def against(monkeypatch: pytest.MonkeyPatch, scripts: list[Script | None], limit: float, **options: Any) -> list[Any]:
    """Run the tail; each connection plays the next script (None: refused). Returns the queries, with their times."""
    queries: list[Any] = []
    errors: list[Exception] = []
    left = list(scripts)

    async def serve(script: Script, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        while not isinstance(event := connection.next_event(), h11.Request):
            assert event is h11.NEED_DATA
            connection.receive_data(bytes(await stream.receive_some(65536)))
        target = urlsplit(event.target.decode())
        assert target.path == "/events"
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        queries.append((trio.current_time(), query))
        async with stream:
            try:
                await script(query, stream)
            except trio.BrokenResourceError:
                pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def connect(host: str, port: int) -> trio.abc.Stream:
                script = left.pop(0) if left else None
                if script is None:
                    raise OSError("refused")
                client, server = trio.testing.memory_stream_pair()
                nursery.start_soon(serve, script, server)
                return client

            monkeypatch.setattr("actors.httpclient.trio.open_tcp_stream", connect)
            with trio.move_on_after(limit):
                try:
                    await Tail("http://back", "key", SECRET, **options).run()
                except (HttpError, Refused) as error:
                    errors.append(error)
            nursery.cancel_scope.cancel()

    run_actors(main)
    for error in errors:
        raise error
    return queries


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sends(text: str, *, hold: float = 0.0) -> Script:
    async def script(query: dict[str, str], stream: trio.abc.Stream) -> None:
        await stream.send_all(HEAD + text.encode())
        await trio.sleep(hold)

    return script


def answers(status: str, body: str = "") -> Script:
    async def script(query: dict[str, str], stream: trio.abc.Stream) -> None:
        await stream.send_all(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    return script


EVENT = 'id: {0}\nevent: room_started\ndata: {{"event": "room_started", "room": {{"name": "r{0}"}}}}\n\n'


def test_it_ends_with_the_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    queries = against(monkeypatch, [sends("id: 1\n\n" + EVENT.format(7))], 60, last=10, room="a b")
    assert [query for _, query in queries] == [{"follow": "0", "last": "10", "room": "a b"}]
    assert capsys.readouterr().out == "7 1970-01-01T00:00:00Z  room_started  r7\n"


def test_it_connects_again_where_it_was_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = [
        sends("id: 3\n\n"),
        None,
        None,
        sends(EVENT.format(7) + EVENT.format(9), hold=3),
        answers("503 Busy"),
        sends("id: 12\n\n" + EVENT.format(15), hold=1000),
        sends(EVENT.format(16), hold=1000),
    ]
    queries = against(monkeypatch, scripts, 100, follow=True, as_json=True, last=2)
    assert [query for _, query in queries] == [
        {"follow": "1", "last": "2"},
        {"follow": "1", "cursor": "3"},
        {"follow": "1", "cursor": "9"},
        {"follow": "1", "cursor": "9"},
        {"follow": "1", "cursor": "15"},
    ]
    assert queries[4][0] - queries[3][0] >= 45, "silence is noticed"
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12] for line in lines] == ['{"cursor": 7', '{"cursor": 9', '{"cursor": 1', '{"cursor": 1']


def test_what_is_refused_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="HTTP 403: the token"):
        against(monkeypatch, [answers("403 Forbidden", "the token needs more")], 60, follow=True)


def test_a_server_that_never_was_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HttpError, match="refused"):
        against(monkeypatch, [None], 60, follow=True)
    with pytest.raises(HttpError, match="HTTP 503"):
        against(monkeypatch, [answers("503 Busy")], 60)


def test_a_gap_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    against(monkeypatch, [sends('event: gap\ndata: {"after": 1, "before": 5}\n\n' + EVENT.format(6))], 60, cursor=1)
    out, err = capsys.readouterr()
    assert "not kept any more" in err
    assert out.startswith("6 ")
