"""Load on a server: publishers that send real media, subscribers that count it, and a look at ourselves.

What is sent are the frames of files, over and over, each publisher as a participant of its own with ICE, DTLS and SRTP.
A VP8 picture may be filled up to a bitrate: what stands behind its last partition no decoder reads (RFC 6386 section
9.5), so it plays as before. A publisher that is asked for a key frame begins its file again.

Latency: both ends are in this process. The end of every payload is remembered with the moment it left; servers rewrite
headers and payload descriptors, but not that. What looks the same twice within `AMBIGUOUS` seconds is not counted.
It came when the kernel had it (`lkactor.client.arrival`); how long it then waited for us is counted apart.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from lkactor.client.events import SessionEvent, TrackSubscribed
from lkactor.client.paths import Way
from lkactor.client.session import Session, open_session
from lkactor.client.signal import SignalError, leaf
from lkactor.client.tracks import LocalTrack, RemoteTrack, TrackSpec
from lkactor.dtls import Certificate
from lkactor.media.frame import Frame, MediaFile
from lkactor.wire.rtp import RtpPacket

TAIL, SHORTEST = 24, 40
"""Octets that name a payload, and the payloads that are too short to have that many beside their descriptor."""
MAX_STAMPS = 4096
"""Payloads of a track that may be on their way."""
AMBIGUOUS = 2.0
FILLING = 1 << 16
MAX_SAMPLES = 20000
"""Of latency, per subscriber: then every second one is left out, and so on."""
SETTLE = 1.0
"""Seconds after the last join in which nothing counts."""
LATE = 0.1
BUSY = 0.85
FIRST_TRACKS = 10.0


@dataclass(frozen=True, slots=True)
class Medium:
    """What a publisher sends. `rate` in pictures a second, 0 for the file's own time; `bitrate` to fill up to, or 0."""

    spec: TrackSpec
    file: MediaFile
    rate: float = 0.0
    bitrate: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How many publishers of which medium; `duration` in seconds."""

    publishers: Sequence[tuple[Medium, int]]
    subscribers: int
    joins_per_second: float
    duration: float


class Stamps:
    """When the payloads of one track left, by their ends. Bounded."""

    def __init__(self) -> None:
        self._sent: OrderedDict[bytes, float] = OrderedDict()

    def note(self, payload: bytes, now: float) -> None:
        if len(payload) < SHORTEST:
            return
        tail = payload[-TAIL:]
        before = self._sent.pop(tail, None)
        # Negative: seen twice at about this time, so that nobody can say which one comes.
        self._sent[tail] = -now if before is not None and now - abs(before) < AMBIGUOUS else now
        if len(self._sent) > MAX_STAMPS:
            self._sent.popitem(last=False)

    def age(self, payload: bytes, now: float) -> float | None:
        """Seconds since it left, None if that is not known."""
        sent = self._sent.get(payload[-TAIL:], -1.0) if len(payload) >= SHORTEST else -1.0
        return now - sent if sent >= 0 else None


@dataclass(slots=True)
class Samples:
    """Thinned out evenly, so that a long run costs no more than a short one."""

    values: list[float] = field(default_factory=list)
    _every: int = 1
    _seen: int = 0

    def add(self, value: float) -> None:
        self._seen += 1
        if self._seen % self._every == 0:
            self.values.append(value)
            if len(self.values) >= MAX_SAMPLES:
                self.values = self.values[1::2]
                self._every *= 2


@dataclass(slots=True)
class Subscriber:
    identity: str
    stamps: dict[str, Stamps]
    """Of all tracks, by SID."""
    started: float = 0.0
    join: float = 0.0
    first: float = 0.0
    """Seconds from the beginning to the first packet of media, 0 if none came."""
    tracks: dict[str, RemoteTrack] = field(default_factory=dict)
    latency: Samples = field(default_factory=Samples)
    waited: Samples = field(default_factory=Samples)
    """How long packets lay in our socket."""
    packets: int = 0
    bytes: int = 0
    lost: int = 0
    counting: bool = False
    _before: dict[str, int] = field(default_factory=dict)

    def on_event(self, event: SessionEvent) -> None:
        if isinstance(event, TrackSubscribed):
            self.tracks[event.track.info.sid] = event.track
            event.track.on_packet = partial(self._on_packet, event.track.info.sid)

    def begin(self) -> None:
        self.counting = True
        self._before = {sid: _missing(track) for sid, track in self.tracks.items()}

    def end(self) -> None:
        if self.counting:
            self.lost = sum(max(0, _missing(track) - self._before.get(sid, 0)) for sid, track in self.tracks.items())
        self.counting = False

    def _on_packet(self, sid: str, packet: RtpPacket) -> None:
        now = trio.current_time()
        if not self.first:
            self.first = now - self.started
        if not self.counting:
            return
        self.packets += 1
        self.bytes += len(packet.data)
        stamps = self.stamps.get(sid)
        age = stamps.age(bytes(packet.payload), packet.arrival) if stamps is not None else None
        if age is not None:
            self.latency.add(max(0.0, age))
        self.waited.add(now - packet.arrival)


def _missing(track: RemoteTrack) -> int:
    receiver = track.receiver
    return 0 if receiver is None or receiver.highest < 0 else receiver.highest - receiver.first + 1 - receiver.packets


class Load:
    """One run. `token(identity, publishes)` gives (URL, token)."""

    def __init__(self, plan: LoadPlan, token: Callable[[str, bool], tuple[str, str]], way: Way) -> None:
        self._plan, self._token, self._way = plan, token, way
        self._certificate = Certificate.generate()
        self._stop = trio.Event()
        self.errors: list[str] = []
        self.subscribers: list[Subscriber] = []
        self._publishing: list[LocalTrack] = []
        self._stamps: dict[str, Stamps] = {}
        self._rng = random.Random(secrets.randbits(64))
        self._filling = self._rng.randbytes(FILLING)
        self._sessions: list[Session] = []
        self._joins: list[float] = []
        self._phase = "joining"
        self._late, self._ticks = 0.0, 0
        self._cpu = self._wall = 0.0
        self._wanted = self._sent = 0

    def stop(self) -> None:
        self._stop.set()

    def state(self) -> str:
        received = sum(subscriber.packets for subscriber in self.subscribers)
        return f"{self._phase}: {len(self._joins)} joined, {len(self.errors)} failed, {received} packets received"

    async def run(self) -> None:
        """Everyone in, measure, everyone out. Raises SignalError only if nobody could join."""
        plan = self._plan
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_stop, nursery.cancel_scope)
            names: list[tuple[Medium | None, str]] = []
            for medium, count in plan.publishers:
                names += [(medium, f"load-{medium.spec.kind}-{n}") for n in range(count)]
            names += [(None, f"load-sub-{n}") for n in range(plan.subscribers)]
            await self._join_all(nursery, names)
            if not self._joins:
                raise SignalError(self.errors[0] if self.errors else "nobody could join")
            self._phase = "measuring"
            await self._all_subscribed()
            await trio.sleep(SETTLE)
            await self._measure()
            self._phase = "leaving"
            nursery.cancel_scope.cancel()

    async def _all_subscribed(self) -> None:
        """Or not within FIRST_TRACKS seconds; the table says so then."""
        deadline = trio.current_time() + FIRST_TRACKS
        for subscriber in self.subscribers:
            while len(subscriber.tracks) < len(self._publishing) and trio.current_time() < deadline:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def _join_all(self, nursery: trio.Nursery, names: Sequence[tuple[Medium | None, str]]) -> None:
        start = trio.current_time()
        done = [trio.Event() for _ in names]
        for number, (medium, identity) in enumerate(names):
            await trio.sleep_until(start + number / self._plan.joins_per_second)
            nursery.start_soon(self._participant, medium, identity, done[number])
        for event in done:
            await event.wait()

    async def _participant(self, medium: Medium | None, identity: str, done: trio.Event) -> None:
        url, token = self._token(identity, medium is not None)
        started = trio.current_time()
        subscriber = Subscriber(identity, self._stamps, started)
        try:
            async with open_session(
                url,
                token,
                on_event=subscriber.on_event,
                auto_subscribe=medium is None,
                certificate=self._certificate,
                way=self._way,
                reconnect=False,
            ) as session:
                self._sessions.append(session)
                if medium is not None:
                    (track,) = await session.publish([medium.spec])
                    self._publishing.append(track)
                subscriber.join = trio.current_time() - started
                self._joins.append(subscriber.join)
                if medium is None:
                    self.subscribers.append(subscriber)
                done.set()
                async with trio.open_nursery() as nursery:
                    if medium is not None:
                        nursery.start_soon(self._send, medium, track)
                    await session.left.wait()
                    self.errors.append(f"{identity}: the server ended the session: {session.reason}")
                    nursery.cancel_scope.cancel()
        except* SignalError as group:
            self.errors.append(f"{identity}: {leaf(group)}")
        finally:
            done.set()

    async def _send(self, medium: Medium, track: LocalTrack) -> None:
        """Paced; what this process could not send in time shows in `_wanted` and `_sent`."""
        stamps = self._stamps[track.sid] = Stamps()
        start, at, asked = trio.current_time(), 0.0, track.keyframe_requests
        while True:
            begun = at
            for number, frame in enumerate(medium.file.frames()):
                if asked != track.keyframe_requests:
                    asked = track.keyframe_requests
                    break
                at = begun + (number / medium.rate if medium.rate else frame.time)
                await trio.sleep_until(start + at)
                payloads = track.payloads(self._filled(medium, frame))
                now = trio.current_time()
                if now > start + at + 1.0:  # hopelessly behind: go on from here, and say so
                    self._wanted += len(payloads) * int((now - start - at) / medium.file.frame_time)
                    start = now - at
                for payload in payloads:
                    stamps.note(payload, now)
                before = track.packets
                track.send_payloads(payloads, at)
                self._sent += track.packets - before
                self._wanted += len(payloads)
            at += 1 / medium.rate if medium.rate else medium.file.frame_time

    def _filled(self, medium: Medium, frame: Frame) -> Frame:
        """Up to the bitrate, with bytes that are never the same."""
        if not medium.bitrate:
            return frame
        missing = int(medium.bitrate / 8 * (1 / medium.rate if medium.rate else medium.file.frame_time)) - len(
            frame.data
        )
        if missing <= 0:
            return frame
        offset = self._rng.randrange(FILLING)
        filling = self._filling[offset:] + self._filling * (missing // FILLING + 1)
        return Frame(bytes(frame.data) + filling[:missing], frame.time, frame.keyframe)

    async def _measure(self) -> None:
        for subscriber in self.subscribers:
            subscriber.begin()
        self._wanted = self._sent = 0
        blocked = self._blocked()
        cpu, wall = time.process_time(), trio.current_time()
        deadline = wall + self._plan.duration
        try:
            while (now := trio.current_time()) < deadline:
                await trio.sleep(0.05)
                # How late a timer fires is how long the loop was busy with something else.
                self._late = max(self._late, trio.current_time() - now - 0.05)
                self._ticks += 1
        finally:
            self._wall = trio.current_time() - wall
            self._cpu = time.process_time() - cpu
            self._blocked_sends = self._blocked() - blocked
            for subscriber in self.subscribers:
                subscriber.end()

    def _blocked(self) -> int:
        return sum(
            session.publisher.transport.send_blocked + session.subscriber.transport.send_blocked
            for session in self._sessions
        )

    async def _end_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stop.wait()
        scope.cancel()

    # -- what came of it --------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        wall = max(self._wall, 0.001)
        return [
            {
                "identity": subscriber.identity,
                "tracks": sum(1 for track in subscriber.tracks.values() if track.receiver is not None),
                "expected_tracks": len(self._publishing),
                "packets": subscriber.packets,
                "lost": subscriber.lost,
                "bitrate": round(subscriber.bytes * 8 / wall),
                "join_ms": round(subscriber.join * 1000),
                "first_media_ms": round(subscriber.first * 1000),
                "latency_ms": percentiles(subscriber.latency.values),
            }
            for subscriber in self.subscribers
        ]

    def total(self) -> dict[str, Any]:
        rows = self.rows()
        latency = [value for subscriber in self.subscribers for value in subscriber.latency.values]
        joins = percentiles(self._joins)
        firsts = percentiles([subscriber.first for subscriber in self.subscribers if subscriber.first])
        names = ("tracks", "expected_tracks", "packets", "lost", "bitrate")
        whole = {name: sum(row[name] for row in rows) for name in names}
        return {
            "total": {
                "identity": "total",
                **whole,
                "join_ms": joins["p50"],
                "first_media_ms": firsts["p50"],
                "latency_ms": percentiles(latency),
            },
            "join_ms": {"count": len(self._joins), **joins},
            "first_media_ms": firsts,
            "latency_samples": len(latency),
            "errors": self.errors,
            "generator": self._own_limits(),
        }

    def _own_limits(self) -> dict[str, Any]:
        """Was it us? One core is all that this process has."""
        share = self._cpu / self._wall if self._wall else 0.0
        waited = percentiles([value for subscriber in self.subscribers for value in subscriber.waited.values])
        why = []
        if share > BUSY:
            why.append(f"{share:.0%} of a core used")
        if self._late > LATE:
            why.append(f"a timer fired {self._late * 1000:.0f} ms late")
        if self._wanted and self._sent < 0.98 * self._wanted:
            why.append(f"only {self._sent} of {self._wanted} packets were sent")
        if self._wall and self._blocked_sends:
            why.append(f"a socket was full {self._blocked_sends} times")
        numbers = {"cpu": round(share, 3), "late_ms": round(self._late * 1000, 1), "waited_ms": waited}
        return {"limited": bool(why), **numbers, "why": why}

    _blocked_sends = 0


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds; zeros of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * rank))] * 1000, 1) for name, rank in ranks.items()
    }
