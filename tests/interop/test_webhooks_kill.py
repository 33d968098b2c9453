"""A meeting with media whose server is killed twice while no webhook receiver is up: nothing that happened is lost.

The truth here is what the clients were told, not a second receiver: every participant and track that somebody saw must
be among the events, in the order of its room, once per id.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from livekit import api
from livekit.protocol import models
from support.backend import Backend
from support.interop import LIMIT, MARKS, Client, hears_tone, raw_token, run
from support.served import KEY, SECRET, Process, free_port, pairs

from lkactor.testing import LkServer

pytestmark = MARKS

ROOM, LOBBY = "meeting", "lobby"
SHUTDOWN = models.DisconnectReason.SERVER_SHUTDOWN


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Those that were started; none outlives the test."""
    started: list[Process] = []
    yield started
    for process in started:
        process.end(signal.SIGKILL)


@dataclass
class Seen:
    """What clients were told, and so must reach the receiver. One list per life of the room."""

    participants: list[set[tuple[str, str]]] = field(default_factory=list)
    """(identity, sid)."""
    tracks: list[set[tuple[str, str]]] = field(default_factory=list)
    """(identity, sid)."""

    def note(self, *clients: Client) -> None:
        """As the first of them sees the room, itself included."""
        everyone = [clients[0].local, *clients[0].room.remote_participants.values()]
        self.participants.append({(person.identity, person.sid) for person in everyone})
        self.tracks.append(
            {
                (person.identity, sid)
                for person in everyone
                for sid in person.track_publications
                if sid.startswith("TR_")
            }
        )


class FatalBackend(Backend):
    """Calls `fatal` in the middle of one delivery: the event has arrived, its answer never does."""

    fatal: Callable[[], None] | None = None

    def take(self, headers: dict[str, str], body: bytes) -> int:
        status = super().take(headers, body)
        fatal = self.fatal
        if fatal is not None and len(self.events) >= 5:
            self.fatal = None
            fatal()
        return status


async def first_life(server: Process, seen: Seen) -> tuple[Client, Client]:
    """Two talk to each other, and the server is killed with both inside."""
    async with api.LiveKitAPI(server.http_url, KEY, SECRET) as service:
        await service.room.create_room(api.CreateRoomRequest(name=LOBBY, empty_timeout=3600))
    alice, bob = Client(server, "alice"), Client(server, "bob")  # type: ignore[arg-type]
    await asyncio.gather(alice.connect(ROOM), bob.connect(ROOM))
    await alice.publish_tone()
    await bob.publish_tone(frequency=880.0)
    await asyncio.gather(
        hears_tone(await bob.track("alice", "tone")), hears_tone(await alice.track("bob", "tone"), 880.0)
    )
    seen.note(bob, alice)
    assert len(seen.participants[-1]) == len(seen.tracks[-1]) == 2
    return alice, bob


async def second_life(server: Process, seen: Seen, alice: Client, bob: Client, marks: tuple[int, int]) -> Client:
    """They come back by themselves, somebody new comes, and the tones go on."""
    await alice.event("reconnected", since=marks[0], limit=60)
    await bob.event("reconnected", since=marks[1], limit=60)
    carol = Client(server, "carol")  # type: ignore[arg-type]
    await carol.connect(ROOM)
    await carol.publish_tone(frequency=660.0)
    await asyncio.gather(
        hears_tone(await carol.track("alice", "tone")),
        hears_tone(await carol.track("bob", "tone"), 880.0),
        hears_tone(await alice.track("carol", "tone", since=marks[0]), 660.0),
    )
    seen.note(carol)
    assert len(seen.participants[-1]) == 3
    return carol


def test_a_killed_meeting_is_told_whole_to_a_receiver_that_was_down(tmp_path: Path, processes: list[Process]) -> None:
    backend, seen = FatalBackend(KEY, SECRET), Seen()
    ports = (free_port(), free_port(), free_port())

    def served() -> Process:
        return Process(processes, tmp_path, backend.url, ports=ports)

    async def meeting() -> None:
        server = served()
        alice, bob = await first_life(server, seen)
        marks = alice.mark(), bob.mark()
        await asyncio.to_thread(server.end, signal.SIGKILL)
        server = await asyncio.to_thread(served)
        carol = await second_life(server, seen, alice, bob, marks)
        await asyncio.to_thread(server.end, signal.SIGKILL)
        await asyncio.gather(*(client.close() for client in (alice, bob, carol)))

    run(meeting)
    assert backend.events == []
    server = served()
    backend.fatal = lambda: server.end(signal.SIGKILL)
    with backend:
        backend.wait_for(lambda events: len(events) >= 5, "the events until the kill", limit=90)
        processes[-1]._process.wait(20)
        server = served()
        whole = server.log()
        backend.wait_for(lambda events: {e.id for e in events} >= {e["id"] for e in whole}, "all of the log", limit=90)
        server.end(signal.SIGTERM)
    _check(backend, seen, whole)


def _check(backend: Backend, seen: Seen, log: list[dict[str, Any]]) -> None:
    assert backend.errors == []
    once = list({event.id: event for event in backend.events}.values())
    again: dict[str, int] = {}
    for event, before in zip(backend.events[5:], range(5, len(backend.events)), strict=True):
        if event.id in {earlier.id for earlier in backend.events[:before]}:
            again[event.room.sid] = again.get(event.room.sid, 0) + 1
    assert set(again.values()) <= {1}, "at most the event of each room that was under way"
    assert len(set(backend.bodies)) == len(once), "and in the same words"
    assert {event.id for event in once} == {entry["id"] for entry in log}
    for room in (ROOM, LOBBY):
        of_room = [event for event in once if event.room.name == room]
        assert [event.id for event in of_room] == [e["id"] for e in log if e["room"]["name"] == room], (
            "the room's order"
        )
        pairs(of_room)
    assert [e.event for e in once if e.room.name == LOBBY] == ["room_started", "room_finished"]
    lives = [
        list(group) for _, group in itertools.groupby((e for e in once if e.room.name == ROOM), lambda e: e.room.sid)
    ]
    assert len(lives) == 2, "one life of the room per life of the server that had clients"
    for life, people, tracks in zip(lives, seen.participants, seen.tracks, strict=True):
        _check_life(life, people, tracks)


def _check_life(life: list[Any], people: set[tuple[str, str]], tracks: set[tuple[str, str]]) -> None:
    def of(name: str) -> list[Any]:
        return [event for event in life if event.event == name]

    assert (life[0].event, life[-1].event) == ("room_started", "room_finished")
    assert {(e.participant.identity, e.participant.sid) for e in of("participant_joined")} == people
    assert {(e.participant.identity, e.track.sid) for e in of("track_published")} >= tracks
    assert {e.participant.disconnect_reason for e in of("participant_left")} == {SHUTDOWN}
    assert of("participant_connection_aborted") == []
    times = [event.created_at for event in life]
    assert times == sorted(times)


def test_the_api_answers_when_a_slow_disk_has_the_event() -> None:
    """What the test with kills below would only meet by chance."""
    with LkServer(f"keys: {{{KEY}: {SECRET}}}") as server:
        journal = server.node.services.journal
        call = journal.call

        async def slow(function: Callable[..., Any], *args: object) -> Any:
            await trio.sleep(0.3)
            return await call(function, *args)

        journal.call = slow  # type: ignore[method-assign]
        headers = {"Authorization": f"Bearer {raw_token(server, video={'roomCreate': True})}"}
        url = f"{server.http_url}/twirp/livekit.RoomService/CreateRoom"
        before = journal.journal.last
        assert httpx.post(url, json={"name": LOBBY}, headers=headers, timeout=LIMIT).status_code == 200
        assert journal.journal.last > before


@pytest.mark.parametrize("answers", [1, 7, 40])
def test_what_the_api_answered_is_in_the_log_whenever_the_kill_comes(
    tmp_path: Path, processes: list[Process], answers: int
) -> None:
    """Four callers at once; the kill follows the n-th answer with nothing in between."""
    server = Process(processes, tmp_path)
    headers = {"Authorization": f"Bearer {raw_token(server, video={'roomCreate': True})}"}
    url = f"{server.http_url}/twirp/livekit.RoomService/CreateRoom"
    answered: list[tuple[str, str]] = []

    def call(caller: int) -> None:
        with httpx.Client(headers=headers, timeout=LIMIT) as client:
            for number in itertools.count():
                try:
                    answer = client.post(url, json={"name": f"room-{caller}-{number}"})
                except httpx.HTTPError:
                    return  # It is gone.
                assert answer.status_code == 200
                answered.append((answer.json()["name"], answer.json()["sid"]))
                if len(answered) == answers:
                    server._process.kill()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    server.end(signal.SIGKILL)
    server = Process(processes, tmp_path)
    log = server.log()
    server.end(signal.SIGKILL)
    started = [(e["room"]["name"], e["room"]["sid"]) for e in log if e["event"] == "room_started"]
    finished = [(e["room"]["name"], e["room"]["sid"]) for e in log if e["event"] == "room_finished"]
    assert set(answered) <= set(started)
    assert sorted(started) == sorted(finished) == sorted(set(started))
    assert len({entry["id"] for entry in log}) == len(log)
