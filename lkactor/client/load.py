"""Load on a server: publishers that send stamped packets, subscribers that count them, and a look at ourselves.

Packets are VP8 and Opus to every server, though no decoder would like them: a key frame header where one is asked for,
filling, and in the last eight bytes the nanosecond at which they left. Both ends are in this process, so that clock is
the same. Payloads pass a server unchanged (only the VP8 descriptor before them is rewritten).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from livekit.protocol import models

from lkactor.client.events import SessionEvent, TrackSubscribed
from lkactor.client.paths import Way
from lkactor.client.session import Session, open_session
from lkactor.client.signal import SignalError, leaf
from lkactor.client.tracks import LocalTrack, RemoteTrack, TrackSpec
from lkactor.dtls import Certificate
from lkactor.wire.rtp import RtpPacket

PAYLOAD = 1100
KEY = b"\x10\x02\x00\x9d\x01\x2a\x80\x02\x68\x01"
"""A VP8 key frame tag and start code: 640 x 360."""
DELTA = b"\x11\x02\x00"
OPUS = b"\x78"
MAGIC = b"lkld"
STAMP = len(MAGIC) + 8
MAX_SAMPLES = 20000
"""Of latency, per subscriber: then every second one is left out, and so on."""
SETTLE = 1.0
"""Seconds after the last join in which nothing counts."""
LATE = 0.1
BUSY = 0.85
FIRST_TRACKS = 10.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`bitrate` in bits a second, of one video track; `duration` in seconds."""

    video: int
    audio: int
    subscribers: int
    bitrate: float
    fps: int
    joins_per_second: float
    duration: float


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
                self.values = self.values[::2]
                self._every *= 2


@dataclass(slots=True)
class Subscriber:
    identity: str
    join: float = 0.0
    tracks: dict[str, RemoteTrack] = field(default_factory=dict)
    latency: Samples = field(default_factory=Samples)
    packets: int = 0
    bytes: int = 0
    lost: int = 0
    counting: bool = False
    _before: dict[str, int] = field(default_factory=dict)

    def on_event(self, event: SessionEvent) -> None:
        if isinstance(event, TrackSubscribed):
            self.tracks[event.track.info.sid] = event.track
            event.track.on_packet = self._on_packet

    def begin(self) -> None:
        self.counting = True
        self._before = {sid: _missing(track) for sid, track in self.tracks.items()}

    def end(self) -> None:
        if self.counting:
            self.lost = sum(max(0, _missing(track) - self._before.get(sid, 0)) for sid, track in self.tracks.items())
        self.counting = False

    def _on_packet(self, packet: RtpPacket) -> None:
        if not self.counting:
            return
        self.packets += 1
        self.bytes += len(packet.data)
        tail = bytes(packet.payload[-STAMP:])
        if tail[: len(MAGIC)] == MAGIC:
            self.latency.add(time.monotonic() - int.from_bytes(tail[len(MAGIC) :], "big") / 1e9)


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
            names = [("video", f"load-video-{n}") for n in range(plan.video)]
            names += [("audio", f"load-audio-{n}") for n in range(plan.audio)]
            names += [("", f"load-sub-{n}") for n in range(plan.subscribers)]
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

    async def _join_all(self, nursery: trio.Nursery, names: Sequence[tuple[str, str]]) -> None:
        start = trio.current_time()
        done = [trio.Event() for _ in names]
        for number, (kind, identity) in enumerate(names):
            await trio.sleep_until(start + number / self._plan.joins_per_second)
            nursery.start_soon(self._participant, kind, identity, done[number])
        for event in done:
            await event.wait()

    async def _participant(self, kind: str, identity: str, done: trio.Event) -> None:
        subscriber = Subscriber(identity)
        url, token = self._token(identity, bool(kind))
        started = trio.current_time()
        try:
            async with open_session(
                url,
                token,
                on_event=subscriber.on_event,
                auto_subscribe=not kind,
                certificate=self._certificate,
                way=self._way,
                reconnect=False,
            ) as session:
                self._sessions.append(session)
                if kind:
                    tracks = await session.publish([_spec(kind)])
                    self._publishing += tracks
                subscriber.join = trio.current_time() - started
                self._joins.append(subscriber.join)
                if not kind:
                    self.subscribers.append(subscriber)
                done.set()
                async with trio.open_nursery() as nursery:
                    if kind:
                        nursery.start_soon(self._send, tracks[0])
                    await session.left.wait()
                    self.errors.append(f"{identity}: the server ended the session: {session.reason}")
                    nursery.cancel_scope.cancel()
        except* SignalError as group:
            self.errors.append(f"{identity}: {leaf(group)}")
        finally:
            done.set()

    async def _send(self, track: LocalTrack) -> None:
        """Paced; what this process could not send in time shows in `_wanted` and `_sent`."""
        if track.spec.kind == "audio":
            interval, sizes = 0.02, [80]
        else:
            interval = 1 / self._plan.fps
            whole, rest = divmod(int(self._plan.bitrate / 8 * interval), PAYLOAD)
            sizes = [PAYLOAD] * whole + ([max(rest, 40)] if rest or not whole else [])
        start, number, asked = trio.current_time(), 0, -1
        while True:
            if track.spec.kind == "audio":
                heads = [OPUS]
            else:
                key = asked != track.keyframe_requests or number == 0
                asked = track.keyframe_requests
                heads = _vp8_heads(number, len(sizes), key)
            payloads = [_payload(head, size) for head, size in zip(heads, sizes, strict=True)]
            track.send_payloads(payloads, number * interval)
            self._sent += len(payloads)
            number += 1
            due = start + number * interval
            now = trio.current_time()
            if now > due + 1.0:  # hopelessly behind: go on from here, and say so
                self._wanted += int((now - due) / interval) * len(sizes)
                start = now - number * interval
            self._wanted += len(payloads)
            await trio.sleep_until(due)

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
                "latency_ms": _percentiles(subscriber.latency.values),
            }
            for subscriber in self.subscribers
        ]

    def total(self) -> dict[str, Any]:
        rows = self.rows()
        latency = [value for subscriber in self.subscribers for value in subscriber.latency.values]
        joins = _percentiles(self._joins)
        names = ("tracks", "expected_tracks", "packets", "lost", "bitrate")
        whole = {name: sum(row[name] for row in rows) for name in names}
        return {
            "total": {"identity": "total", **whole, "join_ms": joins["p50"], "latency_ms": _percentiles(latency)},
            "join_ms": {"count": len(self._joins), **joins},
            "latency_samples": len(latency),
            "errors": self.errors,
            "generator": self._own_limits(),
        }

    def _own_limits(self) -> dict[str, Any]:
        """Was it us? One core is all that this process has."""
        share = self._cpu / self._wall if self._wall else 0.0
        why = []
        if share > BUSY:
            why.append(f"{share:.0%} of a core used")
        if self._late > LATE:
            why.append(f"a timer fired {self._late * 1000:.0f} ms late")
        if self._wanted and self._sent < 0.98 * self._wanted:
            why.append(f"only {self._sent} of {self._wanted} packets were sent")
        if self._wall and self._blocked_sends:
            why.append(f"a socket was full {self._blocked_sends} times")
        return {"limited": bool(why), "cpu": round(share, 3), "late_ms": round(self._late * 1000, 1), "why": why}

    _blocked_sends = 0


def _spec(kind: str) -> TrackSpec:
    if kind == "audio":
        return TrackSpec("audio/opus", "load", models.TrackSource.MICROPHONE, clock_rate=48000, channels=2)
    return TrackSpec("video/vp8", "load", models.TrackSource.CAMERA, 640, 360)


def _vp8_heads(number: int, count: int, key: bool) -> list[bytes]:
    """Payload descriptors with a 15-bit picture id (RFC 7741 section 4.2), and the frame's first bytes."""
    picture = b"\x80" + (0x8000 | number & 0x7FFF).to_bytes(2, "big")
    first = b"\x90" + picture + (KEY if key else DELTA)
    return [first, *[b"\x80" + picture] * (count - 1)]


def _payload(head: bytes, size: int) -> bytes:
    return head + bytes(max(0, size - len(head) - STAMP)) + MAGIC + time.monotonic_ns().to_bytes(8, "big")


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds; zeros of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    ranks = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * rank))] * 1000, 1) for name, rank in ranks.items()
    }
