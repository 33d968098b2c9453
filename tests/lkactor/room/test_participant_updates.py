"""Which news of participants wait in a large room."""

from __future__ import annotations

from typing import Any

import pytest
from livekit.protocol import models

from lkactor.room.updates import MAX_TOGETHER, WaitingUpdates, can_wait

State = models.ParticipantInfo.State


def info(sid: str = "PA_a", **fields: Any) -> models.ParticipantInfo:
    return models.ParticipantInfo(sid=sid, identity=sid.lower(), **fields)


@pytest.mark.parametrize("state", [State.JOINED, State.ACTIVE, State.DISCONNECTED])
def test_what_becomes_of_a_viewer_can_wait(state: Any) -> None:
    assert can_wait(info(state=State.JOINING), info(state=state, version=2))


@pytest.mark.parametrize(
    "news",
    [
        {"is_publisher": True},
        {"name": "Al"},
        {"metadata": "m"},
        {"attributes": {"a": "b"}},
        {"permission": models.ParticipantPermission(can_publish=True)},
        {"tracks": [models.TrackInfo(sid="TR_1")]},
        {"data_tracks": [models.DataTrackInfo(sid="DT_1")]},
    ],
)
def test_what_others_see_or_hear_by_cannot(news: dict[str, Any]) -> None:
    assert not can_wait(info(state=State.ACTIVE), info(state=State.ACTIVE, **news))
    assert not can_wait(info(state=State.ACTIVE, **news), info(state=State.ACTIVE))


def test_a_publisher_s_end_cannot() -> None:
    assert not can_wait(info(is_publisher=True), info(is_publisher=True, state=State.DISCONNECTED))


def test_the_latest_of_each_in_the_order_of_the_news() -> None:
    waiting = WaitingUpdates()
    assert waiting.add(info("PA_a", version=1))
    assert not waiting.add(info("PA_b"))
    assert not waiting.add(info("PA_a", version=2))
    waiting.add(info("PA_c"))
    waiting.told("PA_c")
    waiting.told("PA_never")
    assert [[(i.sid, i.version) for i in infos] for infos in waiting.take()] == [[("PA_b", 0), ("PA_a", 2)]]
    assert waiting.take() == []
    assert waiting.add(info("PA_a"))


def test_very_many_are_several_messages() -> None:
    waiting = WaitingUpdates()
    for n in range(2 * MAX_TOGETHER + 1):
        waiting.add(info(f"PA_{n}"))
    assert [len(infos) for infos in waiting.take()] == [MAX_TOGETHER, MAX_TOGETHER, 1]
