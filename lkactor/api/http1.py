"""The plain requests of API clients, read without a general HTTP parser (RFC 9112). Pure.

Nearly every Twirp call is the same few lines: POST, a path of ours, fields of printable ASCII, a short body whose
length is said. Those are read here. Whatever is in any way different is not judged here: `Other` says that somebody
with a whole HTTP parser must look at the bytes, from the first one that was not used. So nothing is refused or excused.

    WAITING   nothing of the next request is there              -> None
    PARTIAL   it is plain so far, and not complete              -> None, `partial`
    READY     one request is complete                           -> Call, then WAITING or PARTIAL
    OTHER     it is not plain                                   -> Other, for good; `rest` is what was not used
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_HEAD = 16 * 1024
MAX_BODY = 64 * 1024
"""Bytes; what is larger is not plain."""
_PREFIX = b"POST /twirp/"
_REQUEST_LINE = re.compile(rb"POST (/twirp/[A-Za-z0-9]+\.[A-Za-z0-9]+/[A-Za-z0-9]+) HTTP/1\.1")
_PLAIN = re.compile(rb"[\t\r\n\x20-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LENGTH = re.compile(r"[0-9]{1,6}")
_ELSEWHERE = frozenset({"transfer-encoding", "upgrade", "expect", "trailer", "te"})
"""Fields that ask for more than a plain answer."""
_ONCE = frozenset({"host", "content-length", "connection"})
MAX_REMEMBERED, LARGEST_REMEMBERED = 256, 4096
"""Heads, bytes of the largest one."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is before the body. `length`: of the body, bytes. `closes`: the client wants no second answer."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the first."""
    length: int
    closes: bool


@dataclass(frozen=True, slots=True)
class Call:
    head: Head
    body: bytes


class Other:
    """Not a plain request, or not for the API."""

    __slots__ = ()


OTHER = Other()


class Heads:
    """Heads that were read lately, for all connections: a client sends the same one again and again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def read(self, data: bytes) -> Head | None:
        """`data` up to and with the empty line. None: not plain."""
        head = self._known.get(data)
        if head is None:
            head = parse_head(data)
            if head is not None and len(data) <= LARGEST_REMEMBERED:
                if len(self._known) >= MAX_REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[data] = head
        return head


def parse_head(data: bytes) -> Head | None:
    """`data` up to and with the empty line. None: not plain."""
    lines = data[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    # No byte that would be a control character, and no line that ends in another way (RFC 9112 section 2.2).
    if line is None or not _PLAIN.fullmatch(data) or not data.count(b"\r") == data.count(b"\n") == len(lines) + 1:
        return None
    headers: dict[str, str] = {}
    for field in lines[1:]:
        name, colon, value = field.partition(b":")
        # A folded line begins with a space, and so has no name (section 5.2).
        if not colon or not _NAME.fullmatch(name):
            return None
        key = name.decode("ascii").lower()
        if key in _ELSEWHERE or (key in headers and key in _ONCE):
            return None
        headers.setdefault(key, value.strip(b" \t").decode("ascii"))
    length, connection = headers.get("content-length", "0"), headers.get("connection", "keep-alive").lower()
    if "host" not in headers or not _LENGTH.fullmatch(length) or connection not in ("keep-alive", "close"):
        return None
    if int(length) > MAX_BODY:
        return None
    return Head(line[1].decode("ascii"), headers, int(length), connection == "close")


class CallReader:
    """The requests of one connection, one after the other. Holds at most about MAX_HEAD + MAX_BODY and one read."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._buffer = b""
        self._head: Head | None = None
        self._start = 0
        """Of the body, where the head is known."""

    def receive(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def partial(self) -> bool:
        """Something of the next request is there."""
        return bool(self._buffer)

    @property
    def rest(self) -> bytes:
        """What no call was made of."""
        return self._buffer

    def next(self) -> Call | Other | None:
        buffer, head = self._buffer, self._head
        if head is None:
            if not buffer:
                return None
            if not buffer.startswith(_PREFIX) and not _PREFIX.startswith(buffer):
                return OTHER
            end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
            if end < 0:
                return OTHER if len(buffer) >= MAX_HEAD else None
            self._start = end + 4
            head = self._head = self._heads.read(buffer[: end + 4])
            if head is None:
                return OTHER
        end = self._start + head.length
        if len(buffer) < end:
            return None
        body = buffer[self._start : end]
        self._buffer = buffer[end:]
        self._head = None
        return Call(head, body)
