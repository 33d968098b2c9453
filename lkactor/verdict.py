"""Join verdicts: every attempt to join, failed ones too, explained from the record of events. Pure.

| step    | begins            | done when                                   | fails when                            |
|---------|-------------------|---------------------------------------------|---------------------------------------|
| token   | the request       | its claims were accepted                    | refused with 401 or 403               |
| signal  | the request       | the participant is in the room              | refused otherwise                     |
| offer   | in the room       | a description with ICE credentials came     | none came before the end              |
| ice     | the offer         | a pair of candidates carries both ways      | no pair answered; the tried are named |
| dtls    | a pair            | keys are there and fingerprints match       | handshake failed                      |
| data    | keys              | the data channels are open                  | never                                 |
| media   | active            | the first track flows, either way           | a published track sent no packet      |

Nothing to send is no failure. Times are milliseconds since the attempt began. What failed comes with its fix.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Literal

from lkactor.eventlog import LogEntry
from lkactor.remedies import remedy

Status = Literal["ok", "failed", "pending", "skipped"]
STEPS = ("token", "signal", "offer", "ice", "dtls", "data", "media")
_TIMES = re.compile(r"ice (?P<ice>[\d.]+) ms over (?P<pair>[^,]+), dtls (?P<dtls>[\d.]+) ms")


@dataclass(slots=True)
class Step:
    name: str
    status: Status = "pending"
    ms: float | None = None
    detail: str = ""


@dataclass(slots=True)
class Verdict:
    """One attempt. `outcome` is "joined", "failed", "left early" or "under way"; `at` is seconds since server start."""

    room: str
    identity: str
    sid: str
    at: float
    outcome: str = "under way"
    cause: str = ""
    fix: str = ""
    """What to do, when there is a cause."""
    steps: dict[str, Step] = field(default_factory=lambda: {name: Step(name) for name in STEPS})

    def done(self, name: str, at: float, detail: str = "") -> None:
        step = self.steps[name]
        if step.status == "pending":
            self.steps[name] = Step(name, "ok", round((at - self.at) * 1000, 1), detail)

    def failed(self, name: str, at: float, cause: str) -> None:
        if self.outcome != "failed":
            self.outcome, self.cause, self.fix = "failed", f"{name}: {cause}", remedy(name, cause)
            self.steps[name] = Step(name, "failed", round((at - self.at) * 1000, 1), cause)

    def first_pending(self) -> str | None:
        return next((name for name in STEPS if self.steps[name].status == "pending"), None)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "steps": [asdict(step) for step in self.steps.values()]}

    def __str__(self) -> str:
        head = f"{self.identity or '(no identity)'} in {self.room or '(no room)'}: {self.outcome}"
        lines = [head + (f" ({self.cause})" if self.cause else "")]
        lines += [f"  to do: {self.fix}"] if self.fix else []
        for step in self.steps.values():
            when = "" if step.ms is None else f"{step.ms:8.1f} ms"
            lines.append(f"  {step.name:7}{step.status:8}{when:12} {step.detail}".rstrip())
        return "\n".join(lines)


class JoinBook:
    """The latest attempts, kept up with the record of events as it is written: `EventLog.listen(book.observe)`."""

    def __init__(self, capacity: int = 1000) -> None:
        self._verdicts: deque[Verdict] = deque(maxlen=capacity)
        self._running: dict[tuple[str, str], Verdict] = {}
        self._left: Verdict | None = None
        """Of the session that has ended last."""

    def observe(self, entry: LogEntry) -> None:
        key = (entry.room, entry.participant)
        if entry.event == "join.refused":
            self._verdicts.append(_refused(entry))
        elif entry.event == "participant.joined":
            verdict = Verdict(entry.room, entry.participant, entry.detail, entry.at)
            verdict.done("token", entry.at)
            verdict.done("signal", entry.at)
            self._verdicts.append(verdict)
            self._running[key] = verdict
        elif key in self._running:
            _observe(self._running[key], entry)
            if entry.event == "participant.left":
                self._left = self._running.pop(key)

    def of(self, *, room: str = "", identity: str = "") -> list[Verdict]:
        """Attempts, oldest first; of one room, of one identity, or all."""
        return [v for v in self._verdicts if room in ("", v.room) and identity in ("", v.identity)]

    def just_left(self, room: str, identity: str) -> Verdict | None:
        """The attempt of the session that has ended last, if it was this one's."""
        left = self._left
        return left if left is not None and (left.room, left.identity) == (room, identity) else None

    def latest(self, room: str, identity: str) -> Verdict | None:
        """The attempt of a session that is still there, or is just leaving."""
        return self._running.get((room, identity))


def _refused(entry: LogEntry) -> Verdict:
    verdict = Verdict(entry.room, entry.participant, "", entry.at)
    step = "token" if entry.detail.startswith(("401", "403")) else "signal"
    if step == "signal":
        verdict.done("token", entry.at)
    verdict.failed(step, entry.at, entry.detail)
    return verdict


def _observe(verdict: Verdict, entry: LogEntry) -> None:
    transport, _, event = entry.event.partition(".")
    if transport in ("publisher", "subscriber"):
        _observe_transport(verdict, entry, event)
        return
    match entry.event:
        case "active":
            verdict.done("data", entry.at)
            verdict.outcome = "joined"
        case "subscribed" | "track.flows":
            verdict.done("media", entry.at, f"{entry.event} {entry.detail}")
        case "track.published" if verdict.steps["media"].status == "pending":
            verdict.steps["media"].detail = f"{entry.detail.partition(' ')[0]} is published, no packet of it came"
        case "left" if verdict.outcome == "joined" and verdict.steps["media"].status == "pending":
            _without_media(verdict)
        case "negotiation.failed":
            verdict.failed("offer", entry.at, entry.detail)
        case "left" if verdict.outcome == "under way":
            waiting = verdict.first_pending() or "data"
            if entry.detail == "CLIENT_INITIATED":
                verdict.outcome, verdict.cause = "left early", f"the client left while {waiting} was awaited"
                verdict.fix = f"if it waited long: {remedy(waiting, '')}"
            else:
                verdict.failed(waiting, entry.at, f"{_MISSING[waiting]}; session ended with {entry.detail}")
        case _:
            pass


def _without_media(verdict: Verdict) -> None:
    """The join itself was good: the outcome stays, with a cause."""
    media = verdict.steps["media"]
    if media.detail:
        media.status = "failed"
        verdict.cause, verdict.fix = f"media: {media.detail}", remedy("media", media.detail)


_MISSING = {
    "token": "no token",
    "signal": "no session",
    "offer": "no description came from the client",
    "ice": "no pair of candidates answered: is the media port open, and is the announced address reachable?",
    "dtls": "the handshake did not end",
    "data": "the data channels did not open",
    "media": "no media flowed",
}


def _observe_transport(verdict: Verdict, entry: LogEntry, event: str) -> None:
    match event:
        case "connecting":
            verdict.done("offer", entry.at)
        case "connected":
            times = _TIMES.search(entry.detail)
            if times is not None and verdict.steps["ice"].status == "pending":
                # Back from now: the record of the offer may be some milliseconds behind the transport's own clock.
                begun = entry.at - max(float(times["ice"]), float(times["dtls"])) / 1000
                offer = verdict.at + (verdict.steps["offer"].ms or 0.0) / 1000
                verdict.done("ice", max(offer, begun + float(times["ice"]) / 1000), f"over {times['pair']}")
                verdict.done("dtls", max(offer, begun + float(times["dtls"]) / 1000))
        case "failed" if verdict.outcome == "under way":
            step = "dtls" if entry.detail.startswith("dtls") else "ice"
            verdict.failed(step, entry.at, entry.detail or _MISSING[step])
        case _:
            pass
