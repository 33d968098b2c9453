"""Webhooks of real meetings, taken by the official receivers; the receiver down and the server killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from livekit import api
from support.backend import Backend
from support.interop import LIMIT, MARKS, RED, Client, party, raw_token, run
from support.served import KEY, SECRET, Process, Remote, free_port, pairs

from lkactor.testing import LkServer

pytestmark = MARKS

NODE = Path(__file__).parent / "node"


@pytest.fixture
def lk_room(request: pytest.FixtureRequest) -> str:
    """Every test here has a server of its own: not the shared one's."""
    return str(request.node.name)[:80]


@contextmanager
def served(*urls: str, extra: str = "") -> Iterator[LkServer]:
    text = f"webhook:\n  api_key: {KEY}\n  urls: {json.dumps(urls)}\n{extra}"
    with LkServer(text) as server:
        yield server


async def heard(backend: Backend, name: str, identity: str) -> None:
    """Until the back end knows."""
    await asyncio.to_thread(
        backend.wait_for, lambda _: (name, identity) in [entry[:2] for entry in backend.story()], f"{name} {identity}"
    )


async def meeting(server: Any, room: str, backend: Backend) -> None:
    """What the Go server was watched to answer with the sequence below."""
    async with party(server, room) as guests, api.LiveKitAPI(server.http_url, KEY, SECRET) as service:
        alice = await guests.join("alice")
        await heard(backend, "participant_joined", "alice")
        bob = await guests.join("bob")
        await heard(backend, "participant_joined", "bob")
        tone = await alice.publish_tone()
        await bob.published("alice", "tone")
        await alice.publish_picture(RED)
        await bob.published("alice", "picture")
        await tone.unpublish(alice)
        await bob.until(lambda: bob.publication("alice", "tone") is None, "end of the tone")
        hidden = await guests.join("ghost", hidden=True)
        await heard(backend, "participant_joined", "ghost")
        await hidden.close()
        await heard(backend, "participant_left", "ghost")
        await service.room.remove_participant(api.RoomParticipantIdentity(room=room, identity="alice"))
        await bob.event("participant_disconnected")
        await bob.publish_tone()
        await heard(backend, "track_published", "bob")
        await service.room.delete_room(api.DeleteRoomRequest(room=room))
        await bob.event("disconnected")


SEQUENCE = [
    ("room_started", "", ""),
    ("participant_joined", "alice", ""),
    ("participant_joined", "bob", ""),
    ("track_published", "alice", "tone"),
    ("track_published", "alice", "picture"),
    ("track_unpublished", "alice", "tone"),
    ("participant_joined", "ghost", ""),
    ("participant_left", "ghost", ""),
    ("track_unpublished", "alice", "picture"),
    ("participant_left", "alice", ""),
    ("track_published", "bob", "tone"),
    ("track_unpublished", "bob", "tone"),
    ("participant_left", "bob", ""),
    ("room_finished", "", ""),
]


def over(events: list[Any]) -> bool:
    return bool(events) and events[-1].event == "room_finished"


def test_a_meeting_in_the_reference_s_sequence(lk_room: str) -> None:
    with Backend(KEY, SECRET) as backend, served(backend.url) as server:

        async def test() -> None:
            await meeting(server, lk_room, backend)

        run(test)
        backend.wait_for(over, "room_finished")
        assert backend.story() == SEQUENCE
        assert len({event.id for event in backend.events}) == len(SEQUENCE)
        for event in backend.events:
            assert event.id.startswith("EV_")
            assert event.room.name == lk_room
            assert event.room.sid.startswith("RM_")
        _check_fields([backend.tree(index) for index in range(len(SEQUENCE))])
        headers = {name.lower(): value for name, value in backend.headers[0].items()}
        assert headers["content-type"] == "application/webhook+json"
        assert not headers["authorization"].startswith("Bearer")
        assert b'"createdAt": "' in backend.bodies[0]


def _check_fields(trees: list[dict[str, Any]]) -> None:
    started, joined, published, left = trees[0], trees[1], trees[3], trees[9]
    assert set(started) == {"event", "room", "id", "createdAt"}
    wanted = {"sid", "name", "emptyTimeout", "departureTimeout", "creationTime", "creationTimeMs", "turnPassword"}
    assert set(started["room"]) == wanted | {"enabledCodecs"}
    assert joined["participant"]["state"] == "ACTIVE"
    assert {"sid", "identity", "joinedAt", "permission", "version"} <= set(joined["participant"])
    assert set(published["room"]) == {"sid", "name"}
    assert set(published["participant"]) == {"sid", "identity"}
    track = published["track"]
    assert (track["source"], track["mimeType"]) == ("MICROPHONE", "audio/red")
    assert track["sid"].startswith("TR_A")
    assert (left["participant"]["state"], left["participant"]["disconnectReason"]) == (
        "DISCONNECTED",
        "PARTICIPANT_REMOVED",
    )
    assert "tracks" not in left["participant"]
    assert trees[12]["participant"]["disconnectReason"] == "ROOM_DELETED"


def test_who_never_connects_media_has_aborted(lk_room: str) -> None:
    import aiohttp

    with Backend(KEY, SECRET) as backend, served(backend.url) as server:

        async def test() -> None:
            token = server.token("carl", lk_room)
            url = f"{server.url}/rtc?access_token={token}&protocol=16&auto_subscribe=1"
            async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
                await asyncio.wait_for(socket.receive(), LIMIT)

        run(test)
        backend.wait_for(lambda events: len(events) >= 2, "two events")
        assert [entry[:2] for entry in backend.story()] == [
            ("room_started", ""),
            ("participant_connection_aborted", "carl"),
        ]


def test_full_room_and_filter(lk_room: str) -> None:
    extra = "  filter_params: {include_events: [track_published, room_finished]}\nroom:\n"
    extra += "  enable_full_room_in_webhooks: true\n"
    with Backend(KEY, SECRET) as backend, served(backend.url, extra=extra) as server:
        assert "webhook" not in " ".join(server.node.services.config.inert_keys())

        async def test() -> None:
            async with party(server, lk_room) as guests:
                alice = await guests.join("alice")
                await alice.publish_tone()
                await asyncio.to_thread(backend.wait_for, lambda events: bool(events), "track_published")

        run(test)
        assert backend.story()[0] == ("track_published", "alice", "tone")
        assert backend.events[0].room.enabled_codecs


def test_a_stopped_server_says_goodbye(lk_room: str) -> None:
    """Not SIGKILL: everything is sent before the process ends."""
    with Backend(KEY, SECRET) as backend:
        with served(backend.url) as server:
            client: list[Client] = []

            async def test() -> None:
                client.append(await Client(server, "alice").connect(lk_room))
                await asyncio.to_thread(backend.wait_for, lambda events: len(events) >= 2, "participant_joined")

            run(test)
        assert backend.story()[-2:] == [("participant_left", "alice", ""), ("room_finished", "", "")]


def test_the_log_and_a_receiver_are_killed_in_mid_meeting(lk_room: str) -> None:
    with Backend(KEY, SECRET) as backend, served(backend.url) as server:

        async def test() -> None:
            async with party(server, lk_room) as guests:
                alice = await guests.join("alice")
                server.kill("/journal/webhook-0")
                bob = await guests.join("bob")
                server.kill("/journal")
                await alice.publish_tone()
                await bob.published("alice", "tone")
                server.kill("/journal")
            async with api.LiveKitAPI(server.http_url, KEY, SECRET) as service:
                await service.room.delete_room(api.DeleteRoomRequest(room=lk_room))

        run(test)
        backend.wait_for(over, "room_finished")
    once = list({event.id: event for event in backend.events}.values())
    pairs(once)
    assert [event.event for event in once][:3] == ["room_started", "participant_joined", "participant_joined"]
    assert len(once) == 8


# -- the reference itself


@contextmanager
def reference(url: str, tmp_path: Path) -> Iterator[Any]:
    """LiveKit's own server, if there is one."""
    binary = os.environ.get("LIVEKIT_SERVER", "")
    if not binary:
        pytest.skip("LIVEKIT_SERVER names no livekit-server to compare with")
    port = free_port()
    text = (
        f"port: {port}\nbind_addresses: [127.0.0.1]\nkeys: {{{KEY}: {SECRET}}}\n"
        f"rtc: {{udp_port: {free_port()}, tcp_port: {free_port()}, enable_loopback_candidate: true}}\n"
        f"webhook: {{api_key: {KEY}, urls: ['{url}']}}\n"
    )
    config = tmp_path / "livekit.yaml"
    config.write_text(text)
    with subprocess.Popen([binary, "--config", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            server = Reference(f"ws://127.0.0.1:{port}")
            server.wait()
            yield server
        finally:
            process.kill()


def test_the_reference_tells_the_same_story(lk_room: str, tmp_path: Path) -> None:
    with Backend(KEY, SECRET) as backend, reference(backend.url, tmp_path) as server:

        async def test() -> None:
            await meeting(server, lk_room, backend)

        run(test)
        backend.wait_for(over, "room_finished")
        assert backend.story() == SEQUENCE
        _check_fields([backend.tree(index) for index in range(len(SEQUENCE))])


# -- livekit-server-sdk


@contextmanager
def node_receiver(secret: str = SECRET) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The port, and what it prints, as it comes."""
    if not (NODE / "node_modules" / "livekit-server-sdk").exists() or shutil.which("node") is None:
        pytest.skip("livekit-server-sdk is not installed: bash tests/setup.sh")
    command = ["node", str(NODE / "receive.mjs"), KEY, secret]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        lines: list[dict[str, Any]] = []

        def read(stream: Any) -> None:
            lines.extend(json.loads(line) for line in stream)

        reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield port, lines
        finally:
            process.terminate()
            process.wait(10)
            reader.join(10)


def test_livekit_server_sdk_takes_them(lk_room: str) -> None:
    with Backend(KEY, SECRET) as python, node_receiver() as (port, lines):
        with served(python.url, f"http://127.0.0.1:{port}/hook") as server:

            async def test() -> None:
                await meeting(server, lk_room, python)

            run(test)
            python.wait_for(over, "room_finished")
            server.wait_for(lambda _: len(lines) >= len(SEQUENCE))
        assert [entry.get("error") for entry in lines] == [None] * len(SEQUENCE)
        assert [(e["event"], e.get("identity", ""), e.get("track", "")) for e in lines] == SEQUENCE
        assert [entry["id"] for entry in lines] == [event.id for event in python.events]


def test_livekit_server_sdk_refuses_another_secret(lk_room: str) -> None:
    with node_receiver("b" * 40) as (port, lines), served(f"http://127.0.0.1:{port}/hook") as server:
        headers = {"Authorization": f"Bearer {raw_token(server, video={'roomCreate': True})}"}
        url = f"{server.http_url}/twirp/livekit.RoomService/CreateRoom"
        assert httpx.post(url, json={"name": lk_room}, headers=headers, timeout=LIMIT).status_code == 200
        server.wait_for(lambda _: bool(lines))
    assert "error" in lines[0]


# -- down, and killed


class Reference(Remote):
    def __init__(self, url: str) -> None:
        self.url, self.http_url = url, url.replace("ws", "http", 1)

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.http_url, timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError("the reference did not start")


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Those that were started; none outlives the test."""
    started: list[Process] = []
    yield started
    for process in started:
        process.end(signal.SIGKILL)


async def talk(server: Process, room: str, *, stay: bool) -> list[Client]:
    """Alice speaks to bob; they leave, unless they `stay` until the server is gone."""
    alice, bob = Client(server, "alice"), Client(server, "bob")  # type: ignore[arg-type]
    await alice.connect(room)
    await bob.connect(room)
    await alice.publish_tone()
    await bob.published("alice", "tone")
    if not stay:
        await alice.close()
        await bob.close()
    return [alice, bob]


def test_a_receiver_that_is_down_for_a_meeting_with_the_server_killed_in_between(
    tmp_path: Path, lk_room: str, processes: list[Process]
) -> None:
    backend, other = Backend(KEY, SECRET), Backend(KEY, SECRET)
    with other:
        server = Process(processes, tmp_path, backend.url, other.url)

        async def first() -> None:
            clients = await talk(server, lk_room, stay=True)
            await asyncio.to_thread(other.wait_for, lambda events: len(events) >= 4, "the first meeting")
            server.end(signal.SIGKILL)
            for client in clients:
                await client.close()

        run(first)
        assert backend.events == []
        server = Process(processes, tmp_path, backend.url, other.url)

        async def second() -> None:
            await talk(server, lk_room, stay=False)

        run(second)
        server.end(signal.SIGTERM)
        other.wait_for(lambda events: events[-1].event == "room_finished", "the end at the other receiver")
        server = Process(processes, tmp_path, backend.url, other.url)
        with backend:
            count = len({event.id for event in other.events})
            backend.wait_for(lambda events: len(events) >= count, f"{count} events", limit=90)
            log = server.log()
            server.end(signal.SIGTERM)
    assert backend.errors == other.errors == []
    written = [entry["id"] for entry in log]
    assert [event.id for event in backend.events] == written, "every event, in order, once"
    # The kill may have come between this one's answer and its being noted: then that event is said again, next.
    heard = [event.id for event in other.events]
    again = heard[4:5] if heard[4] == heard[3] else []
    assert heard == written[:4] + again + written[4:]
    pairs(backend.events)
    story = [(name, who) for name, who, _ in backend.story()]
    assert story[:8] == [
        ("room_started", ""),
        ("participant_joined", "alice"),
        ("participant_joined", "bob"),
        ("track_published", "alice"),
        ("track_unpublished", "alice"),  # from here on said after the kill, at the next start
        ("participant_left", "alice"),
        ("participant_left", "bob"),
        ("room_finished", ""),
    ]
    assert story[8] == ("room_started", "")
    cursors = [entry["cursor"] for entry in log]
    assert cursors == sorted(set(cursors))


def test_a_cursor_holds_over_a_kill(tmp_path: Path, lk_room: str, processes: list[Process]) -> None:
    server = Process(processes, tmp_path)
    headers = {"Authorization": f"Bearer {raw_token(server, video={'roomCreate': True})}"}
    url = f"{server.http_url}/twirp/livekit.RoomService/CreateRoom"
    assert httpx.post(url, json={"name": lk_room}, headers=headers, timeout=LIMIT).status_code == 200
    before = server.log()
    server.end(signal.SIGKILL)
    server = Process(processes, tmp_path)
    try:
        assert [entry["event"] for entry in server.log(before[-1]["cursor"])] == ["room_finished"]
        assert server.log()[: len(before)] == before
    finally:
        server.end(signal.SIGKILL)


def test_two_servers_do_not_share_a_directory(tmp_path: Path, processes: list[Process]) -> None:
    server = Process(processes, tmp_path)
    try:
        ports = {"port": 0, "rtc": {"udp_port": 0, "tcp_port": 0}}
        config = json.dumps({"keys": {KEY: SECRET}, **ports, "events": {"directory": str(tmp_path)}})
        command = [sys.executable, "-m", "lkactor", "serve", "--config-body", config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "events.directory" in done.stderr
        assert "another server" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        server.end(signal.SIGTERM)
