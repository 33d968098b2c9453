"""`GET /events` as any HTTP client sees it: who may, from where, in which order; and `lkactor events tail`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from support.interop import LIMIT, MARKS, Server, raw_token

from lkactor.testing import LkServer

pytestmark = MARKS

ALL = {"roomAdmin": True, "roomList": True}


def call(server: Server, method: str, grants: dict[str, Any], **body: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {raw_token(server, video=grants)}"}
    answer = httpx.post(
        f"{server.http_url}/twirp/livekit.RoomService/{method}", json=body, headers=headers, timeout=LIMIT
    )
    assert answer.status_code == 200, answer.text
    tree: dict[str, Any] = answer.json()
    return tree


def open_and_close(server: Server, *rooms: str) -> None:
    for room in rooms:
        call(server, "CreateRoom", {"roomCreate": True}, name=room)
    for room in rooms:
        call(server, "DeleteRoom", {"roomCreate": True}, room=room)


class Stream:
    """The frames of a text/event-stream as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def frames(self) -> Iterator[dict[str, str]]:
        frame: dict[str, str] = {}
        for line in self._lines:
            if not line:
                if "data" in frame:
                    yield frame
                frame = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                frame[name] = value

    def take(self, count: int) -> list[dict[str, str]]:
        frames = self.frames()
        return [next(frames) for _ in range(count)]


@contextmanager
def stream(server: Server, grants: dict[str, Any] | None = None, **query: Any) -> Iterator[Stream]:
    headers = {"Authorization": f"Bearer {raw_token(server, video=ALL if grants is None else grants)}"}
    last = query.pop("last_event_id", None)
    if last is not None:
        headers["Last-Event-ID"] = last
    with httpx.stream("GET", f"{server.http_url}/events", params=query, headers=headers, timeout=LIMIT) as answer:
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


def finished(server: Server, **query: Any) -> list[dict[str, str]]:
    """Everything, up to the end of what there is."""
    with stream(server, follow=0, **query) as events:
        return list(events.frames())


def test_events_come_while_they_happen_with_cursor_and_the_webhook_s_json(lk_server: Server, lk_room: str) -> None:
    with stream(lk_server) as events:
        assert events.answer.headers["content-type"] == "text/event-stream"
        open_and_close(lk_server, lk_room)
        started, ended = events.take(2)
    assert (started["event"], ended["event"]) == ("room_started", "room_finished")
    assert int(started["id"]) < int(ended["id"])
    body = json.loads(started["data"])
    assert body["event"] == "room_started"
    assert body["id"].startswith("EV_")
    assert body["room"]["name"] == lk_room


def test_a_cursor_goes_on_where_the_last_stream_ended(lk_server: Server, lk_room: str) -> None:
    open_and_close(lk_server, lk_room, lk_room + "2")
    frames = finished(lk_server, last=4)
    assert [frame["event"] for frame in frames] == ["room_started", "room_started", "room_finished", "room_finished"]
    for index, frame in enumerate(frames):
        assert finished(lk_server, cursor=frame["id"]) == frames[index + 1 :]
        assert finished(lk_server, last_event_id=frame["id"], cursor=0) == frames[index + 1 :]
    everything = finished(lk_server, cursor=0)
    assert everything[-4:] == frames
    assert finished(lk_server, cursor=0, room=lk_room) == [frames[0], frames[2]]
    assert finished(lk_server, cursor=0, event="room_finished,nothing")[-2:] == frames[2:]
    assert finished(lk_server) == []


def test_a_cursor_of_another_log_is_told_of_the_gap(lk_server: Server, lk_room: str) -> None:
    open_and_close(lk_server, lk_room)
    frames = finished(lk_server, cursor=17)
    assert frames[0]["event"] == "gap"
    assert "id" not in frames[0]
    assert json.loads(frames[0]["data"])["after"] == 17
    assert len(frames) >= 3


def test_a_room_s_admin_sees_that_room_only(lk_server: Server, lk_room: str) -> None:
    open_and_close(lk_server, lk_room, lk_room + "2")
    own = {"roomAdmin": True, "room": lk_room}
    for grants in (own, {**own, "roomList": True}):
        with stream(lk_server, grants, cursor=0, follow=0) as events:
            rooms = {json.loads(frame["data"])["room"]["name"] for frame in events.frames()}
        assert rooms == {lk_room}


@pytest.mark.parametrize(
    ("grants", "query", "status"),
    [
        (None, {}, 401),
        ({}, {}, 403),
        ({"roomList": True}, {}, 403),
        ({"roomAdmin": True}, {}, 403),
        ({"roomJoin": True, "room": "a"}, {}, 403),
        ({"roomAdmin": True, "room": "a"}, {"room": "b"}, 403),
        (ALL, {"cursor": "x"}, 400),
        (ALL, {"cursor": "-1"}, 400),
        (ALL, {"cursor": "9" * 30}, 400),
        (ALL, {"last": "²"}, 400),
    ],
)
def test_refusals(lk_server: Server, grants: dict[str, Any] | None, query: dict[str, str], status: int) -> None:
    headers = {"Origin": "https://a.example"}
    if grants is not None:
        headers["Authorization"] = f"Bearer {raw_token(lk_server, video=grants)}"
    answer = httpx.get(f"{lk_server.http_url}/events", params=query, headers=headers, timeout=LIMIT)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_a_browser_s_event_source_can_send_its_token_in_the_query(lk_server: Server, lk_room: str) -> None:
    query = {"access_token": raw_token(lk_server, video=ALL), "cursor": "0", "follow": "0"}
    answer = httpx.get(f"{lk_server.http_url}/events", params=query, timeout=LIMIT)
    assert answer.status_code == 200
    bad = httpx.get(f"{lk_server.http_url}/events", params={"access_token": "no"}, timeout=LIMIT)
    assert bad.status_code == 401
    assert httpx.post(f"{lk_server.http_url}/events", params=query, timeout=LIMIT).status_code == 405


def test_streams_that_were_left_are_given_up(lk_server: Any, lk_room: str) -> None:
    for _ in range(120):  # more than there may be at a time
        with stream(lk_server):
            pass
    open_and_close(lk_server, lk_room)
    assert len(finished(lk_server, last=2)) == 2


def test_an_open_stream_keeps_no_server_from_stopping() -> None:
    server = LkServer().start()
    with stream(server) as events:
        before = time.monotonic()
        server.stop()
        with contextlib.suppress(httpx.HTTPError):
            list(events.frames())
        assert time.monotonic() - before < 8, "no deadline of a stream is waited for"


# -- the command line


def tail(server: Server, *arguments: str, secret: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": server.api_key,
        "LIVEKIT_API_SECRET": secret or server.api_secret,
    }
    command = [sys.executable, "-m", "lkactor", "events", "tail", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_tail_prints_the_last_events(lk_server: Server, lk_room: str) -> None:
    open_and_close(lk_server, lk_room)
    done = tail(lk_server, "--last", "2", "--room", lk_room)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert "room_started" in first
    assert lk_room in first
    assert "room_finished" in second
    cursor = first.split()[0]
    # What other tests have left is heard of any time.
    assert tail(lk_server, "--cursor", cursor, "--room", lk_room).stdout == second + "\n"


def test_the_last_ones_are_those_of_the_room(lk_server: Server, lk_room: str) -> None:
    """Whatever has happened elsewhere since."""
    open_and_close(lk_server, lk_room)
    open_and_close(lk_server, *(f"{lk_room}-{number}" for number in range(3)))
    seen = [json.loads(frame["data"]) for frame in finished(lk_server, last=2, room=lk_room)]
    assert [(tree["event"], tree["room"]["name"]) for tree in seen] == [
        ("room_started", lk_room),
        ("room_finished", lk_room),
    ]


def test_tail_in_json(lk_server: Server, lk_room: str) -> None:
    open_and_close(lk_server, lk_room)
    done = tail(lk_server, "--last", "2", "--json", "--room", lk_room)
    trees = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(tree["event"]["event"], tree["event"]["room"]["name"]) for tree in trees] == [
        ("room_started", lk_room),
        ("room_finished", lk_room),
    ]
    assert trees[0]["cursor"] < trees[1]["cursor"]
    again = tail(lk_server, "--cursor", str(trees[0]["cursor"]), "--json", "--room", lk_room)
    assert again.stdout == done.stdout.splitlines()[1] + "\n"


def test_tail_follows(lk_server: Server, lk_room: str) -> None:
    environ = {
        "LIVEKIT_URL": lk_server.http_url,
        "LIVEKIT_API_KEY": lk_server.api_key,
        "LIVEKIT_API_SECRET": lk_server.api_secret,
    }
    open_and_close(lk_server, lk_room)
    command = [sys.executable, "-m", "lkactor", "events", "tail", "--follow", "--last", "1"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "room_finished" in process.stdout.readline()
        open_and_close(lk_server, lk_room + "2")
        assert "room_started" in process.stdout.readline()
        assert lk_room + "2" in process.stdout.readline()
        process.terminate()
        process.communicate(timeout=20)


def test_tail_says_what_is_wrong(lk_server: Server) -> None:
    wrong = tail(lk_server, secret="x" * 40)
    assert wrong.returncode == 4
    assert "401" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    done = subprocess.run(
        [sys.executable, "-m", "lkactor", "events", "tail", "--url", "http://127.0.0.1:9"],
        env={"LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s" * 40},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
