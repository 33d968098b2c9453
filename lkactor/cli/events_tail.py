"""What `lkactor events tail` does: follow `/events` of a server, print, connect again where it broke off."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import trio

from actors.httpclient import HttpClient, HttpError, target_of
from lkactor.auth import issue_token

TOKEN_LIFE = 600.0
SILENCE = 45.0
"""Seconds without a byte, keep-alives included, after which a connection counts as broken."""
RETRY_FIRST, RETRY_LONGEST = 0.5, 10.0
MAX_LINE = 64 * 1024 * 1024


class Refused(Exception):
    """The server does not want to: asking again is no use."""


class Frames:
    """A text/event-stream taken apart: fields by name, a frame per blank line. Comments are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes) -> list[dict[str, str]]:
        """Raises HttpError for a line without end."""
        frames: list[dict[str, str]] = []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise HttpError("this is no event stream")
        for line in lines:
            text = line.decode("utf-8", "replace").removesuffix("\r")
            if not text:
                if self._fields:
                    frames.append(self._fields)
                self._fields = {}
            elif not text.startswith(":"):
                name, _, value = text.partition(":")
                self._fields[name] = value.removeprefix(" ")
        return frames


class Tail:
    """One run of the command. Raises ValueError for an address that is none."""

    def __init__(
        self,
        url: str,
        key: str,
        secret: str,
        *,
        follow: bool = False,
        as_json: bool = False,
        room: str = "",
        cursor: int | None = None,
        last: int = 0,
    ) -> None:
        self._client = HttpClient(url, user_agent="lkactor-cli")
        self._base = target_of(url).rstrip("/")
        self._key, self._secret = key, secret
        self._follow, self._json, self._room = follow, as_json, room
        self._cursor, self._last = cursor, last
        self._reached = False
        self._wait = RETRY_FIRST

    async def run(self) -> None:
        """Raises Refused; HttpError if it never got through, or without --follow."""
        while True:
            try:
                await self._once()
                if not self._follow:
                    return
            except HttpError as error:
                if not (self._follow and self._reached):
                    raise
                print(f"lkactor: {error}; trying again from cursor {self._cursor}", file=sys.stderr)
            await trio.sleep(self._wait)
            self._wait = min(RETRY_LONGEST, self._wait * 2)

    async def _once(self) -> None:
        """One connection, to its end."""
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": "text/event-stream"}
        frames = Frames()
        async with self._client.stream("GET", f"{self._base}/events?{urlencode(self._query())}", headers) as answer:
            while True:
                with trio.move_on_after(SILENCE) as silent:
                    data = await answer.read()
                if silent.cancelled_caught:
                    raise HttpError(f"nothing came for {SILENCE:g} s")
                if answer.status != 200:
                    text = data[:300].decode("utf-8", "replace").strip()
                    said = f"HTTP {answer.status}{': ' + text if text else ''}"
                    raise HttpError(said) if answer.status >= 500 else Refused(said)
                if not data:
                    return
                self._reached, self._wait = True, RETRY_FIRST
                for frame in frames.feed(data):
                    self._take(frame)

    def _query(self) -> dict[str, str]:
        query = {"follow": str(int(self._follow))}
        if self._cursor is None:
            query["last"] = str(self._last)
        else:
            query["cursor"] = str(self._cursor)
        if self._room:
            query["room"] = self._room
        return query

    def _take(self, frame: Mapping[str, str]) -> None:
        cursor = frame.get("id", "")
        if cursor.isdigit():
            self._cursor = int(cursor)
        if "data" not in frame:
            return
        if frame.get("event") == "gap":
            print(f"lkactor: some events are not kept any more: {frame['data']}", file=sys.stderr)
        elif self._json:
            print(f'{{"cursor": {self._cursor}, "event": {frame["data"]}}}', flush=True)
        else:
            print(f"{self._cursor} {describe(json.loads(frame['data']))}", flush=True)

    def _token(self) -> str:
        video = {"room_admin": True, "room_list": True}
        now = time.time()
        return issue_token(self._key, self._secret, identity="lkactor-cli", video=video, ttl=TOKEN_LIFE, now_unix=now)


def describe(event: Mapping[str, Any]) -> str:
    """One event in one line: time, name, room, who, what, why."""
    at = datetime.fromtimestamp(int(event.get("createdAt", 0)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    participant, track = event.get("participant", {}), event.get("track", {})
    words = [at, event.get("event", ""), event.get("room", {}).get("name", "")]
    words.append(participant.get("identity", ""))
    if track:
        words += [track.get("source", track.get("type", "AUDIO")).lower(), track.get("sid", "")]
    words.append(participant.get("disconnectReason", ""))
    return "  ".join(json.dumps(word)[1:-1] for word in words if word)
