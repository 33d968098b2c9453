"""LiveKit's own command line `lk` against an lkactor server, unchanged; `LK_CLI` names the program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.interop import LIMIT, MARKS, Server
from support.made_media import make_video

LK = os.environ.get("LK_CLI") or shutil.which("lk") or ""
pytestmark = [*MARKS, pytest.mark.skipif(not LK, reason="there is no lk: see tests/interop/README.md")]


def environment(server: Server, home: Path) -> dict[str, str]:
    keys = {"LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.api_key, "LIVEKIT_API_SECRET": server.api_secret}
    return {"PATH": os.environ["PATH"], "HOME": str(home), **keys}


def lk(server: Server, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LK, *words], env=environment(server, home), capture_output=True, text=True, timeout=LIMIT)


def said(server: Server, home: Path, *words: str) -> str:
    done = lk(server, home, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def happened(server: Any, room: str, event: str) -> None:
    server.wait_for(lambda _: any(entry.event == event for entry in server.events(room)), LIMIT)


def test_rooms(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    said(lk_server, tmp_path, "room", "create", "--empty-timeout", "100", lk_room)
    assert lk_room in said(lk_server, tmp_path, "room", "list")
    (room,) = json.loads(lk(lk_server, tmp_path, "room", "list", "--json", lk_room).stdout)["rooms"]
    assert (room["name"], room["emptyTimeout"]) == (lk_room, 100)
    said(lk_server, tmp_path, "room", "update", "--metadata", "two", lk_room)
    assert '"two"' in said(lk_server, tmp_path, "room", "list", "--json", lk_room)
    assert f"deleted room {lk_room}" in said(lk_server, tmp_path, "room", "delete", lk_room)
    gone = lk(lk_server, tmp_path, "room", "delete", lk_room)
    assert gone.returncode == 1
    assert "not_found" in gone.stdout + gone.stderr


def test_a_participant_of_lk_is_seen_muted_moved_and_removed(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    video = tmp_path / "v.ivf"
    make_video(video, "video/vp8", seconds=4)
    joined = subprocess.Popen(
        [LK, "room", "join", "--identity", "bot", "--publish", str(video), lk_room],
        env=environment(lk_server, tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        happened(lk_server, lk_room, "track.published")
        assert "bot (ACTIVE)" in said(lk_server, tmp_path, "room", "participants", "list", lk_room)
        who = ("--room", lk_room, "--identity", "bot")
        found = re.search(r"TR_V\w+", said(lk_server, tmp_path, "room", "participants", "get", *who))
        assert found is not None
        assert "Muted track" in said(lk_server, tmp_path, "room", "mute-track", *who, "--track", found[0])
        said(lk_server, tmp_path, "room", "participants", "update", *who, "--metadata", "m")
        there = lk_room + "-there"
        said(lk_server, tmp_path, "room", "create", there)
        said(lk_server, tmp_path, "room", "participants", "move", *who, "--destination-room", there)
        happened(lk_server, there, "participant.joined")
        said(lk_server, tmp_path, "room", "participants", "remove", "--room", there, "--identity", "bot")
        said(lk_server, tmp_path, "room", "delete", there)
    finally:
        joined.kill()
        joined.wait()


def test_dispatches(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    said(lk_server, tmp_path, "room", "create", lk_room)
    made = said(lk_server, tmp_path, "dispatch", "create", "--room", lk_room, "--agent-name", "a1", "--metadata", "m")
    assert 'agent_name:"a1"' in made
    assert "a1" in said(lk_server, tmp_path, "dispatch", "list", lk_room)


@pytest.mark.parametrize("words", [("egress", "list"), ("ingress", "list"), ("sip", "inbound", "list")])
def test_what_needs_workers_says_so(lk_server: Server, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = lk(lk_server, tmp_path, *words)
    assert done.returncode == 1
    assert f"{words[0]} not connected (redis required)" in done.stdout + done.stderr


def test_a_token_of_lk_is_understood(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    words = ("token", "create", "--join", "--room", lk_room, "--identity", "t", "--token-only")
    token = lk(lk_server, tmp_path, *words).stdout.split()[-1]
    answer = httpx.get(f"{lk_server.http_url}/rtc/validate", params={"access_token": token}, timeout=LIMIT)
    assert (answer.status_code, answer.text) == (200, "success")


def test_load_test(lk_server: Server, lk_room: str, tmp_path: Path) -> None:
    """What it sends is built into it; a program built from a copy without its media sends nothing, and fails here."""
    words = ("--room", lk_room, "--video-publishers", "1", "--audio-publishers", "1", "--subscribers", "2")
    out = said(lk_server, tmp_path, "load-test", *words, "--duration", "5s")
    total = next(line for line in out.splitlines() if "Total" in line and "/" in line)
    assert "4/4" in total, out
    assert re.search(r"\b0 \(0%\)", total), total
