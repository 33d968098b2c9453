"""No token, secret, password or key in anything that a server writes or shows, at level debug, whatever goes wrong."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import aioice.stun
import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from cryptography.hazmat.primitives import serialization
from livekit import api
from livekit.protocol import rtc as proto
from support.backend import Backend
from support.interop import LIMIT, MARKS, Client, party, raw_token, run
from support.served import KEY, SECRET, Remote, free_port

from lkactor.cli.logs import ServerLog
from lkactor.config_sections import LoggingConfig
from lkactor.testing import LkServer

pytestmark = MARKS
ROOM = "secrets"
SCRAPER, RELAY_SECRET, RELAY_CREDENTIAL, HOOK = (
    "scraping-pass-1",
    "relay-secret-2-xyz",
    "relay-cred-3-xyz",
    "hook-secret-4-xyz",
)
OFFER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:brokenufrag\r\na=ice-pwd:{password}\r\nm=\xff\r\n"
PASSWORD_LINE = re.compile(r"ice-pwd:(\S+)")


class Known:
    """Every secret of the session, by what it is."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def add(self, what: str, secret: str) -> str:
        """The secret itself, for use."""
        self.secrets[secret] = what
        return secret

    def token(self, what: str, token: str) -> str:
        """A token is as good as its signature, and its claims are nobody's business."""
        _, claims, signature = token.split(".")
        self.add(f"claims of {what}", claims)
        if signature:
            self.add(f"signature of {what}", signature)
        return token

    def sdp(self, what: str, sdp: str) -> None:
        found = PASSWORD_LINE.findall(sdp)
        assert found, f"{what} has no ice-pwd"
        for password in found:
            self.add(f"ICE password of {what}", password)

    def found_in(self, text: str) -> list[str]:
        return sorted({what for secret, what in self.secrets.items() if secret in text})


class Served(Remote):
    """`lkactor serve` with everything switched on; what it says goes to files."""

    def __init__(self, directory: Path, hook: str) -> None:
        self.ports = {name: free_port() for name in ("http", "gst", "prometheus")}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.turn_port = probe.getsockname()[1]
        relays = [
            {"host": "relay.invalid", "port": 3478, "protocol": "udp", "username": "u", "credential": RELAY_CREDENTIAL},
            {"host": "relay2.invalid", "port": 3478, "protocol": "udp", "secret": RELAY_SECRET},
        ]
        config = {
            "keys": {KEY: SECRET},
            "port": self.ports["http"],
            "bind_addresses": ["127.0.0.1"],
            "logging": {"level": "debug"},
            "rtc": {"udp_port": 0, "tcp_port": 0, "turn_servers": relays},
            "turn": {"enabled": True, "udp_port": self.turn_port, "bind_addresses": ["127.0.0.1"]},
            "webhook": {"api_key": KEY, "urls": [hook, f"http://user:{HOOK}@127.0.0.1:9/nobody?key={HOOK}"]},
            "prometheus": {"port": self.ports["prometheus"], "username": "u", "password": SCRAPER},
            "gst_signalling": {"port": self.ports["gst"], "bridge": "token"},
            "events": {"directory": str(directory / "events")},
        }
        self.directory = directory
        (directory / "config.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-m", "lkactor", "serve", "--config", str(directory / "config.yaml")]
        with (directory / "stdout").open("w") as out, (directory / "stderr").open("w") as error:
            self._process = subprocess.Popen(command, stdout=out, stderr=error, env={**os.environ})
        self.http_url = f"http://127.0.0.1:{self.ports['http']}"
        self.url = self.http_url.replace("http", "ws", 1)

    def wait(self) -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.directory / "stderr").read_text()
            with suppress(httpx.HTTPError):
                httpx.get(self.http_url, timeout=1)
                return
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(20)

    def written(self) -> dict[str, str]:
        """All that is on the disk, by file."""
        files = [self.directory / "stdout", self.directory / "stderr", *(self.directory / "events").iterdir()]
        return {file.name: file.read_bytes().decode("utf-8", "replace") for file in files}

    def shown(self) -> dict[str, str]:
        """All that operators can look at, by path."""
        paths = ("/debug/joins", "/debug/rooms", "/debug/addresses", "/debug/loop")
        token = raw_token(self, video={"roomList": True})
        pages = {
            path: httpx.get(self.http_url + path, headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT)
            for path in paths
        }
        pages["metrics"] = httpx.get(
            f"http://127.0.0.1:{self.ports['prometheus']}/metrics", auth=("u", SCRAPER), timeout=LIMIT
        )
        assert {page.status_code for page in pages.values()} == {200}
        return {path: page.text for path, page in pages.items()}


@contextmanager
def served(directory: Path, hook: str) -> Iterator[Served]:
    server = Served(directory, hook)
    try:
        server.wait()
        yield server
    finally:
        server.end(signal.SIGKILL)


def bad_tokens(server: Any) -> dict[str, str]:
    now, video = int(time.time()), {"roomJoin": True, "room": ROOM}
    return {
        "expired": raw_token(server, sub="late", exp=now - 3600, video=video),
        "forged": raw_token(server, sub="thief", secret="f" * 40, video=video),
        "of another key": raw_token(server, sub="stranger", key="nobody", video=video),
        "with a wrong claim": raw_token(server, sub="odd", video={"roomJoin": "yes", "room": ROOM}),
        "of a swapped key": raw_token(server, sub="swapped", key=SECRET, secret=KEY * 8, video=video),
        "without the grant": raw_token(server, sub="none", video={"room": ROOM}),
    }


async def refused(server: Served, known: Known, session: aiohttp.ClientSession) -> None:
    """Tokens that are not taken, by every door there is."""
    for what, bad in bad_tokens(server).items():
        token = known.token(what, bad)
        headers = {"Authorization": f"Bearer {token}"}
        twirp = f"{server.http_url}/twirp/livekit.RoomService/ListParticipants"
        urls = [f"{server.url}{path}?access_token={token}" for path in ("/rtc", "/rtc/v1", "/agent", "/nope")]
        for url in urls:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url)
        await session.get(f"{server.http_url}/rtc/validate?access_token={token}")
        await session.get(f"{server.http_url}/{token}?access_token={token}", allow_redirects=False)
        await session.get(f"{server.http_url}/debug/joins?access_token={token}")
        await session.get(f"{server.http_url}/events?access_token={token}")
        await session.post(twirp, json={"room": ROOM}, headers=headers)
        await session.post(f"{server.http_url}/admin/drain", headers=headers)
        broken = OFFER.format(
            password=known.add("a broken offer's ICE password", f"brokenpassword{len(known.secrets):08}")
        )
        sdp = {"Content-Type": "application/sdp"}
        await session.post(f"{server.http_url}/whip/v1", data=broken.encode("latin-1"), headers=headers | sdp)


async def signal_by_hand(server: Served, known: Known, session: aiohttp.ClientSession) -> None:
    """Both generations: the token in the query, then what goes wrong on a connection that stands."""
    good = known.token("a token in the query", server.token("by-hand", ROOM))
    url = f"{server.url}/rtc?access_token={good}&protocol=16&auto_subscribe=1"
    async with session.ws_connect(url) as socket:
        waited = {"join", "offer", "refresh_token"}
        while waited:
            response = proto.SignalResponse.FromString(await socket.receive_bytes(timeout=LIMIT))
            kind = response.WhichOneof("message")
            waited.discard(kind)
            if kind == "join":
                for server_entry in response.join.ice_servers:
                    known.add("a TURN credential", server_entry.credential)
                port = f":{server.turn_port}"
                await use_turn(server, next(e for e in response.join.ice_servers if port in e.urls[0]))
            elif kind == "offer":
                known.sdp("the server's offer", response.offer.sdp)
            elif kind == "refresh_token":
                known.token("a refresh token", response.refresh_token)
    broken = OFFER.format(password=known.add("a peer's broken offer", "peersbrokenpassword00"))
    trickle = proto.TrickleRequest(candidateInit=json.dumps({"candidate": broken}))
    requests = (
        proto.SignalRequest(trickle=trickle),
        proto.SignalRequest(answer=proto.SessionDescription(type="answer", sdp=broken)),
        proto.SignalRequest(offer=proto.SessionDescription(type="offer", sdp=broken, id=1)),
    )
    for frame in (*(request.SerializeToString() for request in requests), b"\xff" * 100):
        async with session.ws_connect(url) as socket:
            await socket.receive_bytes(timeout=LIMIT)
            await socket.send_bytes(frame)
            await asyncio.sleep(0.2)  # Whatever it makes of it: some of these end the connection, some are passed over.
    async with session.ws_connect(url) as socket:
        await socket.send_str(json.dumps({"offer": {"sdp": broken, "type": 7}}))
        await asyncio.sleep(0.2)


async def use_turn(server: Served, relay: Any) -> None:
    """The right credential, then a wrong one; by aioice, whose password is the server's to check."""
    from aioice.turn import create_turn_endpoint

    for password in (relay.credential, "wrong-" + relay.credential):
        # aioice takes no unsigned answer, so it would ask with the wrong one for a minute.
        with suppress(aioice.stun.TransactionError, TimeoutError):
            async with asyncio.timeout(2):
                transport, _ = await create_turn_endpoint(
                    asyncio.DatagramProtocol,
                    server_addr=("127.0.0.1", server.turn_port),
                    username=relay.username,
                    password=password,
                )
                transport.close()


async def whip(server: Served, known: Known, session: aiohttp.ClientSession) -> None:
    token = known.token("a WHIP token", server.token("encoder", ROOM))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio", "sendonly")
    await peer.setLocalDescription(await peer.createOffer())
    known.sdp("a WHIP offer", peer.localDescription.sdp)
    answer = await session.post(f"{server.http_url}/whip/v1", data=peer.localDescription.sdp, headers=headers)
    assert answer.status == 201
    known.sdp("a WHIP answer", await answer.text())
    resource = server.http_url + answer.headers["Location"]
    fresh = known.add("a WHIP restart's ICE password", "freshpasswordofwhip000000")
    fragment = f"a=ice-ufrag:fresh\r\na=ice-pwd:{fresh}\r\n"
    patch = headers | {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
    restarted = await session.patch(resource, data=fragment, headers=patch)
    if restarted.status == 200:
        known.sdp("a WHIP restart's answer", await restarted.text())
    await session.delete(resource, headers=headers)
    await peer.close()


async def gstreamer(server: Served, known: Known, session: aiohttp.ClientSession) -> None:
    """The bridge's token in the address, in the call and in the name, with and without right."""
    good = known.token("a bridge token", server.token("camera", ROOM))
    bad = known.token("a forged bridge token", raw_token(server, sub="x", secret="g" * 40))
    broken = OFFER.format(password=known.add("a GStreamer peer's ICE password", "gstreamerpassword0000000"))
    url = f"ws://127.0.0.1:{server.ports['gst']}/"
    for number, (address, call) in enumerate(
        [
            (f"{url}?access_token={good}", f"SESSION lkactor:{ROOM}"),
            (f"{url}?access_token={bad}", f"SESSION lkactor:{ROOM}"),
            (url, f"SESSION lkactor:{ROOM}?access_token={good}"),
            (url, f"SESSION lkactor:{ROOM}?access_token={bad}"),
            (url, f"SESSION nobody?access_token={bad}"),
            (url, f"ROOM {ROOM}?access_token={bad}"),
        ]
    ):
        async with session.ws_connect(address) as socket:
            await socket.send_str(f"HELLO peer{number}")
            await socket.receive(timeout=LIMIT)
            await socket.send_str(call)
            with suppress(TimeoutError, ConnectionError):
                await socket.receive(timeout=0.5)
                for kind in ("offer", "answer"):
                    await socket.send_str(json.dumps({"sdp": {"type": kind, "sdp": broken}}))
                await socket.receive(timeout=0.3)


async def agent(server: Served, known: Known, session: aiohttp.ClientSession) -> None:
    token = known.token("an agent's token", raw_token(server, video={"agent": True}))
    async with session.ws_connect(f"{server.url}/agent", headers={"Authorization": f"Bearer {token}"}) as socket:
        with suppress(TimeoutError, ConnectionError):
            await socket.send_str(json.dumps({"register": {"agentName": "a", "namespace": token}}))
            await socket.send_bytes(b"\xff" * 40)
            await socket.receive(timeout=0.5)


async def call(server: Served, known: Known) -> None:
    """Two real clients, and the API at work on them."""
    clients = [Client(server, "alice"), Client(server, "bob")]  # type: ignore[arg-type]
    for client, single in zip(clients, (True, False), strict=True):
        token = known.token(client.identity, server.token(client.identity, ROOM))
        await client.connect(ROOM, single_pc=single, token=token)
    alice, bob = clients
    await alice.publish_tone()
    await bob.published("alice", "tone")
    async with api.LiveKitAPI(server.http_url, KEY, SECRET) as service:
        who = api.RoomParticipantIdentity(room=ROOM, identity="bob")
        await service.room.update_participant(api.UpdateParticipantRequest(room=ROOM, identity="alice", metadata="m"))
        await service.room.remove_participant(who)
        with pytest.raises(api.TwirpError):
            await service.room.get_participant(api.RoomParticipantIdentity(room=ROOM, identity="nobody"))
        await bob.event("disconnected")
        await service.room.delete_room(api.DeleteRoomRequest(room=ROOM))
    await asyncio.gather(*(client.close() for client in clients))


def test_a_busy_server_tells_nobody_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    known = Known()
    for what, secret in {
        "the API secret": SECRET, "the scraper's password": SCRAPER, "the external relay's secret": RELAY_SECRET,
        "the external relay's credential": RELAY_CREDENTIAL, "the webhook's secret": HOOK,
    }.items():  # fmt: skip
        known.add(what, secret)
    with Backend(KEY, SECRET) as backend, served(tmp_path, backend.url) as server:

        async def test() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LIMIT)) as session:
                await refused(server, known, session)
                await signal_by_hand(server, known, session)
                await whip(server, known, session)
                await gstreamer(server, known, session)
                await agent(server, known, session)
            await call(server, known)

        run(test)
        backend.wait_for(lambda events: bool(events), "a webhook")
        known.token("a webhook's token", backend.headers[0]["Authorization"])
        shown = server.shown()
        server.end(signal.SIGTERM)
        written = server.written()
    whole = {name: known.found_in(text) for name, text in {**shown, **written}.items()}
    assert {name: found for name, found in whole.items() if found} == {}
    assert "join refused" in written["stderr"], "it does log, and at this level"
    assert "are the two swapped?" in written["stderr"]
    assert "alice" in shown["/debug/joins"]
    assert len(known.secrets) > 30


def test_a_crash_tells_nobody_what_it_crashed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that puts what it was given into its exception, as KeyError and many libraries do."""
    known, lines = Known(), io.StringIO()

    def bug(self: object, sdp: str, *more: object, **options: object) -> None:
        known.sdp("the offer that crashed", sdp)
        raise KeyError(sdp, known.token("a token in an exception", server.token("somebody", ROOM)), SECRET)

    with LkServer(json.dumps({"keys": {KEY: SECRET}})) as server:
        services = server.node.services
        pem = services.certificate._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        known.add("the DTLS key", pem.splitlines()[1])
        log = ServerLog(LoggingConfig(level="debug"), services.joins, "ND_test", lines)
        server.call(services.events.listen, log.observe)
        for target in ("lkactor.sdp.Answerer.receive_offer",):
            monkeypatch.setattr(target, bug)

        async def test() -> None:
            async with party(server, ROOM) as guests:
                alice = Client(server, "alice")
                guests.clients.append(alice)
                # The client's first offer crashes its session; it would try again for LIMIT.
                with suppress(Exception):
                    async with asyncio.timeout(4):
                        await alice.connect(ROOM, token=known.token("alice", server.token("alice", ROOM)))

        run(test)
        record = "\n".join(str(entry) for entry in server.events())
    assert "KeyError" in lines.getvalue(), "the crash is explained"
    assert "a=ice-ufrag" in lines.getvalue(), "by what it crashed on"
    assert known.found_in(lines.getvalue()) == []
    assert known.found_in(record) == []
