"""rtnetlink dumps: what is read, truncated at each length, and noise."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.wire import netlink
from lkactor.wire.netlink import DumpEnd, Link, LinkAddress, dump_request, parse_dump


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(index: int, name: str, flags: int) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0) + attribute(3, name.encode() + b"\0")
    return message(netlink.RTM_NEWLINK, body)


def address(index: int, ip: str, *attributes: bytes, flags: int = 0) -> bytes:
    packed = ipaddress.ip_address(ip).packed
    head = struct.pack("=BBBBI", 2 if len(packed) == 4 else 10, 24, flags, 0, index)
    return message(netlink.RTM_NEWADDR, head + b"".join(attributes or (attribute(1, packed),)))


DONE = message(netlink.NLMSG_DONE, bytes(4))


def test_links_and_their_state() -> None:
    assert parse_dump(link(1, "lo", 0x10049) + link(2, "eth0.100", 0x1002) + DONE) == [
        Link(1, "lo", True),
        Link(2, "eth0.100", False),
        DumpEnd(),
    ]


def test_addresses() -> None:
    assert parse_dump(address(2, "192.0.2.5") + address(2, "2001:db8::5")) == [
        LinkAddress(2, "192.0.2.5", True),
        LinkAddress(2, "2001:db8::5", True),
    ]


def test_of_a_point_to_point_link_ours_is_the_local_address() -> None:
    ours, theirs = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    assert parse_dump(address(3, "10.0.0.1", attribute(1, theirs), attribute(2, ours))) == [
        LinkAddress(3, "10.0.0.1", True)
    ]


@pytest.mark.parametrize("flag", [netlink.IFA_F_TENTATIVE, netlink.IFA_F_DADFAILED])
def test_addresses_that_another_machine_may_have(flag: int) -> None:
    packed = ipaddress.ip_address("2001:db8::5").packed
    (short,) = parse_dump(address(2, "2001:db8::5", flags=flag))
    (wide,) = parse_dump(address(2, "2001:db8::5", attribute(1, packed), attribute(8, struct.pack("=I", flag))))
    assert isinstance(short, LinkAddress) and not short.usable
    assert isinstance(wide, LinkAddress) and not wide.usable


def test_an_error_ends_the_dump_and_other_messages_are_skipped() -> None:
    odd_family = message(netlink.RTM_NEWADDR, struct.pack("=BBBBI", 99, 0, 0, 0, 1))
    assert parse_dump(message(24, bytes(12)) + odd_family + message(2, bytes(20))) == [DumpEnd()]


def test_requests_are_whole_messages() -> None:
    for kind in (netlink.RTM_GETLINK, netlink.RTM_GETADDR):
        data = dump_request(kind)
        assert struct.unpack_from("=IH", data) == (len(data), kind)


def test_truncated_at_every_length() -> None:
    for whole in (link(1, "eth0", 1), address(1, "2001:db8::5")):
        for length in range(1, len(whole)):
            with pytest.raises(ProtocolViolation, match=r"netlink\.truncated"):
                parse_dump(whole[:length])


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    try:
        parse_dump(data)
    except ProtocolViolation as violation:
        assert violation.reason == "netlink.truncated"


@given(st.binary(max_size=80), st.sampled_from([netlink.RTM_NEWLINK, netlink.RTM_NEWADDR]))
def test_noise_in_a_body(body: bytes, kind: int) -> None:
    try:
        parse_dump(message(kind, body))
    except ProtocolViolation as violation:
        assert violation.reason == "netlink.truncated"
