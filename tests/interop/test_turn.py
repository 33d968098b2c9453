"""Calls through the built-in TURN server: clients that are forced to relay (livekit-media 1.5)."""

import asyncio
import json
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit import rtc
from support.certificates import certificate, free_port
from support.interop import MARKS, run

from lkactor.testing import LkServer
from lkactor.turn import ClientAllocated, PeerData, TurnClient, TurnReader, issue_credentials
from lkactor.turn.message import Peer

pytestmark = MARKS


class Turn:
    def __init__(self, server: LkServer, udp: int, tls: int, cert: Path) -> None:
        self.server, self.udp, self.tls, self.cert = server, udp, tls, cert


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[Turn]:
    udp, tls = free_port(socket.SOCK_DGRAM), free_port()
    cert, key = certificate(tmp_path, "localhost")
    config = {
        "turn": {
            "enabled": True, "udp_port": udp, "tls_port": tls, "domain": "localhost", "cert_file": str(cert),
            "key_file": str(key), "bind_addresses": ["127.0.0.1"], "allow_restricted_peer_cidrs": ["127.0.0.0/8"],
        }
    }  # fmt: skip
    with LkServer(json.dumps(config)) as server:
        yield Turn(server, udp, tls, cert)


def credentials(server: LkServer) -> tuple[str, str]:
    return issue_credentials(server.api_key, server.api_secret, "PA_test", 2**33)


def test_python_sdk_publishes_and_subscribes_through_turn_udp(turn: Turn, single_pc: bool) -> None:
    async def session() -> None:
        rooms, got = [], asyncio.Event()
        for identity in ("ann", "bob"):
            room = rtc.Room()
            rooms.append(room)
            options = rtc.RoomOptions(
                single_peer_connection=single_pc,
                rtc_config=rtc.RtcConfiguration(
                    ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY,
                    continual_gathering_policy=rtc.ContinualGatheringPolicy.GATHER_ONCE,
                    ice_servers=[],
                ),
            )
            if identity == "bob":
                room.on("data_received", lambda packet: got.set())
            await asyncio.wait_for(room.connect(turn.server.url, turn.server.token(identity, "r"), options), 25)
        for _ in range(50):
            await rooms[0].local_participant.publish_data(b"through the relay", reliable=True)
            if got.is_set():
                break
            await asyncio.sleep(0.1)
        await asyncio.wait_for(got.wait(), 5)
        for room in rooms:
            await room.disconnect()

    run(session)
    assert turn.server.counters().get("turn.relayed", 0) > 0


def test_tls_relays_to_a_peer(turn: Turn) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        context = ssl.create_default_context(cafile=str(turn.cert))
        with (
            socket.create_connection(("127.0.0.1", turn.tls), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            client = TurnClient(*credentials(turn.server), rng=random.Random(1), stream=True)
            reader, where = TurnReader(), Peer("127.0.0.1", peer.getsockname()[1])

            def exchange() -> object:
                while True:
                    for data in client.datagrams_to_send(0.0):
                        stream.sendall(data)
                    event = client.next_event()
                    if event is not None:
                        return event
                    received = stream.recv(65536)
                    assert received, turn.server.counters()
                    for message in reader.feed(received):
                        client.receive_datagram(message, 0.0)

            client.allocate(0.0)
            allocated = exchange()
            assert isinstance(allocated, ClientAllocated)
            client.bind_channel(0x4000, where, 0.0)
            client.send_on(0x4000, b"hello")
            for data in client.datagrams_to_send(0.0):
                stream.sendall(data)
            data, relay = peer.recvfrom(100)
            assert (data, relay) == (b"hello", tuple(allocated.relayed))
            peer.sendto(b"back", relay)
            assert exchange() == PeerData(where, b"back")
    turn.server.wait_for(lambda server: server.counters().get("turn.allocation_ended", 0) == 1)
