"""Which addresses clients are told as candidates, and why (livekit-surface 5, `rtc`; livekit-media 1.2). Pure.

What becomes of an address of an interface, the first rule that speaks decides:

| rule                          | drops                                                                            |
|-------------------------------|----------------------------------------------------------------------------------|
| interfaces                    | those of interfaces that `includes` does not have, or `excludes` has             |
| the interface, the address    | those that cannot be used: down, duplicate, link-local                           |
| ips                           | those outside of `includes`, or inside of `excludes`                             |
| bind_addresses                | all others, if it names addresses and no rule of `rtc` says more                 |
| enable_loopback_candidate     | loopback, unless it is set, nothing else is left, or the server is bound to it   |

What of those that are left clients are told:

| set                           | told                                                                             |
|-------------------------------|----------------------------------------------------------------------------------|
| use_external_ip               | what STUN says of each; one that STUN knows nothing of: itself                   |
| ... external_ip_only          | IPv4 that STUN knows nothing of: not at all                                      |
| ... advertise_internal_ip     | itself beside what STUN says                                                     |
| node_ip (of the same family)  | node_ip instead of all                                                           |
| neither                       | itself                                                                           |
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lkactor.config import Config
from lkactor.config_sections import RtcConfig

ANY = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """`problem`: why it cannot be used, if so."""

    interface: str
    ip: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Announced:
    """`why` is one clause for people; `local` is the address of ours behind it, "" if it is any."""

    ip: str
    why: str
    local: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """`why` names the rule."""

    interface: str
    ip: str
    why: str


@dataclass(frozen=True, slots=True)
class External:
    """What STUN said. `addresses`: the public address by the local one, packets to it proven to come in; `unproven`:
    a public address that STUN named and that no packet came in by; `problem`: one clause, if nothing is known."""

    addresses: Mapping[str, str]
    unproven: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """`udp_binds` and `tcp_binds` are where the media sockets listen."""

    announced: tuple[Announced, ...]
    dropped: tuple[Dropped, ...]
    udp_binds: tuple[str, ...]
    tcp_binds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """Ports `first` to `last`, at most `count` of them are opened; 0 is any. `why` is one clause."""

    first: int
    last: int
    count: int
    why: str


def family(ip: str) -> int:
    """4 or 6."""
    return 6 if ":" in ip else 4


def is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback


def udp_ports(rtc: RtcConfig, cpus: int) -> UdpPorts:
    """`port_range_start` to `port_range_end` if both are set, as in the reference; else `udp_port`.

    The reference opens a socket per transport in the former range. Here one socket carries any number of transports,
    told apart by ICE user names, and one process has one event loop: a socket per transport would cost a descriptor and
    a buffer each and give nothing. From outside it looks the same: all media is inside the range.
    """
    if rtc.port_range_start and rtc.port_range_end:
        first, last, why = rtc.port_range_start, rtc.port_range_end, "rtc.port_range_start to rtc.port_range_end"
    else:
        first, last, why = rtc.udp_port, rtc.udp_port_end or rtc.udp_port, "rtc.udp_port"
    return UdpPorts(first, last, min(cpus, last - first + 1), why)


def tcp_port(rtc: RtcConfig) -> int | None:
    """None: no ICE/TCP. 0: any free one, where UDP has any free one, too."""
    any_will_do = not rtc.udp_port and not rtc.port_range_end
    return rtc.tcp_port or (0 if rtc.tcp_port == 0 and any_will_do else None)


def admit(config: Config, local: Sequence[LocalAddress]) -> tuple[list[Announced], list[Dropped]]:
    """The addresses that may be told, in order, and those that may not."""
    rtc = config.rtc
    admitted: list[Announced] = []
    dropped: list[Dropped] = []
    loopback: list[LocalAddress] = []
    bound = _bound(config)
    for entry in _with_aliases(local, bound):
        why = _refusal(rtc, entry)
        if why:
            dropped.append(Dropped(entry.interface, entry.ip, why))
        elif entry.ip in bound:
            admitted.append(Announced(entry.ip, _bound_why(entry.ip, bound), entry.ip))
        elif is_loopback(entry.ip):
            loopback.append(entry)
        elif bound:
            dropped.append(Dropped(entry.interface, entry.ip, _unbound_why(bound)))
        else:
            admitted.append(Announced(entry.ip, _admission(rtc, entry), entry.ip))
    if rtc.enable_loopback_candidate or not admitted:
        why = "enable_loopback_candidate is set" if rtc.enable_loopback_candidate else "there is no other address"
        chosen = [entry for entry in loopback if rtc.enable_loopback_candidate or family(entry.ip) == 4] or loopback
        admitted += [Announced(entry.ip, why, entry.ip) for entry in chosen]
    told = {entry.ip for entry in admitted}
    why = "loopback; rtc.enable_loopback_candidate would announce it"
    dropped += [Dropped(entry.interface, entry.ip, why) for entry in loopback if entry.ip not in told]
    return admitted, dropped


def make_plan(config: Config, local: Sequence[LocalAddress], external: External | None = None) -> AddressPlan:
    """`external` is what STUN said when `use_external_ip` is set. Without an announced address nobody could send
    anything: that `announced` is then empty is for the caller to refuse."""
    rtc = config.rtc
    admitted, dropped = admit(config, local)
    public = external.addresses if external is not None else {}
    node_ips = {family(ip): ip for ip in rtc.node_ip.split(",") if ip}
    node_why = "node_ip is set"
    if external is not None and not public:
        node_why = f"node_ip is set; {external.problem}" if external.problem else node_why
        if external.unproven:
            node_ips[family(external.unproven)] = external.unproven
            node_why = "STUN says so; no packet to it came back, as with routers that do not hairpin"
    told: dict[str, Announced] = {}
    for entry in admitted:
        if entry.ip in public:
            told.setdefault(public[entry.ip], Announced(public[entry.ip], f"STUN says so for {entry.ip}", entry.ip))
            if rtc.advertise_internal_ip:
                told.setdefault(entry.ip, Announced(entry.ip, "advertise_internal_ip is set", entry.ip))
        elif public and rtc.external_ip_only and family(entry.ip) == 4:
            dropped.append(Dropped("", entry.ip, "external_ip_only is set, and STUN knows no public address for it"))
        elif not public and family(entry.ip) in node_ips:
            ip = node_ips[family(entry.ip)]
            told.setdefault(ip, Announced(ip, node_why))
        else:
            told.setdefault(entry.ip, entry)
    for ip in node_ips.values() if not public else ():
        told.setdefault(ip, Announced(ip, node_why))
    return AddressPlan(tuple(told.values()), tuple(dropped), *_binds(config, admitted, told))


def _binds(
    config: Config, admitted: Sequence[Announced], told: Mapping[str, Announced]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """UDP, TCP. Loopback only, if nothing else is told; one socket per address, if there are several, so that an answer
    leaves by the address that was asked; else any address, which a change of address (DHCP) does not hurt."""
    ips = [entry.ip for entry in admitted]
    if ips and all(map(is_loopback, [*ips, *told])):
        binds = tuple(ips)
        return binds, binds
    filtered = _names_addresses(config.rtc)
    udp: list[str] = []
    families = sorted({family(ip) for ip in [*ips, *told]})
    for number in families:
        own = [ip for ip in ips if family(ip) == number]
        udp += own if len(own) > 1 or (own and filtered) else [ANY[number == 6]]
    return tuple(udp), tuple(ANY[number == 6] for number in families)


def _names_addresses(rtc: RtcConfig) -> bool:
    return bool(rtc.interfaces.includes or rtc.interfaces.excludes or rtc.ips.includes or rtc.ips.excludes)


def _bound(config: Config) -> tuple[str, ...]:
    """The addresses of `bind_addresses` when they decide: they are LiveKit's for HTTP only, so whatever `rtc` says of
    addresses stands above them (a proxy in front of HTTP, media by itself)."""
    rtc, binds = config.rtc, config.bind_addresses
    node_ips = [ip for ip in rtc.node_ip.split(",") if ip]
    if not binds or any(ip in ANY for ip in binds) or _names_addresses(rtc):
        return ()
    if node_ips and not (all(map(is_loopback, node_ips)) and all(map(is_loopback, binds))):
        return ()
    return () if rtc.use_external_ip and not all(map(is_loopback, binds)) else binds


def _with_aliases(local: Sequence[LocalAddress], bound: Sequence[str]) -> list[LocalAddress]:
    """All of 127.0.0.0/8 is ours, though no interface lists it."""
    listed = {entry.ip for entry in local}
    more = [ip for ip in bound if family(ip) == 4 and is_loopback(ip) and ip not in listed]
    return [*local, *(LocalAddress("lo", ip) for ip in more)]


def _bound_why(ip: str, bound: Sequence[str]) -> str:
    return "the server is bound to loopback" if all(map(is_loopback, bound)) else f"the server is bound to {ip}"


def _unbound_why(bound: Sequence[str]) -> str:
    if all(map(is_loopback, bound)):
        return "the server is bound to loopback; rtc.node_ip or rtc.interfaces would announce more"
    return "bind_addresses names others"


def _refusal(rtc: RtcConfig, entry: LocalAddress) -> str:
    """Which rule drops it, "" if none."""
    names, address = rtc.interfaces, ipaddress.ip_address(entry.ip)
    if names.includes and entry.interface not in names.includes:
        return f"rtc.interfaces.includes does not have {entry.interface}"
    if not names.includes and entry.interface in names.excludes:
        return f"rtc.interfaces.excludes has {entry.interface}"
    if entry.problem:
        return entry.problem
    if address.is_link_local:
        return "link-local: good on its own link only"
    if rtc.ips.includes and not _network_of(entry.ip, rtc.ips.includes):
        return "no network of rtc.ips.includes has it"
    if not rtc.ips.includes and (network := _network_of(entry.ip, rtc.ips.excludes)):
        return f"rtc.ips.excludes has {network}"
    return ""


def _admission(rtc: RtcConfig, entry: LocalAddress) -> str:
    network = _network_of(entry.ip, rtc.ips.includes)
    if network:
        return f"rtc.ips.includes has {network}"
    if rtc.interfaces.includes:
        return f"rtc.interfaces.includes has {entry.interface}"
    return f"address of {entry.interface}" if entry.interface else "the default route goes out by it"


def _network_of(ip: str, networks: Sequence[str]) -> str:
    address = ipaddress.ip_address(ip)
    return next((net for net in networks if address in ipaddress.ip_network(net, strict=False)), "")
