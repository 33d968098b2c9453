"""aiortc, an independent stack, as a whole peer over real sockets: media and data, with the Python SDK and itself."""

import asyncio
from collections.abc import Iterator

import pytest
from aiortc import RTCDtlsTransport
from livekit.protocol import models
from support.aiortc_client import AiortcClient, Picture, Tone, aiortc_client, hears, sees
from support.interop import BLUE, LIMIT, MARKS, RED, Server, hears_tone, party, run, sees_colours

from lkactor.testing import LkServer

pytestmark = MARKS


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out of its candidates, and loopback is where the server is."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture
def v6(monkeypatch: pytest.MonkeyPatch) -> Iterator[LkServer]:
    """A server that has nothing but ::1, and peers that have nothing else either."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["::1"])
    with LkServer("bind_addresses: ['::1']") as server:
        yield server


async def exchange_data(one: AiortcClient, other: AiortcClient) -> None:
    for label, kind in (("_reliable", models.DataPacket.Kind.RELIABLE), ("_lossy", models.DataPacket.Kind.LOSSY)):
        channel = await one.open(label)
        user = models.UserPacket(payload=b"x" * 900, topic=label)
        channel.send(models.DataPacket(user=user).SerializeToString())
        came_on, packet = await asyncio.wait_for(other.packets.get(), LIMIT)
        assert (came_on, packet.kind, packet.user.topic, len(packet.user.payload)) == (label, kind, label, 900)


@pytest.mark.usefixtures("loopback")
def test_aiortc_and_the_python_sdk_hear_and_see_each_other(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, aiortc_client(lk_server, lk_room, "io") as io:
            (alice,) = await guests.meeting("alice")
            await io.publish(Tone(), Picture(BLUE))
            await alice.publish_tone()
            await alice.publish_picture(RED)
            await hears_tone(await alice.track("io", "audio"))
            await sees_colours(await alice.track("io", "video"), BLUE)
            audio, video = (
                await asyncio.wait_for(io.tracks.get(), LIMIT),
                await asyncio.wait_for(io.tracks.get(), LIMIT),
            )
            if audio.kind == "video":
                audio, video = video, audio
            await asyncio.gather(hears(audio), sees(video, RED))
            (await io.open("_reliable")).send(
                models.DataPacket(user=models.UserPacket(payload=b"hello")).SerializeToString()
            )
            assert (await alice.event("data_received")).args[0].data == b"hello"
            await alice.local.publish_data(b"and back", reliable=True)
            assert (await asyncio.wait_for(io.packets.get(), LIMIT))[1].user.payload == b"and back"

    run(test)


@pytest.fixture
def slow_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc's DTLS handshake takes a second, as on a machine with much to do."""
    shake_hands = RTCDtlsTransport._do_handshake

    async def late(self: RTCDtlsTransport) -> None:
        await asyncio.sleep(1)
        await shake_hands(self)

    monkeypatch.setattr(RTCDtlsTransport, "_do_handshake", late)


@pytest.mark.usefixtures("loopback", "slow_handshake")
def test_a_track_that_is_offered_while_the_connection_is_made(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with aiortc_client(lk_server, lk_room, "io") as io, aiortc_client(lk_server, lk_room, "other") as other:
            await io.publish(Picture(BLUE))
            await sees(await asyncio.wait_for(other.tracks.get(), LIMIT), BLUE)

    run(test)


@pytest.mark.usefixtures("loopback")
def test_two_aiortc_peers(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        await meet(lk_server, lk_room)

    run(test)


def test_two_aiortc_peers_over_ipv6(v6: LkServer) -> None:
    """Real sockets on ::1, and no other address on either side."""

    async def test() -> None:
        await meet(v6, "six")
        entries = [entry for entry in v6.events("six") if entry.event.endswith(".connected")]
        assert len(entries) >= 4
        v6.check_no_leaks()

    run(test)


async def meet(server: Server, room: str) -> None:
    """Tone, colour and data from one to the other, with data both ways."""
    async with aiortc_client(server, room, "one") as one, aiortc_client(server, room, "two") as two:
        await one.publish(Tone(), Picture(RED))
        await two.negotiate()
        audio, video = await two.audio_and_video()
        await asyncio.gather(hears(audio), sees(video, RED))
        await exchange_data(one, two)
        await exchange_data(two, one)
