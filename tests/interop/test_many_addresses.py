"""Real clients at servers of several ports and several addresses."""

import asyncio
import json
from typing import Any

import pytest
from support.interop import MARKS, hears_tone, party, run

from lkactor.testing import LkServer

pytestmark = MARKS


def media_ports(server: LkServer) -> set[int]:
    """The UDP ports of ours that clients speak to."""
    return server.call(lambda: {udp.port for udp in server.node.services.ports.udp if udp.routes})


async def call(server: LkServer, single_pc: bool) -> set[int]:
    """Two clients hear each other; the ports that they used."""
    async with party(server, "r", single_pc) as guests:
        alice, bob = await guests.meeting("alice", "bob")
        await alice.publish_tone()
        await hears_tone(await bob.track("alice", "tone"))
        return await asyncio.to_thread(media_ports, server)


@pytest.mark.parametrize(
    "rtc",
    [{"udp_port": "21000-21400"}, {"port_range_start": 21000, "port_range_end": 21400}],
    ids=["udp_port", "port_range"],
)
def test_a_range_of_ports(rtc: dict[str, Any], single_pc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    with LkServer(json.dumps({"rtc": rtc})) as server:
        ports = server.node.udp_ports
        assert len(ports) == 3 and all(21000 <= port <= 21400 for port in ports)
        used: set[int] = set()

        async def test() -> None:
            used.update(await call(server, single_pc))

        run(test)
        # Sessions take turns with the ports.
        assert len(used) > 1 and used <= set(ports)


def test_an_address_of_every_interface_and_loopback(single_pc: bool) -> None:
    """A socket per address: checks of one client to several of them are answered by the one that was asked."""
    rtc = {"interfaces": {"excludes": ["none"]}, "enable_loopback_candidate": True}
    config = {"bind_addresses": ["127.0.0.1"], "rtc": rtc}
    with LkServer(json.dumps(config)) as server:
        announced = [entry.ip for entry in server.node.addresses.announced]
        assert "127.0.0.1" in announced
        assert sorted(udp.sock.getsockname()[0] for udp in server.node.services.ports.udp) == sorted(announced)

        async def test() -> None:
            await call(server, single_pc)

        run(test)
