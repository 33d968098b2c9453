"""Who may be talked to through the relay, and how many allocations a user may have (livekit-media 1.5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
BROADCAST = ipaddress.ip_address("255.255.255.255")


class PeerPolicy:
    """Addresses inside a network are refused unless `allow_restricted` has them; `deny` refuses what is left.

    An IPv4 address in IPv6 clothes (::ffff:10.0.0.1) is judged as the IPv4 address that it is.
    """

    def __init__(self, allow_restricted: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        self._allow: list[IpNetwork] = [ipaddress.ip_network(cidr, strict=False) for cidr in allow_restricted]
        self._deny: list[IpNetwork] = [ipaddress.ip_network(cidr, strict=False) for cidr in deny]

    def permits(self, ip: str) -> bool:
        address: IpAddress = ipaddress.ip_address(ip)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if _restricted(address) and not any(address in network for network in self._allow):
            return False
        return not any(address in network for network in self._deny)


def _restricted(address: IpAddress) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == BROADCAST
        or any(address in network for network in PRIVATE)
    )


class Quota:
    """Allocations by user, over all listeners. A limit of 0 or less is none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: dict[str, int] = {}

    def take(self, user: str) -> bool:
        taken = self._taken.get(user, 0)
        if 0 < self._limit <= taken:
            return False
        self._taken[user] = taken + 1
        return True

    def release(self, user: str) -> None:
        taken = self._taken.get(user, 0)
        if taken <= 1:
            self._taken.pop(user, None)
        else:
            self._taken[user] = taken - 1
