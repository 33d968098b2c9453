"""The banner's lines about the network: which ports are open, which addresses clients are told, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lkactor.addressing import AddressPlan, is_loopback
from lkactor.config import Config

if TYPE_CHECKING:
    from actors.node import Node

MANY = 3
"""More ports than these in a row are written as a range."""


def network_lines(config: Config, node: Node) -> list[str]:
    tcp = "no TCP" if node.tcp_port is None else f"TCP {node.tcp_port}"
    lines = [f"  media        UDP {ports_text(node.udp_ports)}, {tcp}"]
    turn, gst = config.turn, config.gst_signalling
    if turn.enabled:
        doors = [f"UDP {turn.udp_port}"] if turn.udp_port else []
        if turn.tls_port:
            doors.append(f"{'TCP (TLS ends before it)' if turn.external_tls else 'TLS'} {turn.tls_port}")
        relay = f"{turn.relay_range_start}-{turn.relay_range_end}"
        lines.append(f"  TURN         {', '.join(doors)}, relays UDP {relay}")
    if node.gst_port is not None:
        lines.append(f"  GStreamer    {'wss' if gst.cert else 'ws'} {node.gst_port}")
    return lines + address_lines(node.addresses)


def address_lines(plan: AddressPlan) -> list[str]:
    lines = [f"  announced    {entry.ip} ({entry.why})" for entry in plan.announced]
    for entry in plan.dropped:
        if not (is_loopback(entry.ip) or entry.why.startswith("link-local")):  # every machine has those
            where = f" of {entry.interface}" if entry.interface else ""
            lines.append(f"  not told     {entry.ip}{where} ({entry.why})")
    return lines


def ports_text(ports: Sequence[int]) -> str:
    """ "7882" or "7882, 7884" or "7882-7885"."""
    first, last = ports[0], ports[-1]
    if len(ports) > MANY and last - first == len(ports) - 1:
        return f"{first}-{last}"
    return ", ".join(map(str, ports))
