"""When everything is collected."""

from __future__ import annotations

from actors.collecting import MANY, Need
from lkactor.eventlog import LogEntry


def entries(need: Need, joined: int = 0, left: int = 0) -> None:
    for event, times in (("participant.joined", joined), ("participant.left", left)):
        for _ in range(times):
            need.observe(LogEntry(at=0.0, room="r", participant="p", event=event, detail=""))


def test_nobody_left_nothing_to_do() -> None:
    need = Need()
    entries(need, joined=1000)
    assert not need.due(quiet=True)


def test_at_once_when_quiet_and_who_left_has_ended() -> None:
    need = Need()
    entries(need, joined=2, left=1)
    assert not need.due(quiet=True)
    assert need.due(quiet=True)
    need.done()
    assert not need.due(quiet=True)


def test_not_while_media_flow_until_many_have_left() -> None:
    need = Need()
    entries(need, joined=MANY, left=MANY - 1)
    assert not need.due(quiet=False)
    assert not need.due(quiet=False)
    entries(need, left=1)
    assert need.due(quiet=False)


def test_a_full_house_waits_until_four_times_as_many_have_left() -> None:
    need = Need()
    entries(need, joined=5 * MANY, left=4 * MANY - 1)
    assert not need.due(quiet=False), "they are 1001 still, and 3999 have left"
    entries(need, left=1)
    assert need.due(quiet=False)
