"""The client's ways beside UDP: TURN URLs, streams that drop rather than wait, relays, and ICE over paths it opened."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio.testing
from livekit.protocol import rtc

from lkactor.client.paths import MAX_QUEUE, Relay, Stream, TcpPath, TurnServer, turn_servers
from lkactor.ice import Candidate, IceAgent, host_candidates
from lkactor.ice.framing import frame
from lkactor.turn.message import Peer
from lkactor.wire.address import Address


def entry(*urls: str) -> rtc.ICEServer:
    return rtc.ICEServer(urls=urls, username="u", credential="c")


@pytest.mark.parametrize(
    ("url", "host", "port", "kind"),
    [
        ("turn:a.example:3479?transport=udp", "a.example", 3479, "udp"),
        ("turn:a.example", "a.example", 3478, "udp"),
        ("turn:a.example:80?transport=tcp", "a.example", 80, "tcp"),
        ("turns:a.example:443?transport=tcp", "a.example", 443, "tls"),
        ("turns:a.example", "a.example", 5349, "tls"),
        ("turn:[2001:db8::1]:3478", "2001:db8::1", 3478, "udp"),
        ("turn:[2001:db8::1]", "2001:db8::1", 3478, "udp"),
    ],
)
def test_turn_urls(url: str, host: str, port: int, kind: str) -> None:
    (found,) = turn_servers([entry(url)], "relay")
    assert (found.host, found.port, found.kind) == (host, port, kind)
    assert "'c'" not in repr(found)


@pytest.mark.parametrize("url", ["stun:a:3478", "turn:", "turn:a:x", "turn:a:99999", "turn:a:٣", "http://a", ""])
def test_what_is_no_turn_url(url: str) -> None:
    assert turn_servers([entry(url)], "relay") == []


def test_a_way_takes_its_own_kind_of_server() -> None:
    servers = [entry("turn:a:1?transport=udp", "turns:a:2", "turns:a:2", "turn:a:3?transport=tcp")]
    kinds = {way: [server.kind for server in turn_servers(servers, way)] for way in ("auto", "relay-udp", "relay-tls")}  # type: ignore[arg-type]
    assert kinds == {"auto": ["udp", "tls", "tcp"], "relay-udp": ["udp"], "relay-tls": ["tls"]}


# -- streams


def dialler(stream: trio.abc.Stream) -> Callable[[], trio.abc.Stream]:
    async def dial() -> trio.abc.Stream:
        return stream

    return dial  # type: ignore[return-value]


def test_a_stream_carries_both_ways_and_says_how_it_ended() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        got: list[bytes] = []
        stream = Stream(dialler(ours), got.append)  # type: ignore[arg-type]
        assert stream.put(b"before it stands")
        up = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run, up.set)
            await up.wait()
            assert await theirs.receive_some() == b"before it stands"
            await theirs.send_all(b"answer")
            await theirs.aclose()
        assert got == [b"answer"]
        assert stream.problem == "closed by the other side"
        assert not stream.put(b"late")

    trio.run(main)


def test_a_stream_that_stands_still_drops() -> None:
    stream = Stream(dialler(trio.testing.memory_stream_pair()[0]), lambda _: None)  # type: ignore[arg-type]
    sent = sum(stream.put(b"x") for _ in range(MAX_QUEUE + 10))
    assert sent == MAX_QUEUE


def test_a_refused_connection_is_a_problem_with_a_name() -> None:
    async def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError("refused")

    async def main() -> None:
        stream = Stream(refuse, lambda _: None)
        await stream.run(lambda: pytest.fail("it never stood"))
        assert "refused" in stream.problem

    trio.run(main)


def test_a_dial_that_hangs_is_given_up() -> None:
    async def main() -> None:
        stream = Stream(partial(trio.sleep_forever), lambda _: None)  # type: ignore[arg-type]
        await stream.run(lambda: pytest.fail("it never stood"))
        assert stream.problem == "no answer"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_packets_on_tcp_are_framed() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        got: list[bytes] = []
        path = TcpPath("127.0.0.1", 9, got.append)
        path.stream._dial = dialler(ours)  # type: ignore[assignment]
        path.send(b"one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.stream.run, lambda: None)
            assert await theirs.receive_some() == b"\x00\x03one"
            await theirs.send_all(frame(b"two") + frame(b"three")[:3])
            await theirs.send_all(frame(b"three")[3:])
            await theirs.aclose()
        assert got == [b"two", b"three"]

    trio.run(main)


def test_a_stream_of_nonsense_is_given_up() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        path = TcpPath("127.0.0.1", 9, lambda _: None)
        path.stream._dial = dialler(ours)  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.stream.run, lambda: None)
            await theirs.send_all(b"\xff\xff" + bytes(5000))
        assert "framing.too_long" in path.stream.problem

    trio.run(main)


def test_a_relay_reaches_nobody_before_it_has_an_address() -> None:
    async def main() -> None:
        server = TurnServer("127.0.0.1", 9, "udp", "u", "c")
        relay = Relay(server, random.Random(1), lambda *_: None, lambda: None)
        assert not relay.reach(Peer("192.0.2.1", 1))
        assert not relay.send(Peer("192.0.2.1", 1), b"x")
        relay.relayed = Peer("192.0.2.9", 2)
        assert not relay.reach(Peer("2001:db8::1", 1)), "another family"
        assert all(relay.reach(Peer("192.0.2.1", port)) for port in range(1, 33))
        assert not relay.reach(Peer("192.0.2.1", 33)), "bounded"
        assert relay.reach(Peer("192.0.2.1", 1)), "known already"

    trio.run(main)


# -- ICE


def agents(**ours: bool) -> tuple[IceAgent, IceAgent]:
    client = IceAgent(rng=random.Random(1), local_candidates=[], controlling=True)
    server = IceAgent(rng=random.Random(2), local_candidates=host_candidates(["192.0.2.1"], 7882, 7881), lite=True)
    for name, value in ours.items():
        setattr(client, name, value)
    client.set_remote_credentials(server.local_ufrag, server.local_pwd, lite=True, now=0.0)
    server.set_remote_credentials(client.local_ufrag, client.local_pwd, lite=False, now=0.0)
    for candidate in server.local_candidates:
        client.add_remote_candidate(candidate, 0.0)
    return client, server


def exchange(client: IceAgent, server: IceAgent, seen_as: Address) -> set[Address]:
    """Until nothing is due for a second; the addresses that the client sent to."""
    used, now = set(), 0.0
    while now < 1.0:
        now += 0.01
        client.handle_timeout(now)
        for data, to in client.datagrams_to_send(now):
            used.add(to)
            server.receive_datagram(data, seen_as, now)
            for answer, _ in server.datagrams_to_send(now):
                client.receive_datagram(answer, to, now)
    return used


def test_without_udp_nothing_is_checked_until_a_path_is_opened() -> None:
    client, server = agents(uses_udp=False)
    assert exchange(client, server, Address("udp", "192.0.2.7", 5)) == set()
    assert [candidate.transport for candidate in client.remote_candidates] == ["udp", "tcp"]


@pytest.mark.parametrize("address", [Address("tcp", "192.0.2.1", 7881), Address("udp", "192.0.2.1", 7882, 1)])
def test_an_opened_path_is_checked_and_nominated(address: Address) -> None:
    client, server = agents(uses_udp=False)
    client.add_path(address, 100, 0.0)
    assert exchange(client, server, Address("tcp", "192.0.2.7", 5)) == {address}
    assert client.selected == address
    assert client.settled


def test_udp_is_better_than_a_relay_of_ours() -> None:
    client, server = agents()
    relay = Address("udp", "192.0.2.1", 7882, 1)
    client.add_path(relay, 100, 0.0)
    assert exchange(client, server, Address("udp", "192.0.2.7", 5)) == {Address("udp", "192.0.2.1", 7882), relay}
    assert client.selected == Address("udp", "192.0.2.1", 7882)


def test_a_restart_wants_its_paths_anew() -> None:
    client, server = agents()
    exchange(client, server, Address("udp", "192.0.2.7", 5))
    client.restart(2.0)
    assert client.remote_candidates == []
    assert not client.settled
    assert client.selected is not None, "the old path works on"


def test_candidates_are_kept_as_they_came_and_bounded() -> None:
    client, _ = agents(uses_udp=False)
    candidate = Candidate("1", 1, "udp", 1, "192.0.2.5", 9, "host")
    for _ in range(200):
        client.add_remote_candidate(candidate, 0.0)
    assert len(client.remote_candidates) == 64
