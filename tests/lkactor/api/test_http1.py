"""Plain API calls: what is taken is what a whole HTTP parser would take, and everything else is left alone."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.api.http1 import MAX_BODY, MAX_HEAD, MAX_REMEMBERED, OTHER, Call, CallReader, Heads, Other, parse_head

TARGET = b"POST /twirp/livekit.RoomService/ListRooms HTTP/1.1\r\n"
HOST = b"Host: here\r\n"


def call(*fields: bytes, body: bytes = b"", line: bytes = TARGET) -> bytes:
    return line + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def all_of(reader: CallReader) -> list[Call | Other]:
    found: list[Call | Other] = []
    while (step := reader.next()) is not None:
        found.append(step)
        if step is OTHER:
            break
    return found


def read(data: bytes) -> list[Call | Other]:
    reader = CallReader(Heads())
    reader.receive(data)
    return all_of(reader)


def test_a_plain_call() -> None:
    fields = (b"Authorization: Bearer x.y.z", b"CONTENT-TYPE:\t application/json \t", b"X: 1", b"x: 2", b"Empty:")
    (found,) = read(call(*fields, b"content-length: 2", body=b"{}"))
    assert isinstance(found, Call)
    assert found.body == b"{}"
    assert (found.head.path, found.head.length, found.head.closes) == ("/twirp/livekit.RoomService/ListRooms", 2, False)
    assert found.head.headers == {
        "host": "here", "authorization": "Bearer x.y.z", "content-type": "application/json", "x": "1", "empty": "",
        "content-length": "2",
    }  # fmt: skip


def test_several_calls_at_once_and_a_partial_one() -> None:
    reader = CallReader(Heads())
    reader.receive(call(b"Content-Length: 3", body=b"one") + call(b"Content-Length: 3", body=b"two") + call()[:30])
    assert [step.body for step in all_of(reader) if isinstance(step, Call)] == [b"one", b"two"]
    assert reader.partial
    reader.receive(call()[30:])
    assert len(all_of(reader)) == 1
    assert reader.rest == b""


def test_every_split() -> None:
    whole = call(b"Content-Length: 4", body=b"body") + call(b"Connection: close")
    for at in range(len(whole) + 1):
        reader = CallReader(Heads())
        reader.receive(whole[:at])
        found = all_of(reader)
        reader.receive(whole[at:])
        found += all_of(reader)
        assert [step.body for step in found if isinstance(step, Call)] == [b"body", b""]
        assert [step.head.closes for step in found if isinstance(step, Call)] == [False, True]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" + call(),
        b"\x16\x03\x01",
        call(line=b"POST /twirp/livekit.RoomService/ListRooms HTTP/1.0\r\n"),
        call(line=b"POST /twirp/livekit.RoomService/ListRooms?access_token=x HTTP/1.1\r\n"),
        call(line=b"POST /twirp/livekit.RoomService/../x HTTP/1.1\r\n"),
        call(line=b"POST /twirp/livekit.RoomService/%41 HTTP/1.1\r\n"),
        call(line=b"POST /twirp/livekit.RoomService HTTP/1.1\r\n"),
        call(line=b"POST  /twirp/livekit.RoomService/ListRooms HTTP/1.1\r\n"),
        call(b"Transfer-Encoding: chunked"),
        call(b"Transfer-Encoding: chunked", b"Content-Length: 2"),
        call(b"Expect: 100-continue", b"Content-Length: 2"),
        call(b"Connection: upgrade", b"Upgrade: h2c"),
        call(b"Connection: close, x"),
        call(b"Connection: close", b"Connection: close"),
        call(b"Content-Length: 2", b"Content-Length: 2"),
        call(b"Content-Length: +2"),
        call(b"Content-Length: 2, 2"),
        call(b"Content-Length:"),
        call(b"Content-Length: %d" % (MAX_BODY + 1)),
        call(b"Content-Length: 99999999999999999999"),
        call(b"Host: there"),
        call(b"X: folded", b" more"),
        call(b"X : 1"),
        call(b": 1"),
        call(b"no colon"),
        call(b"X: \x00"),
        call(b"X: \xe9"),
        call(b"X: bare\nY: 2"),
        call(b"X: bare\rY: 2"),
        TARGET + b"\r\n",
        call(b"X: " + b"x" * MAX_HEAD),
    ],
)
def test_what_is_not_plain_is_left_as_it_is(data: bytes) -> None:
    reader = CallReader(Heads())
    reader.receive(data)
    assert all_of(reader) == [OTHER]
    assert reader.next() is OTHER
    assert reader.rest == data


def test_a_plain_call_before_something_else_is_taken() -> None:
    reader = CallReader(Heads())
    reader.receive(call() + b"GET / HTTP/1.1\r\n")
    first, second = all_of(reader)
    assert isinstance(first, Call)
    assert second is OTHER
    assert reader.rest == b"GET / HTTP/1.1\r\n"


def test_what_is_held_is_bounded() -> None:
    reader = CallReader(Heads())
    endless = TARGET + b"X: "
    while reader.next() is None:
        reader.receive(endless)
        endless = b"x" * 1000
    assert len(reader.rest) <= MAX_HEAD + 1000


def test_heads_are_remembered_and_the_memory_is_bounded() -> None:
    heads = Heads()
    first = heads.read(call(b"X: 0"))
    assert first is not None
    assert heads.read(call(b"X: 0")) is first
    for number in range(1, MAX_REMEMBERED + 1):
        heads.read(call(b"X: %d" % number))
    assert heads.read(call(b"X: 0")) is not first
    long = call(b"X: " + b"x" * 8000)
    assert heads.read(long) is not heads.read(long)
    assert heads.read(call(b"X: \x00")) is None


NAMES = st.sampled_from([b"Host", b"X", b"content-length", b"Connection", b"Accept", b"te", b"expect", b"a b", b""])
VALUES = st.one_of(
    st.sampled_from([b"", b"0", b"2", b"close", b"Keep-Alive", b" 1 ", b"\tx\t", b"chunked", b"100-continue"]),
    st.binary(max_size=8),
)
LINES = st.one_of(st.just(TARGET), st.just(TARGET[:-2] + b"\n"), st.binary(max_size=30))


@settings(max_examples=300)
@given(LINES, st.lists(st.tuples(NAMES, VALUES), max_size=5), st.sampled_from([b"\r\n", b"\n"]), st.booleans())
def test_what_is_taken_is_what_a_whole_parser_takes(
    line: bytes, fields: list[tuple[bytes, bytes]], end: bytes, host: bool
) -> None:
    """h11 is the judge: same path, same fields, same body."""
    head = line + b"".join(name + b":" + value + end for name, value in fields) + (HOST if host else b"") + b"\r\n"
    reader = CallReader(Heads())
    reader.receive(head + b"{}")
    step = reader.next()
    if not isinstance(step, Call):
        return
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head + b"{}")
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target, request.http_version) == (b"POST", step.head.path.encode(), b"1.1")
    judged: dict[str, str] = {}
    for name, value in request.headers:
        judged.setdefault(name.decode(), value.decode())
    assert step.head.headers == judged
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert step.body == body
    assert step.head.closes != _keeps(parser)


def _keeps(parser: h11.Connection) -> bool:
    sent = parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    return sent is not None and b"connection: close" not in sent.lower()


@given(st.binary(max_size=200))
def test_nothing_raises(data: bytes) -> None:
    read(data)
    read(TARGET + data)
    parse_head(data + b"\r\n\r\n")
