"""`kill -HUP`: a running server takes over keys, limits, webhooks and the log's level; proven with livekit-api."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit import api
from support.backend import Backend
from support.interop import LIMIT, MARKS, Client, run

pytestmark = MARKS

SECRETS = {name: f"{name}-a-secret-of-more-than-32-bytes-{name}" for name in ("old", "new", "extra")}


class Served:
    """`lkactor serve` as a process, its configuration in a file. `log` grows as it writes."""

    def __init__(self, path: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "lkactor", "serve", "--config", str(path), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log: list[dict[str, Any]] = []
        self.text: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text.append(line)
            if found := re.search(r"ws://\S+", line):
                self.url = found[0]
                break
        self.http_url = self.url.replace("ws", "http", 1)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text.append(line)
            if line.startswith("{"):
                self.log.append(json.loads(line))

    def reload(self) -> list[dict[str, Any]]:
        """What the log says about it; the outcome comes last."""
        seen = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            lines = [line for line in self.log[seen:] if "configuration" in line["msg"] or "keys" in line]
            if lines and "configuration" in lines[-1]["msg"]:
                return lines
            time.sleep(0.02)
        raise AssertionError("nothing was said about the reload")

    def token(self, identity: str = "", room: str | None = None, *, key: str = "old", **grants: Any) -> str:
        video = api.VideoGrants(room_join=True, room=room or "", **grants)
        return api.AccessToken(key, SECRETS[key]).with_identity(identity).with_grants(video).to_jwt()


@contextmanager
def served(path: Path, *flags: str) -> Iterator[Served]:
    server = Served(path, *flags)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server._reader.join(LIMIT)
        for stream in (server.process.stdout, server.process.stderr):
            assert stream is not None
            stream.close()


def configure(path: Path, *keys: str, more: str = "") -> None:
    text = "port: 0\nbind_addresses: [127.0.0.1]\nrtc: {udp_port: 0, tcp_port: 0}\nlogging: {json: true}\n"
    if keys:
        text += "keys:\n" + "".join(f"  {key}: {SECRETS[key]}\n" for key in keys)
    path.write_text(text + more)


async def rooms_of(server: Served, key: str) -> list[str]:
    async with api.LiveKitAPI(server.http_url, key, SECRETS[key]) as service:
        return [room.name for room in (await service.room.list_rooms(api.ListRoomsRequest())).rooms]


async def create(server: Served, key: str, name: str, **options: Any) -> Any:
    async with api.LiveKitAPI(server.http_url, key, SECRETS[key]) as service:
        return await service.room.create_room(api.CreateRoomRequest(name=name, **options))


def refused(server: Served, key: str) -> bool:
    try:
        asyncio.run(rooms_of(server, key))
    except api.TwirpError as error:
        return error.status == 401
    return False


def test_keys_change_while_people_talk(tmp_path: Path) -> None:
    path = tmp_path / "livekit.yaml"
    configure(path, "old")
    with served(path) as server:

        async def test() -> None:
            alice = await Client(server, "alice").connect("hall")
            assert await asyncio.to_thread(refused, server, "new")
            configure(path, "new")
            (said,) = await asyncio.to_thread(server.reload)
            assert said["detail"] == "keys: added: new; removed: old"
            assert await asyncio.to_thread(refused, server, "old")
            assert await rooms_of(server, "new") == ["hall"]
            bob = await Client(server, "bob").connect("hall", token=server.token("bob", "hall", key="new"))
            await alice.meets("bob")
            await bob.local.publish_data("hello", topic="greeting")
            packet = await alice.event("data_received")
            assert packet.args[0].data == b"hello"
            with pytest.raises(Exception, match=r"401|nauthorized|API key"):
                await Client(server, "carl").connect("hall")
            await alice.close()
            await bob.close()

        run(test)
        assert not any(secret in line for secret in SECRETS.values() for line in server.text)


def test_a_key_file_is_read_again(tmp_path: Path) -> None:
    path, keys = tmp_path / "livekit.yaml", tmp_path / "keys.yaml"
    configure(path)
    keys.write_text(f"old: {SECRETS['old']}\n")
    keys.chmod(0o600)
    with served(path, "--key-file", str(keys)) as server:
        keys.write_text(f"old: {SECRETS['old']}\nnew: {SECRETS['new']}\n")
        assert [line["detail"] for line in server.reload()] == ["keys: added: new"]
        assert asyncio.run(rooms_of(server, "new")) == []
        keys.chmod(0o644)
        (said,) = server.reload()
        assert said["level"] == "error"
        assert "chmod" in said["error"]
        assert asyncio.run(rooms_of(server, "new")) == []


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("limit: {max_metadata_sise: 5}\n", ("line 7", "max_metadata_sise", "max_metadata_size")),
        ("room:\n  empty_timeout: soon\n", ("line 8", "room.empty_timeout")),
        ("room: [\n", ("line 8", "YAML")),
        ("webhook: {api_key: new, urls: ['ftp://x']}\n", ("webhook.urls",)),
    ],
)
def test_a_broken_file_changes_nothing(tmp_path: Path, broken: str, says: tuple[str, ...]) -> None:
    path = tmp_path / "livekit.yaml"
    configure(path, "old")
    with served(path) as server:
        configure(path, "new", more=broken)
        (said,) = server.reload()
        assert said["level"] == "error"
        assert all(word in said["error"] for word in says), said
        assert asyncio.run(rooms_of(server, "old")) == []
        assert refused(server, "new")
        path.unlink()
        (said,) = server.reload()
        assert "livekit.yaml" in said["error"]
        assert asyncio.run(rooms_of(server, "old")) == []


def test_limits_rooms_and_what_needs_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "livekit.yaml"
    configure(path, "old")
    with served(path) as server:
        assert asyncio.run(create(server, "old", "before")).empty_timeout == 300
        more = "limit: {max_metadata_size: 5}\nroom: {empty_timeout: 77, create_room_attempts: 2}\n"
        more += "turn: {ttl_seconds: 5}\n"
        configure(path, "old", more=more)
        restart, inert, reloaded = server.reload()
        assert reloaded["detail"] == "room.empty_timeout: 77, was 300; limit.max_metadata_size: 5, was 524288"
        assert restart["keys"] == "turn.ttl_seconds"
        assert inert["keys"] == "room.create_room_attempts"
        assert asyncio.run(create(server, "old", "after")).empty_timeout == 77
        with pytest.raises(api.TwirpError) as error:
            asyncio.run(create(server, "old", "too much", metadata="123456"))
        assert error.value.code == "invalid_argument"


def test_the_log_level_and_webhooks_change(tmp_path: Path) -> None:
    path = tmp_path / "livekit.yaml"
    configure(path, "old")
    path.write_text(path.read_text().replace("json: true", "json: true, level: warn"))
    with Backend("extra", SECRETS["extra"]) as backend, served(path) as server:
        asyncio.run(create(server, "old", "quiet"))
        configure(path, "old", "extra", more=f"webhook: {{api_key: extra, urls: ['{backend.url}']}}\n")
        said = server.reload()[-1]["detail"]
        assert "logging.level: '', was 'warn'" in said
        assert "webhook.urls" in said
        asyncio.run(create(server, "old", "told"))
        backend.wait_for(lambda events: [event.room.name for event in events] == ["told"], "room_started")
        configure(path, "old")
        server.reload()
        asyncio.run(create(server, "old", "untold"))
        assert asyncio.run(rooms_of(server, "old")) == ["quiet", "told", "untold"]
        assert [line["room"] for line in server.log if line["msg"] == "starting room"][:1] == ["told"]
        assert len(backend.events) == 1


def test_short_secrets_are_named_at_the_start_and_when_they_come(tmp_path: Path) -> None:
    path = tmp_path / "livekit.yaml"
    configure(path, "old")
    path.write_text(path.read_text() + "  weak: short\n")
    with served(path) as server:
        (said,) = server.reload()
        assert said["detail"] == "nothing has changed"
        path.write_text(path.read_text() + "  frail: also-short\n")
        (said,) = server.reload()
        assert said["detail"] == "keys: added: frail"
        assert [line["apiKeys"] for line in server.log if "apiKeys" in line] == ["weak", "weak", "weak, frail"]
        assert "also-short" not in "".join(server.text)
