"""The mux over several sockets: ports of a range, addresses of a machine, sessions that keep to their port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from actors.kernel import MediaLink
from actors.net import Ports, Route
from lkactor.ice import host_candidates
from lkactor.wire import stun
from lkactor.wire.address import Address

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def ports() -> Iterator[Ports]:
    ports = Ports()
    yield ports
    ports.close()


def link() -> MediaLink:
    return MediaLink("test", 16, lambda link: None)


def request(ufrag: str) -> bytes:
    return stun.build(stun.BINDING_REQUEST, bytes(12), [(stun.USERNAME, f"{ufrag}:peer".encode())], "pwd")


def arrival(ports: Ports, number: int, peer: socket.socket) -> tuple[bytes, tuple[str, int]]:
    sock = ports.udp[number].sock
    sock.setblocking(True)
    sock.settimeout(5)
    data, source = sock.recvfrom(2048)
    return data, source


def routed(ports: Ports, number: int, peer: socket.socket, data: bytes) -> Route | None:
    """What becomes of a datagram that `peer` sends to our socket of that number."""
    peer.sendto(data, ports.udp[number].sock.getsockname())
    return ports.route(ports.udp[number], arrival(ports, number, peer)[1], data)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, 0))
        sock.settimeout(5)
        yield sock


def free_run(count: int) -> int:
    """The first of `count` UDP ports in a row that are free."""
    for first in range(20100, 29000, count):
        probes = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind((HERE, first + offset))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first
    raise AssertionError("no free ports")


def test_a_range_gives_the_first_free_ports(ports: Ports) -> None:
    first = free_run(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, first + 1))
        assert ports.open_udp([HERE], first, first + 3, 2) == (first, first + 2)
    assert len(ports.udp) == 2


def test_a_range_that_is_all_taken_is_an_error_and_leaves_nothing(ports: Ports) -> None:
    first = free_run(2)
    other = Ports()
    try:
        assert other.open_udp([HERE], first, first + 1, 2) == (first, first + 1)
        with pytest.raises(OSError, match="in use"):
            ports.open_udp([THERE, HERE], first, first + 1, 2)
        assert ports.udp == []
    finally:
        other.close()


def test_a_shared_port_on_every_address(ports: Ports) -> None:
    (port,) = ports.open_udp([HERE, THERE], 0)
    assert [udp.sock.getsockname() for udp in ports.udp] == [(HERE, port), (THERE, port)]


def test_an_answer_leaves_by_the_socket_that_was_asked(ports: Ports, peer: socket.socket) -> None:
    ports.open_udp([HERE, THERE], 0)
    ports.bind("abcd", link())
    routes = [routed(ports, number, peer, request("abcd")) for number in (0, 1)]
    where = peer.getsockname()
    assert [route and route.address for route in routes] == [
        Address("udp", *where),
        Address("udp", *where, local=2),
    ]
    for number, route in enumerate(routes):
        assert route is not None
        path = ports.path_to(route.address, "abcd")
        assert path is route.path
        path.send(b"answer")
        assert peer.recvfrom(100) == (b"answer", ports.udp[number].sock.getsockname())


def test_a_session_keeps_to_the_port_of_its_candidates(ports: Ports, peer: socket.socket) -> None:
    first = free_run(3)
    opened = ports.open_udp([HERE], first, first + 2, 3)
    ports.bind("efgh", link(), opened[2])
    path = ports.path_to(Address("udp", *peer.getsockname()), "efgh")
    assert path is not None
    path.send(b"check")
    assert peer.recvfrom(100) == (b"check", (HERE, opened[2]))
    # The answer carries no user name: the check has made its route, under the address that the agent knows.
    route = routed(ports, 2, peer, b"\x01\x01answer")
    assert route is not None and route.address == Address("udp", *peer.getsockname())
    # The same peer at another of our ports is another path.
    other = routed(ports, 0, peer, request("efgh"))
    assert other is not None and other.address.local == 1


def test_sessions_take_turns_with_the_ports(ports: Ports) -> None:
    candidates = [c for port in (7882, 7883, 7884) for c in host_candidates([HERE, "::1"], port, None)]
    candidates += host_candidates([HERE], None, 7881)
    seen = []
    for _ in range(6):
        chosen = ports.spread(candidates)
        (port,) = {c.port for c in chosen if c.transport == "udp"}
        assert len(chosen) == 3
        seen.append(port)
    assert sorted(seen) == [7882, 7882, 7883, 7883, 7884, 7884]
    only = host_candidates([HERE], 7882, 7881)
    assert ports.spread(only) == tuple(only)


def test_unbinding_forgets_the_routes_of_every_socket(ports: Ports, peer: socket.socket) -> None:
    ports.open_udp([HERE, THERE], 0)
    ports.bind("abcd", link())
    for number in (0, 1):
        assert routed(ports, number, peer, request("abcd")) is not None
    ports.unbind("abcd")
    assert [udp.routes for udp in ports.udp] == [{}, {}]
    assert routed(ports, 1, peer, request("abcd")) is None
    assert ports.counters["mux.unknown_ufrag"] == 1


def test_an_address_moves_to_another_session_and_stays_there(ports: Ports, peer: socket.socket) -> None:
    ports.open_udp([HERE, THERE], 0)
    for ufrag in ("abcd", "efgh"):
        ports.bind(ufrag, link())
    assert routed(ports, 1, peer, request("abcd")) is not None
    moved = routed(ports, 1, peer, request("efgh"))
    assert moved is not None and moved.ufrag == "efgh"
    ports.unbind("abcd")
    kept = routed(ports, 1, peer, b"\x80media")
    assert kept is moved


def test_a_path_to_a_socket_that_there_is_not(ports: Ports) -> None:
    assert ports.path_to(Address("udp", HERE, 9), "abcd") is None
    ports.open_udp([HERE], 0)
    path = ports.path_to(Address("udp", HERE, 9, local=7), "abcd")
    assert path is not None and path.address.port == 9
    assert ports.path_to(Address("udp", "::1", 9), "abcd") is None
