"""`lkactor serve` as a process of its own, to be killed and started again; and what its events must add up to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from livekit import api
from support.interop import LIMIT, raw_token

KEY, SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Remote:
    """A server in another process."""

    api_key, api_secret = KEY, SECRET
    url = http_url = ""

    def token(self, identity: str = "", room: str = "", **grants: Any) -> str:
        video = api.VideoGrants(room_join=True, room=room, **grants)
        return api.AccessToken(KEY, SECRET).with_identity(identity).with_grants(video).to_jwt()


class Process(Remote):
    """`python -m lkactor serve` as a process of its own, with a directory for its events."""

    def __init__(
        self,
        processes: list[Process],
        directory: Path,
        *urls: str,
        ports: tuple[int, int, int] = (0, 0, 0),
        **more: Any,
    ) -> None:
        """`ports`: of HTTP, of UDP, of TCP; 0: any. `more`: further keys of the configuration."""
        http, udp, tcp = ports
        config: dict[str, Any] = {
            "keys": {KEY: SECRET},
            "port": http,
            "bind_addresses": ["127.0.0.1"],
            "rtc": {"udp_port": udp, "tcp_port": tcp},
            "webhook": {"api_key": KEY, "urls": list(urls)},
            "events": {"directory": str(directory)},
            **more,
        }
        command = [sys.executable, "-m", "lkactor", "serve", "--config-body", json.dumps(config)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        processes.append(self)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "ws://" in line:
                self.url = line.split()[-1]
                break
        else:
            raise AssertionError("the server did not start")
        self.http_url = self.url.replace("ws", "http", 1)

    def end(self, how: signal.Signals) -> None:
        """No error if it has ended."""
        self._process.send_signal(how)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def log(self, cursor: int = 0) -> list[dict[str, Any]]:
        """Everything in `/events` behind the cursor."""
        headers = {"Authorization": f"Bearer {raw_token(self, video={'roomAdmin': True, 'roomList': True})}"}
        query = {"cursor": str(cursor), "follow": "0"}
        answer = httpx.get(f"{self.http_url}/events", params=query, headers=headers, timeout=LIMIT)
        assert answer.status_code == 200
        frames = []
        for block in answer.text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in fields:
                assert fields["event"] != "gap"
                frames.append({"cursor": int(fields["id"]), **json.loads(fields["data"])})
        return frames


def pairs(events: list[Any]) -> None:
    """Whatever began has ended, in order: rooms, participants, tracks."""
    opened: list[tuple[str, str]] = []
    for event in events:
        match event.event:
            case "room_started":
                opened.append(("room", event.room.sid))
            case "room_finished":
                opened.remove(("room", event.room.sid))
                assert not opened, "nobody is left in a room that is over"
            case "participant_joined":
                assert ("room", event.room.sid) in opened
                opened.append(("participant", event.participant.sid))
            case "participant_left":
                opened.remove(("participant", event.participant.sid))
            case "track_published":
                assert ("participant", event.participant.sid) in opened
                opened.append(("track", event.track.sid))
            case "track_unpublished":
                assert ("participant", event.participant.sid) in opened
                opened.remove(("track", event.track.sid))
    assert opened == []
