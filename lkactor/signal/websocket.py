"""The server's half of a WebSocket (RFC 6455), with compression by message (RFC 7692). Pure.

An upgrade is read here only if it is plain: one GET on HTTP/1.1, ASCII, no body. What is in any way different is not
judged but left to a general HTTP server, so nothing is refused or excused (`read_upgrade`).

    BETWEEN   data frame that ends a message -> Received; one that does not: WITHIN
    WITHIN    continuation: as above; another data frame -> Violated(1002)
    ENDED     a close frame (CloseReceived) or a violation came: what follows is not looked at

Control frames come between the frames of a message. Compression keeps no context from message to message, in either
direction (RFC 7692 section 7.1.1): a connection holds no window, and a frame that is made once serves all receivers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from dataclasses import dataclass

MAX_HEAD = 256 * 1024
MAX_PARTS = 1024
"""Frames of one message; they may be empty."""
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0
NORMAL, PROTOCOL_ERROR, BAD_DATA, TOO_BIG = 1000, 1002, 1007, 1009
NO_CODE = 1005
WORTH_COMPRESSING = 512
"""Bytes; a smaller message goes out as it is."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_REQUEST_LINE = re.compile(rb"GET (/[\x21-\x7e]*) HTTP/1\.1")
_PLAIN = re.compile(rb"[\t\r\n\x20-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ELSEWHERE = frozenset(
    {b"transfer-encoding", b"content-length", b"expect", b"trailer", b"te", b"sec-websocket-protocol"}
)
"""Fields that ask for more than an upgrade."""
_ONCE = frozenset({b"host", b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version"})
_TAIL = b"\x00\x00\xff\xff"
"""What a compressed message ends in, and leaves out (RFC 7692 section 7.2.1)."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """`size`: bytes of it, the empty line included; what follows belongs to the WebSocket."""

    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    key: bytes
    deflate: bool
    """The client can do RFC 7692, and we shall."""
    size: int


@dataclass(frozen=True, slots=True)
class Received:
    data: bytes | str


@dataclass(frozen=True, slots=True)
class PingReceived:
    payload: bytes


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """To be answered with the same `code`."""

    code: int


@dataclass(frozen=True, slots=True)
class Violated:
    """The connection is to be closed with this code."""

    code: int


Event = Received | PingReceived | CloseReceived | Violated


def read_upgrade(data: bytes) -> Upgrade | None:
    """`data` from its first byte on. None: not plain, or not complete."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        return None
    head = data[:end]
    lines = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None or not _PLAIN.fullmatch(head) or not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
        return None
    headers: list[tuple[bytes, bytes]] = []
    found: dict[bytes, bytes] = {}
    for field in lines[1:]:
        name, colon, value = field.partition(b":")
        key, value = name.lower(), value.strip(b" \t")
        # A folded line begins with a space, and so has no name (RFC 9112 section 5.2).
        if not colon or not _NAME.fullmatch(name) or key in _ELSEWHERE or (key in found and key in _ONCE):
            return None
        headers.append((key, value))
        found[key] = b"%b, %b" % (found[key], value) if key in found else value
    if not _asks_for_websocket(found):
        return None
    deflate = _offers_deflate(found.get(b"sec-websocket-extensions", b""))
    return Upgrade(line[1], tuple(headers), found[b"sec-websocket-key"], deflate, end + 4)


def _asks_for_websocket(headers: dict[bytes, bytes]) -> bool:
    """RFC 6455 section 4.2.1."""
    tokens = [token.strip() for token in headers.get(b"connection", b"").lower().split(b",")]
    if b"host" not in headers or b"upgrade" not in tokens or headers.get(b"upgrade", b"").lower() != b"websocket":
        return False
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return False
    return len(key) == 16 and headers.get(b"sec-websocket-version") == b"13"


def _offers_deflate(extensions: bytes) -> bool:
    """One of the offers is such that ours is an answer to it (RFC 7692 section 7.1)."""
    for offer in extensions.split(b","):
        name, *parameters = [part.strip() for part in offer.lower().split(b";")]
        free = {b"client_max_window_bits", b"server_no_context_takeover", b"client_no_context_takeover"}
        if name == b"permessage-deflate" and all(part.partition(b"=")[0].strip() in free for part in parameters):
            return True
    return False


def acceptance(upgrade: Upgrade) -> bytes:
    """The answer, without its last, empty line (RFC 6455 section 4.2.2)."""
    digest = base64.b64encode(hashlib.sha1(upgrade.key + _GUID).digest())
    head = b"HTTP/1.1 101 \r\nupgrade: WebSocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %b\r\n" % digest
    if upgrade.deflate:
        terms = b"server_no_context_takeover; client_no_context_takeover"
        head += b"sec-websocket-extensions: permessage-deflate; %b\r\n" % terms
    return head


def frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """A whole message, or a control frame: a server masks nothing (RFC 6455 section 5.1)."""
    first, size = 0x80 | (0x40 if compressed else 0) | opcode, len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def message(data: bytes | str, *, deflate: bool) -> bytes:
    """One message in a frame, compressed if that was agreed and is worth it."""
    opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
    if not deflate or len(payload) < WORTH_COMPRESSING:
        return frame(opcode, payload)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    small = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(opcode, small.removesuffix(_TAIL), compressed=True)


def close_frame(code: int) -> bytes:
    return frame(CLOSE, b"" if code == NO_CODE else code.to_bytes(2, "big"))


class MessageReader:
    """A client's frames as events. Holds at most one message of `limit` bytes and what was received with it."""

    __slots__ = ("_buffer", "_compressed", "_deflate", "_ended", "_events", "_limit", "_opcode", "_parts", "_size")

    def __init__(self, limit: int, *, deflate: bool) -> None:
        self._limit = limit
        self._deflate = deflate
        self._buffer = b""
        self._events: list[Event] = []
        self._opcode = 0
        """Of the message that has begun; 0: none has."""
        self._compressed = False
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False

    def receive(self, data: bytes) -> None:
        if self._ended:
            return
        self._buffer = self._buffer + data if self._buffer else data
        at = 0
        while not self._ended and (end := self._read(at)):
            at = end
        self._buffer = b"" if self._ended else self._buffer[at:]

    def next_event(self) -> Event | None:
        return self._events.pop(0) if self._events else None

    def _read(self, at: int) -> int:
        """One frame; where the next one begins, or 0: it is not complete."""
        buffer = self._buffer
        have = len(buffer) - at
        if have < 2:
            return 0
        first, second = buffer[at], buffer[at + 1]
        size, head = second & 0x7F, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            if have < head:
                return 0
            size = int.from_bytes(buffer[at + 2 : at + head], "big")
        violation = self._violation(first, second, size)
        if violation:
            self._violated(violation)
            return 0
        start = at + head + 4
        end = start + size
        if len(buffer) < end:
            return 0
        payload = _unmasked(buffer[start:end], buffer[start - 4 : start])
        if first & 0x08:
            self._control(first & 0x0F, payload)
        else:
            self._data(first, payload)
        return end

    def _violation(self, first: int, second: int, size: int) -> int:
        """The code for a head that must not be; 0: it may (RFC 6455 sections 5.1, 5.2, 5.4, 5.5)."""
        final, opcode = first & 0x80, first & 0x0F
        if not second & 0x80 or first & 0x30:
            return PROTOCOL_ERROR
        if opcode in (CLOSE, PING, PONG):
            return 0 if final and size < 126 and not first & 0x40 else PROTOCOL_ERROR
        if opcode not in (CONTINUATION, TEXT, BINARY) or (opcode == CONTINUATION) != bool(self._opcode):
            return PROTOCOL_ERROR
        # RFC 7692 section 6: the bit is on the first frame of a message alone, and only where that was agreed.
        if first & 0x40 and (not self._deflate or opcode == CONTINUATION):
            return PROTOCOL_ERROR
        return TOO_BIG if self._size + size > self._limit or len(self._parts) >= MAX_PARTS else 0

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._events.append(PingReceived(payload))
        elif opcode == CLOSE:
            if len(payload) == 1:
                self._violated(PROTOCOL_ERROR)
                return
            self._ended = True
            self._events.append(CloseReceived(int.from_bytes(payload[:2], "big") if payload else NO_CODE))

    def _data(self, first: int, payload: bytes) -> None:
        if first & 0x0F:
            self._opcode, self._compressed = first & 0x0F, bool(first & 0x40)
        self._parts.append(payload)
        self._size += len(payload)
        if first & 0x80:
            opcode, data = self._opcode, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._opcode, self._parts, self._size = 0, [], 0
            self._complete(opcode, data)

    def _complete(self, opcode: int, data: bytes) -> None:
        try:
            if self._compressed:
                data = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data + _TAIL, self._limit + 1)
            if len(data) > self._limit:
                self._violated(TOO_BIG)
                return
            self._events.append(Received(data.decode() if opcode == TEXT else data))
        except (zlib.error, UnicodeDecodeError):
            self._violated(BAD_DATA)

    def _violated(self, code: int) -> None:
        self._ended = True
        self._events.append(Violated(code))


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 section 5.3, all at once."""
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
