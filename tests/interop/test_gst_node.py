"""`gst_signalling` of a running server, and the command's errors: no GStreamer needed."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from support.interop import MARKS, run
from support.tls import self_signed

from actors.gst.server import bridge_is_open
from lkactor.cli.main import main
from lkactor.config import Config, ConfigError
from lkactor.testing import LkServer

pytestmark = MARKS
Socket = aiohttp.ClientWebSocketResponse


@pytest.fixture(scope="module")
def server() -> Iterator[LkServer]:
    with LkServer("gst_signalling: {port: 0, bridge: open}") as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[LkServer]:
    with LkServer("gst_signalling: {port: 0, bridge: token}") as running:
        yield running


@asynccontextmanager
async def peers(server: LkServer, *names: str) -> AsyncIterator[list[Socket]]:
    async with aiohttp.ClientSession() as session:
        sockets = []
        for name in names:
            sockets.append(await session.ws_connect(f"ws://127.0.0.1:{server.node.gst_port}/"))
            await sockets[-1].send_str(f"HELLO {name}")
            assert await heard(sockets[-1]) == "HELLO"
        yield sockets


async def heard(client: Socket) -> str:
    return str(await client.receive_str(timeout=5))


def test_a_call_makes_the_room_and_bad_payloads_do_no_harm(server: LkServer) -> None:
    async def test() -> None:
        async with peers(server, "one", "two") as (one, two):
            await one.send_str("SESSION lkactor:made")
            assert await heard(one) == "SESSION_OK"
            assert "made" in server.rooms()
            await one.send_bytes(b"\x00")
            for bad in ("nonsense", "{}", '{"sdp": {"type": "offer", "sdp": "v=1"}}', '{"ice": {"candidate": "x"}}'):
                await one.send_str(bad)
            await two.send_str("SESSION lkactor:made")
            assert await heard(two) == "SESSION_OK"
            await asyncio.to_thread(server.wait_for, lambda s: s.counters().get("sdp.no_version") == 1)
            counts = server.counters()
            assert [counts[f"gst.payload_{why}"] for why in ("binary", "not_json", "unknown")] == [1, 1, 1]
            # An offer that nothing can be done with ends the call: there will never be media.
            await one.send_str(json.dumps({"sdp": {"type": "offer", "sdp": "v=0\r\nm=audio 9 RTP/SAVPF 96\r\n"}}))
            assert (await one.receive(5)).type is aiohttp.WSMsgType.CLOSE

    run(test)
    server.check_no_leaks()


def test_a_room_has_the_bridge_when_livekit_has_the_room(server: LkServer) -> None:
    async def test() -> None:
        async with peers(server, "one", "two", "x") as (one, two, x):
            await one.send_str("ROOM hall")
            assert await heard(one) == "ROOM_OK "
            await x.send_str("SESSION lkactor:hall")
            assert await heard(x) == "SESSION_OK"
            assert await heard(one) == "ROOM_PEER_JOINED lkactor:hall"
            assert (await heard(one)).startswith("ROOM_PEER_MSG lkactor:hall {"), "the newcomer offers"
            await two.send_str("ROOM hall")
            assert await heard(two) == "ROOM_OK lkactor:hall one"
            assert await heard(one) == "ROOM_PEER_JOINED two"
            await asyncio.to_thread(server.close_room, "hall")
            assert await heard(one) == "ROOM_PEER_LEFT lkactor:hall"

    run(test)
    server.check_no_leaks()


def test_a_bridge_that_crashes_ends_its_call_only(server: LkServer) -> None:
    async def test() -> None:
        async with peers(server, "one", "two") as (one, two):
            for client in (one, two):
                await client.send_str("SESSION lkactor:crash")
                assert await heard(client) == "SESSION_OK"
            bridges = [info.path for info in server.actors() if info.path.startswith("/gst/bridge")]
            assert len(bridges) == 2
            server.crash(bridges[0])
            await one.send_str("anything")
            assert (await one.receive(5)).type is aiohttp.WSMsgType.CLOSE
            await two.send_str("OFFER_REQUEST")
            assert "offer" in json.loads(await heard(two))["sdp"]["type"]

    run(test)
    server.check_no_leaks()


def test_tls_and_health(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=cert)

    async def test(port: int | None) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"https://localhost:{port}/health", ssl=context) as answer:
                assert (answer.status, await answer.text()) == (200, "OK\n")
            async with session.ws_connect(f"wss://localhost:{port}/", ssl=context) as client:
                await client.send_str("HELLO me")
                assert await heard(client) == "HELLO"

    with LkServer(f"gst_signalling: {{port: 0, cert: {cert}, key: {key}}}") as server:
        run(lambda: test(server.node.gst_port))


def test_the_command_says_why_it_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gst-signalling", "--key", "key.pem"]) == 2
    assert "--key needs --cert" in capsys.readouterr().err
    (tmp_path / "cert.pem").write_text("no certificate")
    assert main(["gst-signalling", "--cert", str(tmp_path / "cert.pem")]) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["gst-signalling", "--addr", "127.0.0.1", "--port", port]) == 1
    assert "in use" in capsys.readouterr().err


# -- tokens


async def knock(session: aiohttp.ClientSession, server: LkServer, name: str, token: str = "", **headers: str) -> Socket:
    query = f"?access_token={token}" if token else ""
    client = await session.ws_connect(f"ws://127.0.0.1:{server.node.gst_port}/{query}", headers=headers)
    await client.send_str(f"HELLO {name}")
    assert await heard(client) == "HELLO"
    return client


def test_a_call_needs_a_token_for_that_room(guarded: LkServer) -> None:
    async def test() -> None:
        refusal = "ERROR peer 'lkactor:den' needs a token that allows to join the room"
        right = guarded.token(room="den")
        async with aiohttp.ClientSession() as session:
            nobody = await knock(session, guarded, "nobody")
            other = guarded.token(room="other")
            stale = guarded.token(room="den", ttl=-3600.0)
            for token in ("", f"?access_token={other}", f"?access_token={stale}", f"?access_token={right}x"):
                await nobody.send_str(f"SESSION lkactor:den{token}")
                assert await heard(nobody) == refusal
            assert "den" not in guarded.rooms()
            counts = guarded.counters()
            assert (counts["gst.no_token"], counts["gst.no_grant"], counts["gst.bad_token"]) == (1, 1, 2)
            # The name that is called, the address, the header.
            await nobody.send_str(f"SESSION lkactor:den?access_token={right}")
            assert await heard(nobody) == "SESSION_OK"
            by_address = await knock(session, guarded, "one", right)
            await by_address.send_str("SESSION lkactor:den")
            assert await heard(by_address) == "SESSION_OK"
            by_header = await knock(session, guarded, "two", Authorization=f"Bearer {right}")
            await by_header.send_str("SESSION lkactor:den")
            assert await heard(by_header) == "SESSION_OK"
            await by_header.close()
            plain = await knock(session, guarded, "three", right)
            await plain.send_str("SESSION nobody-else")
            assert await heard(plain) == "ERROR peer 'nobody-else' not found"

    run(test)
    assert not any("eyJ" in str(entry) for entry in guarded.events())


def test_the_bridge_is_no_member_of_a_room_for_who_has_no_token(guarded: LkServer) -> None:
    async def test() -> None:
        token = guarded.token(room="hall")
        async with aiohttp.ClientSession() as session:
            one = await knock(session, guarded, "one")
            await one.send_str("ROOM hall")
            assert await heard(one) == "ROOM_OK "
            two = await knock(session, guarded, "two", token)
            await two.send_str("ROOM hall")
            assert await heard(two) == "ROOM_OK one"
            assert await heard(one) == "ROOM_PEER_JOINED two"
            caller = await knock(session, guarded, "caller", token)
            await caller.send_str("SESSION lkactor:hall")
            assert await heard(caller) == "SESSION_OK"
            assert await heard(two) == "ROOM_PEER_JOINED lkactor:hall"
            assert (await heard(two)).startswith("ROOM_PEER_MSG lkactor:hall {")
            await one.send_str("ROOM_PEER_MSG lkactor:hall {}")
            assert await heard(one) == "ERROR peer 'lkactor:hall' not found"
            await one.send_str("ROOM_PEER_LIST")
            assert await heard(one) == "ROOM_PEER_LIST two"

    run(test)


def test_the_bridge_is_open_in_development_only() -> None:
    def config(text: str = "", *, dev: bool = False) -> Config:
        return Config.load(f"keys: {{k: s}}\n{text}", dev=dev)

    assert bridge_is_open(config(dev=True)) and not bridge_is_open(config())
    assert bridge_is_open(config("gst_signalling: {bridge: open}"))
    assert not bridge_is_open(config("gst_signalling: {bridge: token}", dev=True))
    with pytest.raises(ConfigError, match="gst_signalling"):
        config("gst_signalling: {bridge: closed}")
