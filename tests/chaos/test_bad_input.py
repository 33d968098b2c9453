"""Truncated and random bytes at every socket: no exception, everything counted, the service unharmed."""

import random
import socket

import httpx
import pytest
import trio
from livekit.protocol import rtc as signal
from support.interop import MARKS, hears_tone, party, run
from trio_websocket import ConnectionClosed, open_websocket_url

from lkactor.testing import LkServer
from lkactor.wire import stun
from lkactor.wire.rtp import build_rtp

pytestmark = [
    *MARKS,
    # the attacking client's own socket, which trio-websocket leaves open when the server hangs up on it
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SEED = 20260101


@pytest.fixture(scope="module")
def victim():
    with LkServer() as server:
        yield server


def crashes(server: LkServer) -> list[str]:
    return [str(entry) for entry in server.events() if entry.event.startswith("actor.")]


def datagrams(rng: random.Random, count: int):
    """Random ones, and damaged ones of every protocol on the port."""
    good = [
        stun.build(stun.BINDING_REQUEST, b"t" * 12, [(stun.USERNAME, b"nobody:x")], "password"),
        b"\x16\xfe\xfd" + bytes(60),
        build_rtp(payload_type=96, sequence=1, timestamp=2, ssrc=3, payload=bytes(200)),
        b"\x80\xc8\x00\x06" + bytes(24),
    ]
    for number in range(count):
        packet = bytearray(rng.choice(good) if number % 2 else rng.randbytes(rng.randrange(0, 1400)))
        if packet and number % 4 == 1:
            packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
        yield bytes(packet[: rng.randrange(len(packet) + 1)] if number % 3 else packet)


def test_udp(victim: LkServer) -> None:
    rng = random.Random(SEED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for packet in datagrams(rng, 3000):
            attacker.sendto(packet, ("127.0.0.1", victim.node.udp_port))
    victim.wait_for(lambda server: sum(server.counters().values()) > 500)
    assert victim.counters()["mux.not_stun_from_unknown"] > 0
    assert victim.counters()["mux.unknown_ufrag"] > 0
    assert not crashes(victim)


def test_ice_tcp(victim: LkServer) -> None:
    rng = random.Random(SEED)
    for packet in datagrams(rng, 60):
        with socket.create_connection(("127.0.0.1", victim.node.tcp_port)) as attacker:
            attacker.sendall(len(packet).to_bytes(2, "big") + packet if len(packet) % 2 else packet)
    assert not crashes(victim)
    assert httpx.get(victim.http_url).text == "OK"


def test_http_and_twirp(victim: LkServer) -> None:
    rng = random.Random(SEED)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", victim.node.port)) as attacker:
            attacker.sendall(rng.randbytes(rng.randrange(1, 500)))
    headers = {"Authorization": f"Bearer {victim.token(room='r', room_admin=True, room_create=True)}"}
    for kind in ("application/json", "application/protobuf"):
        for method in ("CreateRoom", "ListRooms", "SendData", "UpdateParticipant", "GetParticipant"):
            for _ in range(10):
                answer = httpx.post(
                    f"{victim.http_url}/twirp/livekit.RoomService/{method}",
                    content=rng.randbytes(rng.randrange(0, 300)),
                    headers={**headers, "Content-Type": kind},
                )
                assert answer.status_code in (200, 400, 401, 404), answer.text
    assert not crashes(victim)


def mutated_requests(rng: random.Random, count: int):
    good = [
        signal.SignalRequest(offer=signal.SessionDescription(type="offer", sdp="v=0\r\n", id=3)),
        signal.SignalRequest(answer=signal.SessionDescription(type="answer", sdp="", id=9)),
        signal.SignalRequest(add_track=signal.AddTrackRequest(cid="c", type=7, source=99)),
        signal.SignalRequest(trickle=signal.TrickleRequest(candidateInit='{"candidate": 5}')),
        signal.SignalRequest(mute=signal.MuteTrackRequest(sid="TR_nothing", muted=True)),
        signal.SignalRequest(subscription=signal.UpdateSubscription(track_sids=["a", "b"], subscribe=True)),
        signal.SignalRequest(simulate=signal.SimulateScenario(speaker_update=-5)),
    ]
    for number in range(count):
        frame = bytearray(rng.choice(good).SerializeToString())
        if number % 2:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        yield bytes(frame) if number % 5 else rng.randbytes(rng.randrange(200))


@pytest.mark.parametrize("seed", range(6))
def test_signalling(victim: LkServer, seed: int) -> None:
    """A client that sends nonsense loses its own session at most."""

    async def attack() -> None:
        rng = random.Random(SEED + seed)
        token = victim.token(identity=f"mallory-{seed}", room="attacked")
        url = f"{victim.url}/rtc?access_token={token}&protocol=16"
        async with open_websocket_url(url, message_queue_size=1000) as websocket:
            try:
                for frame in mutated_requests(rng, 120):
                    await websocket.send_message(frame if len(frame) % 7 else frame.decode("latin-1"))
                await trio.sleep(0.1)
            except ConnectionClosed:
                pass

    trio.run(attack)
    assert not crashes(victim)
    assert httpx.get(victim.http_url).text == "OK"


def test_the_service_is_unharmed_afterwards(victim: LkServer) -> None:
    async def test() -> None:
        async with party(victim, "after the storm") as guests:
            alice, bob = await guests.pair()
            await alice.publish_tone(440)
            await hears_tone(await bob.track("alice", "tone"))

    run(test)
    victim.check_no_leaks()
