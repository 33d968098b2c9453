"""What a whole room is told is encoded once for each form that somebody wants, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from livekit.protocol import models, rtc
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, settle, world

from actors.messages.participant import QualitiesUpdated, SpeakersUpdated, UpdateParticipant
from actors.messages.room import UpdateRoomMetadata
from lkactor.room.updates import INTERVAL, SMALL_ROOM
from lkactor.signal import outgoing
from lkactor.signal.codec import encode_response

MANY = 12
ACTIVE = models.ParticipantInfo.State.ACTIVE
Encode = Callable[..., bytes | str]


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a response of each kind was encoded: "update binary"."""
    counted: Counter[str] = Counter()

    def encode(response: Any, *, text: bool) -> bytes | str:
        counted[f"{response.WhichOneof('message')} {'text' if text else 'binary'}"] += 1
        return encode_response(response, text=text)

    monkeypatch.setattr(outgoing, "encode_response", encode)
    return counted


def virtual(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world() as hall:
            await test(hall)

    run_actors(main)


def flush(guests: list[Guest], *, text: bool = False, deflate: bool = False) -> None:
    """What their WebSockets do with what they have been sent."""
    for guest in guests:
        for response in guest.sink.sent:
            response.frame(text=text, deflate=deflate)


def forget(guests: list[Guest]) -> None:
    for guest in guests:
        guest.sink.sent.clear()
        guest.sink.heard.clear()


def test_an_update_of_a_participant_is_encoded_once_for_everybody(encodings: Counter[str]) -> None:
    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(MANY)]
        forget(guests)
        await guests[0].ref.ask(UpdateParticipant("", "new", {}, None), timeout=5.0)
        await settle()
        flush(guests)
        assert all(guest.heard("update")[-1].participants[0].metadata == "new" for guest in guests)
        # The first guest is told beforehand that it has been changed, and has a new token.
        assert encodings == {"update binary": 1 + 1, "refresh_token binary": 1}

    virtual(test)


def test_each_form_is_encoded_once(encodings: Counter[str]) -> None:
    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(MANY)]
        forget(guests)
        await hall.join("late")
        flush(guests[:4])
        flush(guests[4:8], text=True)
        flush(guests[8:], deflate=True)
        updates = len(guests[0].heard("update"))
        assert updates and encodings == {"update binary": updates, "update text": updates}
        assert len({id(guest.sink.sent[0]) for guest in guests}) == 1

    virtual(test)


def test_older_and_newer_clients_have_one_message_each(encodings: Counter[str]) -> None:
    """A participant that another one of its identity replaces is gone for older clients only (livekit-surface 2.3)."""

    async def test(hall: World) -> None:
        newer = [await hall.join(f"newer-{n}") for n in range(3)]
        older = [await hall.join(f"older-{n}", protocol=11) for n in range(3)]
        first = await hall.join("twin")
        forget([*newer, *older])
        await hall.join("twin", media=False)
        flush([*newer, *older])
        gone = models.ParticipantInfo.State.DISCONNECTED
        assert first.sid
        assert all(guest.states_of("twin") == [gone] for guest in older)
        assert all(guest.states_of("twin") == [] for guest in newer)
        assert encodings == {"update binary": 1}

    virtual(test)


def test_news_of_the_room_are_encoded_once(encodings: Counter[str]) -> None:
    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(MANY)]
        room = await hall.find()
        assert room is not None
        forget(guests)
        await room.ask(UpdateRoomMetadata("new"), timeout=5.0)
        await settle()
        flush(guests)
        assert all(guest.heard("room_update")[0].room.metadata == "new" for guest in guests)
        assert encodings == {"room_update binary": 1}

    virtual(test)


def test_speakers_and_qualities_are_encoded_once_for_all_who_hear_the_same(encodings: Counter[str]) -> None:
    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(3)]
        listener = guests[0]
        forget(guests)
        speakers = SpeakersUpdated((models.SpeakerInfo(sid=listener.sid, level=0.5, active=True),))
        quality = rtc.ConnectionQualityInfo(participant_sid=listener.sid, quality=models.ConnectionQuality.GOOD)
        qualities = QualitiesUpdated({listener.sid: quality})
        for _ in range(4):  # As four clients that receive the same publishers.
            listener.ref.tell(speakers)
            listener.ref.tell(qualities)
        await settle()
        flush(guests)
        assert len(listener.heard("speakers_changed")) == len(listener.heard("connection_quality")) == 4
        assert encodings == {"speakers_changed binary": 1, "connection_quality binary": 1}

    virtual(test)


def test_viewers_who_come_to_a_large_room_are_told_of_together(encodings: Counter[str]) -> None:
    """Each arrival told to everyone at once would cost the square of their number (livekit-surface 2.3)."""

    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(SMALL_ROOM)]
        forget(guests)
        late = [await hall.join(f"late-{n}") for n in range(10)]
        assert not any(guest.heard("update") for guest in guests)
        own = [update.participants[0].identity for guest in late for update in guest.heard("update")]
        assert own == [f"late-{n}" for n in range(10)]  # Of itself each hears at once.
        await trio.sleep(INTERVAL)
        await settle()
        for guest in [*guests, *late]:
            told = guest.heard("update")[-1].participants
            assert [(info.identity, info.state) for info in told] == [(f"late-{n}", ACTIVE) for n in range(10)]
        flush(guests)
        assert encodings["update binary"] == 1

    virtual(test)


def test_in_a_large_room_what_an_application_changes_is_told_at_once() -> None:
    async def test(hall: World) -> None:
        guests = [await hall.join(f"guest-{n}") for n in range(SMALL_ROOM)]
        late = await hall.join("late")
        forget(guests)
        await late.ref.ask(UpdateParticipant("", "new", {}, None), timeout=5.0)
        await settle()
        assert all(guest.heard("update")[0].participants[0].metadata == "new" for guest in guests)
        await trio.sleep(INTERVAL)
        await settle()
        assert all(len(guest.heard("update")) == 1 for guest in guests)  # It has not come again, as it was.
        late.ref.kill()
        await settle()
        await trio.sleep(INTERVAL)
        await settle()
        assert all(guest.states_of("late")[-1] == models.ParticipantInfo.State.DISCONNECTED for guest in guests)

    virtual(test)
