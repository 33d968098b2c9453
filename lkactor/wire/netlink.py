"""The interfaces and addresses of this machine, as Linux tells them over rtnetlink (rtnetlink(7), RFC 3549). Pure.

A dump is asked for with `dump_request`; the answer is datagrams of messages, each a 16-byte header, a body of fixed
size and attributes (2 bytes length, 2 bytes type, value, padded to 4). Everything is in the machine's byte order.

| message        | body                                  | read from it                                |
|----------------|---------------------------------------|---------------------------------------------|
| RTM_NEWLINK 16 | ifinfomsg: family, type, index, flags | index, flags (IFF_UP), IFLA_IFNAME          |
| RTM_NEWADDR 20 | ifaddrmsg: family, flags, index       | index, IFA_LOCAL else IFA_ADDRESS, IFA_FLAGS |
| NLMSG_DONE 3   |                                       | the end of the dump                         |
| NLMSG_ERROR 2  |                                       | the end, too                                |
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME, IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 3, 1, 2, 8
IFF_UP = 0x1
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40
AF_INET, AF_INET6 = 2, 10
"""Linux's numbers: rtnetlink is Linux's alone."""
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """`usable` is false while, and if, duplicate address detection says so (RFC 4862 5.4)."""

    index: int
    ip: str
    usable: bool


@dataclass(frozen=True, slots=True)
class DumpEnd:
    """No more datagrams follow."""


def dump_request(kind: int, sequence: int = 1) -> bytes:
    """RTM_GETLINK or RTM_GETADDR, of all families."""
    body = bytes(_LINK.size if kind == RTM_GETLINK else _ADDRESS.size)
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0) + body


def parse_dump(data: bytes) -> list[Link | LinkAddress | DumpEnd]:
    """What one datagram says; messages of other kinds are skipped. Raises ProtocolViolation("netlink.truncated")."""
    found: list[Link | LinkAddress | DumpEnd] = []
    at = 0
    while at < len(data):
        if at + _HEADER.size > len(data):
            raise ProtocolViolation("netlink.truncated")
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise ProtocolViolation("netlink.truncated")
        body = data[at + _HEADER.size : at + length]
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            found.append(DumpEnd())
        elif kind == RTM_NEWLINK:
            found.append(_link(body))
        elif kind == RTM_NEWADDR:
            address = _address(body)
            if address is not None:
                found.append(address)
        at += length + (-length % 4)
    return found


def _link(body: bytes) -> Link:
    if len(body) < _LINK.size:
        raise ProtocolViolation("netlink.truncated")
    _, _, index, flags, _ = _LINK.unpack_from(body)
    name = dict(_attributes(body[_LINK.size :])).get(IFLA_IFNAME, b"")
    return Link(index, name.rstrip(b"\0").decode("utf-8", "replace"), bool(flags & IFF_UP))


def _address(body: bytes) -> LinkAddress | None:
    if len(body) < _ADDRESS.size:
        raise ProtocolViolation("netlink.truncated")
    family, _, flags, _, index = _ADDRESS.unpack_from(body)
    attributes = dict(_attributes(body[_ADDRESS.size :]))
    # Of a point-to-point link IFA_ADDRESS is the other end's.
    packed = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS, b"")
    if len(packed) != {AF_INET: 4, AF_INET6: 16}.get(family):
        return None
    if len(attributes.get(IFA_FLAGS, b"")) == 4:  # all 32 bits of them
        flags = int(struct.unpack("=I", attributes[IFA_FLAGS])[0])
    return LinkAddress(index, str(ipaddress.ip_address(packed)), not flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            raise ProtocolViolation("netlink.truncated")
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + (-length % 4)
