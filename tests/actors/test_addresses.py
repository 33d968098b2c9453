"""The public address by STUN, against servers on loopback that tell the truth, lie, are silent or talk nonsense."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from actors.addresses import _host_port, local_addresses, plan_addresses
from lkactor.config import Config, ConfigError
from lkactor.wire import stun

Answer = Callable[[bytes, tuple[str, int]], list[bytes]]


def mapped(ip: str) -> Answer:
    def answer(data: bytes, source: tuple[str, int]) -> list[bytes]:
        transaction = stun.parse(data).transaction
        attributes = [(stun.XOR_MAPPED_ADDRESS, stun.xor_address(ip, source[1], transaction))]
        return [stun.build(stun.BINDING_SUCCESS, transaction, attributes, None)]

    return answer


def silent(data: bytes, source: tuple[str, int]) -> list[bytes]:
    return []


def confused(data: bytes, source: tuple[str, int]) -> list[bytes]:
    """Noise, an answer to somebody else, one that is cut off, one without an address; then nothing more."""
    transaction = stun.parse(data).transaction
    foreign = stun.build(stun.BINDING_SUCCESS, bytes(12), [(0x20, stun.xor_address("9.9.9.9", 9, bytes(12)))], None)
    return [
        b"",
        b"\xff" * 40,
        foreign,
        stun.build(stun.BINDING_SUCCESS, transaction, [], None)[:-4],
        stun.build(stun.BINDING_SUCCESS, transaction, [], None),
    ]


def after(count: int, answer: Answer) -> Answer:
    """The first `count` requests are lost."""
    seen = 0

    def later(data: bytes, source: tuple[str, int]) -> list[bytes]:
        nonlocal seen
        seen += 1
        return answer(data, source) if seen > count else []

    return later


def with_servers(answers: list[Answer], test: Callable[[list[str]], Awaitable[None]]) -> None:
    async def serve(sock: trio.socket.SocketType, answer: Answer) -> None:
        with sock:
            while True:
                data, source = await sock.recvfrom(2048)
                for reply in answer(data, source):
                    await sock.sendto(reply, source)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            names = []
            for answer in answers:
                sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                await sock.bind(("127.0.0.1", 0))
                names.append(f"127.0.0.1:{sock.getsockname()[1]}")
                nursery.start_soon(serve, sock, answer)
            with trio.fail_after(30):
                await test(names)
            nursery.cancel_scope.cancel()

    trio.run(main)


def config(servers: list[str], **rtc: object) -> Config:
    overrides: dict[str, object] = {f"rtc.{name}": str(value) for name, value in rtc.items()}
    overrides |= {"rtc.use_external_ip": "true", "rtc.stun_servers": ",".join(servers), "rtc.udp_port": "0"}
    return Config.load("bind_addresses: [127.0.0.1]", overrides=overrides)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nothing comes: what comes is never waited for less than in earnest."""
    monkeypatch.setattr("actors.addresses.STUN_TIMEOUT", 0.5)
    monkeypatch.setattr("actors.addresses.VALIDATION_TIMEOUT", 0.2)


class Resolver(trio.abc.HostnameResolver):
    """Numbers only; no name is known."""

    async def getaddrinfo(self, host: bytes | None, port: bytes | str | int | None, *rest: object) -> list[Any]:
        if host is not None and host.decode().endswith("invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)  # numeric: no look-up

    async def getnameinfo(self, sockaddr: tuple[str, int], flags: int) -> tuple[str, str]:
        raise AssertionError("nobody asks")


@pytest.mark.parametrize("first", [mapped("127.0.0.1"), after(2, mapped("127.0.0.1"))], ids=["at once", "after loss"])
def test_an_address_that_packets_come_in_by(first: Answer) -> None:
    async def test(servers: list[str]) -> None:
        plan = await plan_addresses(config(servers))
        assert [(entry.ip, entry.why) for entry in plan.announced] == [("127.0.0.1", "STUN says so for 127.0.0.1")]

    with_servers([first], test)


def test_the_first_server_that_answers_counts() -> None:
    async def test(servers: list[str]) -> None:
        plan = await plan_addresses(
            config(["stun:no-such-host.invalid:3478", *servers], skip_external_ip_validation=True)
        )
        assert [entry.ip for entry in plan.announced] == ["198.51.100.1"]

    with_servers([silent, confused, mapped("198.51.100.1")], test)


@pytest.mark.usefixtures("impatient")
def test_an_address_that_no_packet_comes_back_from() -> None:
    """127.0.0.9 is this machine, but not the address that we listen on."""

    async def test(servers: list[str]) -> None:
        plan = await plan_addresses(config(servers))
        (entry,) = plan.announced
        assert entry.ip == "127.0.0.9" and "no packet to it came back" in entry.why
        plan = await plan_addresses(config(servers, skip_external_ip_validation=True))
        assert [(entry.ip, entry.local) for entry in plan.announced] == [("127.0.0.9", "127.0.0.1")]

    with_servers([mapped("127.0.0.9")], test)


@pytest.mark.usefixtures("impatient")
def test_nobody_answers() -> None:
    async def test(servers: list[str]) -> None:
        with pytest.raises(ConfigError, match=r"no STUN server answered \(127\.0\.0\.1:\d+, .*set rtc\.node_ip"):
            await plan_addresses(config(servers))
        plan = await plan_addresses(config(servers, node_ip="127.77.0.1"))
        (entry,) = plan.announced
        assert entry.ip == "127.77.0.1" and entry.why.startswith("node_ip is set; no STUN server answered")

    with_servers([silent, confused], test)


def test_nothing_left_to_announce_is_refused_with_the_rules() -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match=r"no address is left.*includes does not have lo.*widen these rules"):
            await plan_addresses(Config.load("rtc: {interfaces: {includes: [no-such-interface]}}"))

    trio.run(test)


def test_this_machine_has_a_loopback_interface() -> None:
    found = local_addresses()
    assert ("lo", "127.0.0.1", "") in [(entry.interface, entry.ip, entry.problem) for entry in found]
    assert len({entry.ip for entry in found}) == len(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stun.example.com", ("stun.example.com", 3478)),
        ("stun.example.com:19302", ("stun.example.com", 19302)),
        ("stun:stun.example.com:19302", ("stun.example.com", 19302)),
        ("192.0.2.1:3479", ("192.0.2.1", 3479)),
        ("[2001:db8::1]:3479", ("2001:db8::1", 3479)),
        ("[2001:db8::1]", ("2001:db8::1", 3478)),
        ("2001:db8::1", ("2001:db8::1", 3478)),
    ],
)
def test_names_of_servers(name: str, expected: tuple[str, int]) -> None:
    assert _host_port(name) == expected
