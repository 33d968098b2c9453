"""Actors for the kernel's tests: they log what happens to them and do as they are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from actors.kernel import Actor, Exit, MediaLink

Step = Callable[["Probe"], Awaitable[object]]


class Boom(Exception):
    """A bug, on purpose."""


@dataclass(frozen=True, slots=True)
class Note:
    """Is logged; the reply is its text."""

    text: str


@dataclass(frozen=True, slots=True)
class Crash:
    text: str = "crash"


@dataclass(frozen=True, slots=True)
class Do:
    """Run `step` inside the actor; its result is the reply."""

    step: Step


Log = list[tuple[str, object]]


class Probe(Actor[Any]):
    """Logs (name, what). `on_started`, `on_stopping`, `on_media` change what it does there."""

    def __init__(
        self,
        log: Log,
        name: str = "probe",
        *,
        on_started: Step | None = None,
        on_stopping: Step | None = None,
        on_media: Callable[[Probe, MediaLink], None] | None = None,
    ) -> None:
        self.log = log
        self.name = name
        self.on_started = on_started
        self.on_stopping = on_stopping
        self.on_media = on_media

    def say(self, what: object) -> object:
        self.log.append((self.name, what))
        return what

    async def started(self) -> None:
        if self.on_started is not None:
            await self.on_started(self)
        self.say("started")

    async def receive(self, message: Any) -> object:
        match message:
            case Note(text):
                self.say(text)
                return text
            case Crash(text):
                raise Boom(text)
            case Do(step):
                return await step(self)
            case _:
                self.say(message)
                return None

    def receive_media(self, link: MediaLink) -> None:
        if self.on_media is not None:
            self.on_media(self, link)
        self.say((link.name, tuple(link.drain())))

    async def stopping(self, exit: Exit) -> None:
        if self.on_stopping is not None:
            await self.on_stopping(self)
        self.say(exit)


async def boom(_probe: Probe) -> None:
    raise Boom("step")


async def hang(_probe: Probe) -> None:
    await trio.sleep_forever()


def does(what: Callable[[Probe], object]) -> Do:
    """A synchronous step as a message."""

    async def step(probe: Probe) -> object:
        return what(probe)

    return Do(step)


def maker(log: Log, name: str, **options: Any) -> Callable[[], Probe]:
    return lambda: Probe(log, name, **options)


class Events:
    """An `on_event` hook that keeps what it was told."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def __call__(self, kind: str, path: str, detail: str) -> None:
        self.rows.append((kind, path, detail))

    def kinds(self) -> list[tuple[str, str]]:
        return [(kind, path) for kind, path, _ in self.rows]
