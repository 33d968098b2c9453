"""A room that has much to say does not hold the event loop for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from support.actor_leaks import run_actors
from support.domain_world import Guest, settle, world
from support.turns import CountedTurns

from actors.messages.room import UpdateRoomMetadata

MANY, IN_TIME = 24, 5
"""Members, and how many can be told something before a turn is long. Nothing else takes time."""


@pytest.mark.parametrize("many", [IN_TIME, MANY])
def test_of_a_large_room_some_are_told_at_once_and_the_rest_in_later_turns_in_order(many: int) -> None:
    turns = CountedTurns(limit=1.0)
    told: list[tuple[int, str]] = []

    def listen(guest: Guest) -> None:
        send = guest.sink.send

        def heard(response: Any) -> bool:
            if response.kind == "room_update":
                turns.spent += turns.limit / IN_TIME
                told.append((turns.number, f"{guest.intent.identity} {response.message.room_update.room.metadata}"))
            return send(response)

        guest.sink.send = heard  # type: ignore[method-assign]

    async def main() -> None:
        async with world(turns=turns) as hall:
            guests = [await hall.join(f"guest-{n}") for n in range(many)]
            for guest in guests:
                listen(guest)
            room = await hall.find()
            assert room is not None
            room.tell(UpdateRoomMetadata("first"))
            room.tell(UpdateRoomMetadata("second"))
            await settle()
            assert Counter(what for _, what in told) == {
                f"guest-{n} {metadata}": 1 for n in range(many) for metadata in ("first", "second")
            }
            assert all(
                [update.room.metadata for update in guest.heard("room_update")][-2:] == ["first", "second"]
                for guest in guests
            )

    run_actors(main, instruments=[turns])
    first = [turn for turn, what in told if what.endswith("first")]
    if many <= IN_TIME:
        assert len(set(first)) == 1
    else:
        # What the room says in a turn, and the share of those who have waited for it.
        assert max(Counter(first).values()) <= 2 * IN_TIME
