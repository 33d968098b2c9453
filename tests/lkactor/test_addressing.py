"""Which addresses are announced, by which rule; where the media sockets listen; which UDP ports."""

import pytest

from lkactor.addressing import External, LocalAddress, admit, make_plan, udp_ports
from lkactor.config import Config

ETH, WIFI, DOCKER = (
    LocalAddress("eth0", "203.0.113.5"),
    LocalAddress("wlan0", "192.168.1.5"),
    LocalAddress("docker0", "172.17.0.1"),
)
SIX, LINK_LOCAL = LocalAddress("eth0", "2001:db8::5"), LocalAddress("eth0", "fe80::1")
LO, LO6 = LocalAddress("lo", "127.0.0.1"), LocalAddress("lo", "::1")
MACHINE = (ETH, WIFI, DOCKER, SIX, LO, LO6, LINK_LOCAL)


def config(text: str = "") -> Config:
    return Config.load(text)


def told(text: str, local: tuple[LocalAddress, ...] = MACHINE, external: External | None = None) -> list[str]:
    return [entry.ip for entry in make_plan(config(text), local, external).announced]


def why(text: str, ip: str, local: tuple[LocalAddress, ...] = MACHINE) -> str:
    """The reason for an address, announced or dropped; it has exactly one."""
    plan = make_plan(config(text), local)
    reasons = [entry.why for entry in (*plan.announced, *plan.dropped) if entry.ip == ip]
    assert len(reasons) == 1, reasons
    return reasons[0]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("", ["203.0.113.5", "192.168.1.5", "172.17.0.1", "2001:db8::5"]),
        ("rtc: {interfaces: {includes: [eth0]}}", ["203.0.113.5", "2001:db8::5"]),
        ("rtc: {interfaces: {excludes: [docker0]}}", ["203.0.113.5", "192.168.1.5", "2001:db8::5"]),
        ("rtc: {interfaces: {includes: [eth0, docker0], excludes: [docker0]}}",
         ["203.0.113.5", "172.17.0.1", "2001:db8::5"]),
        ("rtc: {ips: {includes: [192.168.0.0/16]}}", ["192.168.1.5"]),
        ("rtc: {ips: {excludes: [172.16.0.0/12, 2001:db8::/32]}}", ["203.0.113.5", "192.168.1.5"]),
        ("rtc: {ips: {includes: [192.168.0.0/16], excludes: [192.168.1.0/24]}}", ["192.168.1.5"]),
        ("rtc: {interfaces: {includes: [wlan0]}, ips: {includes: [203.0.113.0/24]}}", []),
        ("rtc: {interfaces: {includes: [lo]}}", ["127.0.0.1"]),
        ("rtc: {enable_loopback_candidate: true, interfaces: {includes: [lo, wlan0]}}",
         ["192.168.1.5", "127.0.0.1", "::1"]),
        ("bind_addresses: [127.0.0.1]", ["127.0.0.1"]),
        ("bind_addresses: [127.0.0.1, '::1']", ["127.0.0.1", "::1"]),
        ("bind_addresses: [127.0.0.7]", ["127.0.0.7"]),
        ("bind_addresses: [192.168.1.5]", ["192.168.1.5"]),
        ("{bind_addresses: [192.168.1.5], rtc: {enable_loopback_candidate: true}}",
         ["192.168.1.5", "127.0.0.1", "::1"]),
        ("bind_addresses: [0.0.0.0]", ["203.0.113.5", "192.168.1.5", "172.17.0.1", "2001:db8::5"]),
        ("{bind_addresses: [127.0.0.1], rtc: {interfaces: {includes: [eth0]}}}", ["203.0.113.5", "2001:db8::5"]),
        ("rtc: {node_ip: 198.51.100.9}", ["198.51.100.9", "2001:db8::5"]),
        ("rtc: {node_ip: '198.51.100.9,2001:db8::9'}", ["198.51.100.9", "2001:db8::9"]),
        ("rtc: {node_ip: {ipv4: 198.51.100.9, ipv6: '2001:db8::9'}}", ["198.51.100.9", "2001:db8::9"]),
        ("{bind_addresses: [127.0.0.1], rtc: {node_ip: 198.51.100.9}}", ["198.51.100.9", "2001:db8::5"]),
        ("{bind_addresses: [127.0.0.1], rtc: {node_ip: 127.77.0.1}}", ["127.77.0.1"]),
    ],
)  # fmt: skip
def test_announced(rules: str, expected: list[str]) -> None:
    assert told(rules) == expected


def test_nothing_but_loopback() -> None:
    assert told("", (LO, LO6)) == ["127.0.0.1"]
    assert told("", (LO6,)) == ["::1"]
    assert told("rtc: {node_ip: 198.51.100.9}", (LO, LO6)) == ["198.51.100.9"]


@pytest.mark.parametrize(
    ("rules", "ip", "clause"),
    [
        ("", "203.0.113.5", "address of eth0"),
        ("", "127.0.0.1", "enable_loopback_candidate would"),
        ("", "fe80::1", "link-local"),
        ("rtc: {interfaces: {includes: [eth0]}}", "203.0.113.5", "interfaces.includes has eth0"),
        ("rtc: {interfaces: {includes: [eth0]}}", "192.168.1.5", "interfaces.includes does not have wlan0"),
        ("rtc: {interfaces: {excludes: [docker0]}}", "172.17.0.1", "interfaces.excludes has docker0"),
        ("rtc: {ips: {includes: [192.168.0.0/16]}}", "192.168.1.5", "ips.includes has 192.168.0.0/16"),
        ("rtc: {ips: {includes: [192.168.0.0/16]}}", "203.0.113.5", "no network of rtc.ips.includes"),
        ("rtc: {ips: {excludes: [203.0.113.0/24]}}", "203.0.113.5", "ips.excludes has 203.0.113.0/24"),
        ("rtc: {enable_loopback_candidate: true}", "::1", "enable_loopback_candidate is set"),
        ("rtc: {node_ip: 198.51.100.9}", "198.51.100.9", "node_ip is set"),
        ("bind_addresses: [192.168.1.5]", "192.168.1.5", "the server is bound to 192.168.1.5"),
        ("bind_addresses: [192.168.1.5]", "203.0.113.5", "bind_addresses names others"),
        ("bind_addresses: [127.0.0.1]", "127.0.0.1", "bound to loopback"),
        ("bind_addresses: [127.0.0.1]", "203.0.113.5", "bound to loopback; rtc.node_ip"),
    ],
)
def test_every_address_has_its_reason(rules: str, ip: str, clause: str) -> None:
    assert clause in why(rules, ip)


def test_what_cannot_be_used_is_dropped() -> None:
    down = LocalAddress("eth1", "198.51.100.1", "its interface is down")
    admitted, dropped = admit(config(), (ETH, down))
    assert [entry.ip for entry in admitted] == ["203.0.113.5"]
    assert [(entry.ip, entry.why) for entry in dropped] == [("198.51.100.1", "its interface is down")]
    # A rule that would drop it anyway is the better reason.
    _, dropped = admit(config("rtc: {interfaces: {excludes: [eth1]}}"), (ETH, down))
    assert "excludes has eth1" in dropped[0].why


# -- use_external_ip

STUN = "rtc: {use_external_ip: true}"
ONLY = "rtc: {use_external_ip: true, external_ip_only: true}"
BOTH = "rtc: {use_external_ip: true, advertise_internal_ip: true}"
NODE = "rtc: {use_external_ip: true, node_ip: 198.51.100.9}"
INSIDE = (LocalAddress("eth0", "10.0.0.5"), WIFI, SIX, LO)


@pytest.mark.parametrize(
    ("rules", "external", "expected"),
    [
        (STUN, External({"10.0.0.5": "198.51.100.1"}), ["198.51.100.1", "192.168.1.5", "2001:db8::5"]),
        (STUN, External({"10.0.0.5": "198.51.100.1", "192.168.1.5": "198.51.100.2"}),
         ["198.51.100.1", "198.51.100.2", "2001:db8::5"]),
        (ONLY, External({"10.0.0.5": "198.51.100.1"}), ["198.51.100.1", "2001:db8::5"]),
        (BOTH, External({"10.0.0.5": "198.51.100.1"}), ["198.51.100.1", "10.0.0.5", "192.168.1.5", "2001:db8::5"]),
        (STUN, External({"2001:db8::5": "2001:db8::5"}), ["10.0.0.5", "192.168.1.5", "2001:db8::5"]),
        # What STUN says of one address stands above node_ip, as in the reference.
        (NODE, External({"10.0.0.5": "198.51.100.1"}), ["198.51.100.1", "192.168.1.5", "2001:db8::5"]),
        (STUN, External({}, unproven="198.51.100.1"), ["198.51.100.1", "2001:db8::5"]),
        (NODE, External({}, problem="no STUN server answered"), ["198.51.100.9", "2001:db8::5"]),
    ],
)  # fmt: skip
def test_external(rules: str, external: External, expected: list[str]) -> None:
    assert told(rules, INSIDE, external) == expected


def test_external_reasons() -> None:
    plan = make_plan(config(ONLY), INSIDE, External({"10.0.0.5": "198.51.100.1"}))
    assert plan.announced[0].why == "STUN says so for 10.0.0.5"
    assert "external_ip_only" in next(entry.why for entry in plan.dropped if entry.ip == "192.168.1.5")
    plan = make_plan(config(STUN), INSIDE, External({}, unproven="198.51.100.1"))
    assert "no packet to it came back" in plan.announced[0].why
    plan = make_plan(config(NODE), INSIDE, External({}, problem="no STUN server answered"))
    assert plan.announced[0].why == "node_ip is set; no STUN server answered"


# -- where the sockets listen


@pytest.mark.parametrize(
    ("rules", "local", "udp", "tcp"),
    [
        ("", (ETH, LO), ("0.0.0.0",), ("0.0.0.0",)),
        ("", (ETH, SIX, LO, LO6), ("0.0.0.0", "::"), ("0.0.0.0", "::")),
        ("", (ETH, WIFI, SIX, LO), ("203.0.113.5", "192.168.1.5", "::"), ("0.0.0.0", "::")),
        ("rtc: {interfaces: {includes: [eth0]}}", (ETH, WIFI, LO), ("203.0.113.5",), ("0.0.0.0",)),
        ("rtc: {enable_loopback_candidate: true}", (ETH, LO), ("203.0.113.5", "127.0.0.1"), ("0.0.0.0",)),
        ("bind_addresses: [127.0.0.1]", MACHINE, ("127.0.0.1",), ("127.0.0.1",)),
        ("bind_addresses: [127.0.0.1, '::1']", MACHINE, ("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
        ("{bind_addresses: [127.0.0.1], rtc: {node_ip: 127.77.0.1}}", MACHINE, ("127.0.0.1",), ("127.0.0.1",)),
        ("{bind_addresses: [127.0.0.1], rtc: {node_ip: 198.51.100.9}}", (ETH, LO), ("0.0.0.0",), ("0.0.0.0",)),
        ("rtc: {node_ip: '198.51.100.9,2001:db8::9'}", (ETH, LO), ("0.0.0.0", "::"), ("0.0.0.0", "::")),
    ],
)
def test_binds(rules: str, local: tuple[LocalAddress, ...], udp: tuple[str, ...], tcp: tuple[str, ...]) -> None:
    plan = make_plan(config(rules), local)
    assert (plan.udp_binds, plan.tcp_binds) == (udp, tcp)


@pytest.mark.parametrize(
    ("rules", "cpus", "expected"),
    [
        ("", 4, (50000, 60000, 4)),
        ("rtc: {udp_port: 0}", 4, (0, 0, 1)),
        ("rtc: {udp_port: 7882-7892}", 4, (7882, 7892, 4)),
        ("rtc: {udp_port: 7882-7883}", 4, (7882, 7883, 2)),
        ("rtc: {port_range_start: 50000, port_range_end: 60000}", 2, (50000, 60000, 2)),
        ("rtc: {port_range_start: 50000, port_range_end: 60000, udp_port: 7882}", 2, (50000, 60000, 2)),
        ("rtc: {port_range_end: 60000}", 2, (50000, 60000, 2)),
    ],
)
def test_udp_ports(rules: str, cpus: int, expected: tuple[int, int, int]) -> None:
    ports = udp_ports(config(rules).rtc, cpus)
    assert (ports.first, ports.last, ports.count) == expected
