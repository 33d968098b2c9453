"""A route whose packets have to be smaller than ours: everything arrives, in fragments. In a network namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.media import available_planes

TESTS = Path(__file__).parents[1]
MTU = 1280
PYTHON = """
import socket
from actors.net import IP_MTU_DISCOVER, Ports, UdpPath
from lkactor.wire.address import Address

ports = Ports()
ports.open_udp(["127.0.0.1"], 0)
[udp] = ports.udp
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(5)
    name = peer.getsockname()
    path = UdpPath(udp.sock, name, Address("udp", *name), ports)
    before = udp.sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER)
    path.send(bytes(1000))
    assert udp.sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == before == 2
    path.send(bytes(1400))
    path.send_run([memoryview(bytes(1401))] * 3)
    assert [len(peer.recv(2048)) for _ in range(5)] == [1000, 1400, 1401, 1401, 1401]
    assert ports.packets_out == 5 and not ports.counters
    assert udp.sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == 1
ports.close()
"""
KERNEL = """
import socket
from actors.net import Ports, UdpPath
from lkactor.plane.native import KernelPlane
from lkactor.wire.address import Address
from lkactor.wire.rtp import build_rtp, parse_rtp
from support.media import Bench, Sink, audio_format, audio_leg, forwarder_for

Bench.plane = plane = KernelPlane(protect=False)
ports = Ports(plane)
ports.open_udp(["127.0.0.1"], 0)
forwarder, _ = forwarder_for(audio_format())
sink = Sink()
leg = audio_leg(sink)
forwarder.add_leg(leg, 0.0)


def packets(first, count, size):
    return [
        parse_rtp(build_rtp(payload_type=111, sequence=n, timestamp=n * 960, ssrc=1, payload=bytes(size)), n / 50)
        for n in range(first, first + count)
    ]


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(5)
    name = peer.getsockname()
    cell = ports.cells[ports.udp[0].sock]
    forwarder.receive(0, packets(1, 1, 100), 0.0)
    sink.cell.set_path(cell, UdpPath(ports.udp[0].sock, name, Address("udp", *name), ports).packed)
    forwarder.receive(0, packets(2, 3, 1000), 0.1)
    forwarder.receive(0, packets(5, 3, 1400), 0.2)
    forwarder.receive(0, packets(8, 1, 1400), 0.3)
    sizes = [len(peer.recv(2048)) for _ in range(7)]
    assert len(set(sizes[:3])) == len(set(sizes[3:])) == 1 and sizes[3] - sizes[0] == 400, sizes
    assert (cell.packets, cell.errors, cell.buffer_full) == (7, 0, 0)
ports.close()
"""


def namespaces() -> str:
    """Why there is none to be had; "" if there is."""
    try:
        made = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"no {error.filename}"
    return made.stderr.strip()


@pytest.mark.parametrize("plane", ["python", "kernel"])
def test_what_is_too_big_for_a_route_goes_in_fragments(plane: str) -> None:
    if plane not in available_planes():
        pytest.skip("the C kernel is not built here")
    why = namespaces()
    if why:
        pytest.skip(f"no network namespace of our own: {why}")
    script = PYTHON if plane == "python" else KERNEL
    run = [sys.executable, "-W", "error", "-c", script]
    command = ["unshare", "-rn", "sh", "-c", f'ip link set lo mtu {MTU} up && exec "$@"', "sh", *run]
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 0, ended.stderr
