"""WebSocket frames and upgrades: the examples of RFC 6455 and RFC 7692, truncation, violations, random bytes."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.signal import websocket
from lkactor.signal.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_PARTS,
    PING,
    PONG,
    TEXT,
    CloseReceived,
    Event,
    MessageReader,
    PingReceived,
    Received,
    Upgrade,
    Violated,
    acceptance,
    close_frame,
    frame,
    message,
    read_upgrade,
)

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 70_000


def masked(opcode: int, payload: bytes, *, final: bool = True, bits: int = 0) -> bytes:
    """A client's frame."""
    whole = frame(opcode, payload)
    head = len(whole) - len(payload)
    first = (whole[0] if final else whole[0] & 0x7F) | bits
    body = bytes(octet ^ MASK[n % 4] for n, octet in enumerate(payload))
    return bytes((first, whole[1] | 0x80)) + whole[2:head] + MASK + body


def events(*chunks: bytes, limit: int = LIMIT, deflate: bool = False) -> list[Event]:
    reader = MessageReader(limit, deflate=deflate)
    for chunk in chunks:
        reader.receive(chunk)
    found = []
    while (event := reader.next_event()) is not None:
        found.append(event)
    return found


# -- frames


def test_the_examples_of_rfc_6455_section_5_7() -> None:
    hello = bytes.fromhex("818537fa213d7f9f4d5158")
    assert events(hello) == [Received("Hello")]
    assert masked(TEXT, b"Hello") == hello
    assert message("Hello", deflate=False) == bytes.fromhex("810548656c6c6f")
    assert frame(PONG, b"Hello") == bytes.fromhex("8a0548656c6c6f")
    assert frame(BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, bytes(65536))[:10] == bytes.fromhex("827f0000000000010000")


def test_the_example_of_rfc_7692_section_7_2_3_1() -> None:
    compressed = masked(TEXT, bytes.fromhex("f248cdc9c90700"), bits=0x40)
    assert events(compressed, deflate=True) == [Received("Hello")]
    assert events(compressed) == [Violated(1002)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_every_length_comes_through(size: int) -> None:
    payload = bytes(n & 0xFF for n in range(size))
    assert events(masked(BINARY, payload)) == [Received(payload)]


def test_fragments_with_a_ping_between() -> None:
    chunks = [
        masked(TEXT, b"Hel", final=False),
        masked(PING, b"?"),
        masked(CONTINUATION, b"", final=False),
        masked(CONTINUATION, b"lo"),
    ]
    assert events(b"".join(chunks)) == [PingReceived(b"?"), Received("Hello")]


def test_a_pong_is_nothing_to_say() -> None:
    assert events(masked(PONG, b"x"), masked(TEXT, b"a")) == [Received("a")]


@given(st.data())
def test_however_it_is_cut(data: st.DataObject) -> None:
    stream = masked(TEXT, "häh".encode()) + masked(PING, b"") + masked(BINARY, bytes(300)) + masked(CLOSE, b"\x03\xe8")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert events(*chunks) == [Received("häh"), PingReceived(b""), Received(bytes(300)), CloseReceived(1000)]


@pytest.mark.parametrize("size", range(len(masked(BINARY, bytes(200)))))
def test_truncated_it_waits(size: int) -> None:
    assert events(masked(BINARY, bytes(200))[:size]) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"unmasked"), 1002),
        (masked(TEXT, b"x", bits=0x20), 1002),
        (masked(TEXT, b"x", bits=0x40), 1002),
        (masked(0x3, b"x"), 1002),
        (masked(0xB, b"x"), 1002),
        (masked(CONTINUATION, b"of nothing"), 1002),
        (masked(TEXT, b"a", final=False) + masked(TEXT, b"b"), 1002),
        (masked(PING, b"", final=False), 1002),
        (masked(PING, bytes(126)), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(BINARY, bytes(LIMIT + 1)), 1009),
        (masked(BINARY, bytes(LIMIT), final=False) + masked(CONTINUATION, b"x"), 1009),
        (masked(TEXT, b"", final=False) + masked(CONTINUATION, b"", final=False) * MAX_PARTS, 1009),
    ],
)
def test_violations_end_it(data: bytes, code: int) -> None:
    assert events(data, masked(TEXT, b"not looked at")) == [Violated(code)]


def test_too_long_is_known_from_the_head() -> None:
    assert events(masked(BINARY, bytes(LIMIT + 1))[:10]) == [Violated(1009)]


def test_the_limit_itself_may_be() -> None:
    assert events(masked(BINARY, bytes(LIMIT))) == [Received(bytes(LIMIT))]
    parts = masked(BINARY, bytes(LIMIT - 1), final=False) + masked(CONTINUATION, b"\x00")
    assert events(parts) == [Received(bytes(LIMIT))]


def test_close_says_its_code_and_nothing_follows() -> None:
    assert events(masked(CLOSE, b""), masked(TEXT, b"x")) == [CloseReceived(1005)]
    assert events(masked(CLOSE, b"\x03\xe9bye")) == [CloseReceived(1001)]
    assert close_frame(1005) == b"\x88\x00"
    assert close_frame(1000) == b"\x88\x02\x03\xe8"


@given(st.binary(max_size=64), st.booleans())
def test_random_bytes_never_raise(data: bytes, deflate: bool) -> None:
    events(data, limit=16, deflate=deflate)


@given(st.binary(max_size=64))
def test_random_compressed_bytes_never_raise(data: bytes) -> None:
    events(masked(BINARY, data, bits=0x40), limit=64, deflate=True)


# -- compression


def test_messages_are_compressed_where_it_is_agreed_and_worth_it() -> None:
    long = b"abc" * 1000
    assert message(long, deflate=False) == frame(BINARY, long)
    assert message(b"short", deflate=True) == frame(BINARY, b"short")
    small = message(long, deflate=True)
    assert len(small) < 200 and small[0] == 0x80 | 0x40 | BINARY
    assert zlib.decompressobj(wbits=-15).decompress(small[2:] + b"\x00\x00\xff\xff") == long


def test_each_message_can_be_read_alone() -> None:
    first, second = (message(b"abc" * 1000, deflate=True) for _ in range(2))
    assert first == second


def test_a_bomb_stops_at_the_limit() -> None:
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(50_000_000)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < LIMIT
    assert events(masked(BINARY, bomb[:-4], bits=0x40), deflate=True) == [Violated(1009)]


def test_compressed_in_fragments() -> None:
    body = bytes.fromhex("f248cdc9c90700")
    parts = masked(TEXT, body[:3], bits=0x40, final=False) + masked(CONTINUATION, body[3:])
    assert events(parts, deflate=True) == [Received("Hello")]
    again = masked(CONTINUATION, body[3:], bits=0x40)
    assert events(masked(TEXT, body[:3], bits=0x40, final=False) + again, deflate=True) == [Violated(1002)]


def test_what_is_no_deflate_stream_is_bad_data() -> None:
    assert events(masked(BINARY, b"\xff" * 20, bits=0x40), deflate=True) == [Violated(1007)]


# -- upgrades

PLAIN = (
    b"GET /rtc?access_token=a.b.c&protocol=16 HTTP/1.1\r\nHost: localhost:7880\r\nUpgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"\r\n"
)


def with_field(field: bytes) -> bytes:
    return PLAIN[:-2] + field + b"\r\n\r\n"


def test_a_plain_upgrade_is_read() -> None:
    upgrade = read_upgrade(PLAIN + b"\x81")
    assert isinstance(upgrade, Upgrade)
    assert upgrade.target == b"/rtc?access_token=a.b.c&protocol=16"
    assert (b"host", b"localhost:7880") in upgrade.headers
    assert upgrade.size == len(PLAIN) and not upgrade.deflate


def test_the_answer_is_that_of_rfc_6455_section_1_3() -> None:
    upgrade = read_upgrade(PLAIN)
    assert upgrade is not None
    lines = acceptance(upgrade).split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert not any(line.startswith(b"sec-websocket-extensions") for line in lines)


@pytest.mark.parametrize(
    ("extensions", "deflate"),
    [
        (b"permessage-deflate", True),
        (b"permessage-deflate; client_max_window_bits", True),
        (b"x-webkit, permessage-deflate;client_max_window_bits=12 ; server_no_context_takeover", True),
        (b"permessage-deflate; server_max_window_bits=10", False),
        (b"permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        (b"permessage-bzip2", False),
        (b"", False),
    ],
)
def test_compression_is_agreed_where_the_offer_fits(extensions: bytes, deflate: bool) -> None:
    upgrade = read_upgrade(with_field(b"Sec-WebSocket-Extensions: " + extensions))
    assert upgrade is not None and upgrade.deflate is deflate
    terms = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert (terms in acceptance(upgrade)) is deflate


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace(b"GET", b"POST"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"/rtc?", b"http://localhost/rtc?"),
        PLAIN.replace(b"protocol=16", b"protocol=\xc3\xa4"),
        PLAIN.replace(b"Host: localhost:7880\r\n", b""),
        PLAIN.replace(b"websocket\r\n", b"h2c\r\n"),
        PLAIN.replace(b"keep-alive, Upgrade", b"keep-alive"),
        PLAIN.replace(b"Version: 13", b"Version: 8"),
        PLAIN.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"),
        PLAIN.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ"),
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"Host: localhost:7880\r\n", b"Host: localhost:7880\r\n folded\r\n"),
        with_field(b"Content-Length: 0"),
        with_field(b"Transfer-Encoding: chunked"),
        with_field(b"Host: other"),
        with_field(b"Bad Name: x"),
        with_field(b"no colon"),
        with_field(b"Sec-WebSocket-Protocol: chat"),
        PLAIN[:-1],
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_others(other: bytes) -> None:
    assert read_upgrade(other) is None


@pytest.mark.parametrize("size", range(len(PLAIN)))
def test_an_upgrade_that_is_cut_is_none(size: int) -> None:
    assert read_upgrade(PLAIN[:size]) is None


@given(st.binary(max_size=300))
def test_a_random_head_never_raises(data: bytes) -> None:
    read_upgrade(b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n")
    read_upgrade(data)


def test_a_head_without_end_is_given_up() -> None:
    assert read_upgrade(with_field(b"a: " + bytes(b"x" * websocket.MAX_HEAD))) is None
