"""The pytest plugin: `lk_server`, `lk_room`, `lk_token`. Loaded by its entry point; no conftest needed.

A failed test that used `lk_room` is followed by the server's record of that room.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOMS = itertools.count(1)


@pytest.fixture(scope="session")
def lk_server() -> Iterator[Any]:
    """One LiveKit server for the whole run, on loopback: `.url`, `.http_url`, `.api_key`, `.api_secret`, `.token()`."""
    from lkactor.testing.server import LkServer

    with LkServer() as server:
        yield server


@pytest.fixture
def lk_room(lk_server: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a room that no other test uses. Afterwards every room that was made meanwhile is closed, and nothing
    may be left running of it: no actor, no connection, no timer. Raises LeakError."""
    name = f"{request.node.name[:80]}-{next(ROOMS)}"
    request.node.stash[ROOM_KEY] = (lk_server, name)
    tasks, rooms = lk_server.tasks(), set(lk_server.rooms())
    yield name
    for made in lk_server.rooms():
        if made not in rooms:
            lk_server.close_room(made)
    lk_server.check_no_leaks(tasks=tasks)


@pytest.fixture
def lk_token(lk_server: Any, lk_room: str) -> Callable[..., str]:
    """`lk_token("alice", **grants)`: a token for `lk_room`."""

    def token(identity: str, **grants: object) -> str:
        return str(lk_server.token(identity=identity, room=lk_room, **grants))

    return token


ROOM_KEY = pytest.StashKey[tuple[Any, str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed and ROOM_KEY in item.stash:
        server, room = item.stash[ROOM_KEY]
        lines = [str(entry) for entry in server.events() if entry.room in (room, "")][-200:]
        report.sections.append((f"lkactor: what happened in room {room}", "\n".join(lines)))
    return report
