"""The server's log: the record of events as structured lines on standard error, with LiveKit's field names.

| level | what |
|---|---|
| error | an actor crashed; a configuration that cannot be used was not taken over |
| warn | a join was refused or failed, with its cause; what of a changed configuration needs a restart |
| info | what of a changed configuration holds now; rooms; one line when a participant is active, one when it leaves |
| debug | everything else |

Entries hold no token and no secret (`lkactor.eventlog`), so neither does a line.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

import structlog

from lkactor.config_sections import LoggingConfig
from lkactor.eventlog import LogEntry
from lkactor.verdict import JoinBook

LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40}
MESSAGES = {
    "room.started": "starting room",
    "room.finished": "closing room",
    "active": "participant active",
    "participant.left": "participant closing",
    "join.refused": "join refused",
    "config.reloaded": "configuration reloaded",
    "config.restart_needed": "these keys have changed and need a restart",
    "config.without_effect": "these keys have no effect",
    "config.weak_secret": "API secrets of under 32 characters can be guessed; `lkactor generate-keys` makes others",
    "config.kept": "the configuration cannot be used; the one before stays",
}


class ServerLog:
    """`observe` is a listener of the record of events. Lines below `level` are not made."""

    def __init__(self, config: LoggingConfig, joins: JoinBook, node_id: str, stream: TextIO | None = None) -> None:
        self._joins = joins
        self.set_level(config.level)
        renderer: Any = structlog.processors.JSONRenderer()
        if not config.json:
            renderer = structlog.dev.ConsoleRenderer(colors=False, event_key="msg", timestamp_key="ts", pad_event_to=24)
        self._logger: Any = structlog.wrap_logger(
            structlog.PrintLogger(stream or sys.stderr),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
                structlog.processors.EventRenamer("msg"),
                renderer,
            ],
        ).bind(nodeID=node_id)

    def set_level(self, level: str) -> None:
        """ "debug", "info", "warn" or "error"; empty is the default, info."""
        self._least = LEVELS.get(level or "info", 20)

    def observe(self, entry: LogEntry) -> None:
        if self._least > LEVELS["debug"] and entry.event not in MESSAGES and not entry.event.startswith("actor."):
            return  # Nearly all of them.
        level, fields = self._describe(entry)
        if LEVELS[level] >= self._least:
            named = {name: value for name, value in fields.items() if value not in ("", None)}
            self._logger.msg(MESSAGES.get(entry.event, entry.event), level=level, **named)

    def _describe(self, entry: LogEntry) -> tuple[str, dict[str, Any]]:
        fields: dict[str, Any] = {"room": entry.room, "participant": entry.participant}
        match entry.event:
            case "room.started" | "room.finished":
                return "info", {**fields, "roomID": entry.detail}
            case "active":
                return "info", {**fields, **self._set_up(entry)}
            case "participant.left":
                return self._left(entry, fields)
            case "join.refused":
                return "warn", {**fields, "error": entry.detail}
            case "config.reloaded":
                return "info", {"detail": entry.detail}
            case "config.restart_needed" | "config.without_effect":
                return "warn", {"keys": entry.detail}
            case "config.weak_secret":
                return "warn", {"apiKeys": entry.detail}
            case "config.kept":
                return "error", {"error": entry.detail}
            case "actor.fault":
                return "debug", {"actor": entry.participant, "detail": entry.detail}
            case "actor.restart":
                return "warn", {"actor": entry.participant, "detail": entry.detail}
            case event if event.startswith("actor."):
                return "error", {"actor": entry.participant, "detail": entry.detail}
            case _:
                return "debug", {**fields, "detail": entry.detail}

    def _set_up(self, entry: LogEntry) -> dict[str, Any]:
        verdict = self._joins.latest(entry.room, entry.participant)
        if verdict is None:
            return {}
        times = {f"{name}Ms": verdict.steps[name].ms for name in ("offer", "ice", "dtls", "data")}
        return {"pID": verdict.sid, "connectMs": verdict.steps["data"].ms, **times, "path": verdict.steps["ice"].detail}

    def _left(self, entry: LogEntry, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        verdict = self._joins.just_left(entry.room, entry.participant)
        told = {**fields, "reason": entry.detail}
        if verdict is None:
            return "info", told
        told |= {"pID": verdict.sid, "durationMs": round((entry.at - verdict.at) * 1000), "outcome": verdict.outcome}
        return ("warn" if verdict.outcome == "failed" else "info"), {**told, "cause": verdict.cause}
