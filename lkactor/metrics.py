"""Prometheus: `livekit_*` series as the reference names them, and `lkactor_*` of our own. No socket, no clock.

What happened is counted as the record of events is written; what is, is read when somebody asks. Nothing here is on the
path of a packet. Source: livekit-surface 7; which of its series are missing is in docs/status.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from livekit.protocol import models
from prometheus_client import Counter, Gauge, Histogram, ProcessCollector

from lkactor.eventlog import LogEntry
from lkactor.media_metrics import MediaMetrics
from lkactor.metric_families import Families, exponential

TWIRP_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
JOIN_MS = exponential(10, 10_000, 15)
START_MS = exponential(100, 10_000, 15)
SESSION_MS = exponential(100, 4 * 3600 * 1000, 15)
ROOM_S = (5, 10, 60, 300, 600, 1800, 3600, 7200, 18000, 36000)
QUEUE_LENGTHS = (1, 2, 3, 4, 5, 10, 20, 40, 80)
JOIN_STATES = {
    "participant.joined": ("signal_connected", "rtc_init"),
    "active": ("rtc_active", "rtc_success"),
    "publisher.connected": ("rtc_connected",),
    "participant.start_failed": ("rtc_failure",),
}
PEER_STATES = {"connecting": ("started",), "connected": ("ice_connected", "connected")}


S = TypeVar("S", bound=Counter | Gauge | Histogram)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Datagrams of the media ports since the start."""

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Posts since the start, and events that wait."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    queued: int = 0


@dataclass(slots=True)
class SignalCounts:
    """Signal messages since the start. Plain numbers: they are counted for every message."""

    requests: int = 0
    bad_requests: int = 0
    responses: int = 0


def kind_of(track_sid: str) -> str:
    """ "AUDIO" or "VIDEO", from how track sids are made: TR_A(udio), TR_SA (sound of a screen), all else is video."""
    return "AUDIO" if track_sid.startswith(("TR_A", "TR_SA")) else "VIDEO"


class Metrics:
    """One registry for one node."""

    def __init__(self, node_id: str) -> None:
        self._families = families = Families(node_id)
        self._labels = families.labels
        counter, gauge, histogram = families.counter, families.gauge, families.histogram
        ProcessCollector(registry=families.registry)
        self.media = MediaMetrics(families)
        self.signal = SignalCounts()
        self._joins = counter("participant_join_total", "Steps that joins have reached.", "state")
        self._publishes = counter("track_publish_counter", "Attempts to publish a track.", "kind", "state")
        self._subscribes = counter("track_subscribe_counter", "Attempts to receive a track.", "state", "error")
        self._peers = counter("peer_connection_state", "Peer connections that came so far.", "transport", "state")
        self._operations = counter("node_service_operation", "What the node did.", "type", "status", "error_type")
        self._messages = counter("node_messages", "Signal messages.", "type", "status", "direction")
        self._twirp = counter("node_twirp_request_status", "API calls.", "service", "method", "status", "code")
        self._twirp_ms = histogram(
            "node_twirp_request_latency_ms", "API calls, milliseconds.", TWIRP_MS, "service", "method", "status"
        )
        self._series: dict[tuple[int | str, ...], object] = {}
        self._twirp_series: dict[tuple[str, str, int, str], tuple[Counter | Gauge, Histogram]] = {}
        """Counter and histogram of each kind of call: finding them by their labels takes longer than counting."""
        version = "protocol_version"
        self._join_ms = histogram("session_join_latency_ms", "From a request to its answer.", JOIN_MS, version)
        self._start_ms = histogram("session_start_time_ms", "From joining to media.", START_MS, version)
        self._session_ms = histogram("session_duration_ms", "Sessions with media.", SESSION_MS, version)
        self._room_s = histogram("room_duration_seconds", "Rooms.", ROOM_S)
        self._rooms = gauge("room_total", "Rooms now.")
        self._participants = gauge("participant_total", "Participants now.")
        self._node_packets = gauge("node_packet_total", "Datagrams sent, and not sent.", "type")
        self._webhooks = counter("webhook_dispatch_total", "Posts of webhooks.", "status", "reason")
        self._webhook_queue = histogram("webhook_queue_length", "Events that wait, at each scrape.", QUEUE_LENGTHS)
        self._dropped = families.own("dropped_total", "Input and output that was dropped, by reason.", "reason")
        self._packets = families.own("datagrams_total", "Datagrams of the media ports.", "direction")
        self._bytes = families.own("datagram_bytes_total", "Their bytes.", "direction")
        self._stall = families.own("loop_stall_seconds", "The event loop's longest turn in the last 15 seconds.")
        self._collector = families.own("gc_seconds_total", "In the garbage collector.", "generation")
        self._shown: dict[tuple[str, ...], int] = {}
        """What has been added so far to counters that are kept elsewhere."""
        self._protocols: dict[tuple[str, str], str] = {}
        self._joined_at: dict[tuple[str, str], float] = {}
        self._active_at: dict[tuple[str, str], float] = {}
        self._opened_at: dict[str, float] = {}

    # -- what happens -----------------------------------------------------------------------------------------------

    def observe(self, entry: LogEntry) -> None:
        """One entry of the record of events."""
        for state in JOIN_STATES.get(entry.event, ()):
            self._one(self._joins, state=state).inc()
        key = (entry.room, entry.participant)
        match entry.event:
            case "participant.joined":
                self._joined_at[key] = entry.at
                self._operation("participant_join")
            case "active" if key in self._joined_at:
                self._session(self._start_ms, key, entry.at - self._joined_at[key])
                self._active_at[key] = entry.at
            case "participant.left":
                self._joined_at.pop(key, None)
                active = self._active_at.pop(key, None)
                if active is not None:
                    self._session(self._session_ms, key, entry.at - active)
                self._protocols.pop(key, None)
            case "join.refused":
                state = "signal_validation_failed" if entry.detail.startswith("401") else "signal_failed"
                self._joins.labels(**self._labels, state=state).inc()
            case "room.started":
                self._opened_at[entry.room] = entry.at
            case "room.finished" if entry.room in self._opened_at:
                self._room_s.labels(**self._labels).observe(entry.at - self._opened_at.pop(entry.room))
            case _:
                self._observe_peer(entry)
                self._observe_track(entry)

    def _observe_peer(self, entry: LogEntry) -> None:
        role, _, event = entry.event.partition(".")
        if role in ("publisher", "subscriber"):
            for state in PEER_STATES.get(event, ()):
                self._one(self._peers, transport=role.upper(), state=state).inc()
            if event == "connected":
                self._operation("peer_connection")

    def _operation(self, kind: str) -> None:
        self._one(self._operations, type=kind, status="success", error_type="").inc()

    def _session(self, series: Histogram, key: tuple[str, str], seconds: float) -> None:
        self._one(series, protocol_version=self._protocols.get(key, "0")).observe(seconds * 1000)

    def _one(self, family: S, **labels: str) -> S:
        """The series of these labels: finding it takes longer than counting, so it is found once."""
        key: tuple[int | str, ...] = (id(family), *labels.values())
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = family.labels(**self._labels, **labels)
        return cast(S, series)

    def answered(self, room: str, identity: str, protocol: int, seconds: float) -> None:
        """A request to join has been answered with a session."""
        version = self._protocols[room, identity] = str(min(max(protocol, 0), 99))
        self._one(self._join_ms, protocol_version=version).observe(seconds * 1000)

    def _observe_track(self, entry: LogEntry) -> None:
        match entry.event:
            case "add_track":
                self._one(self._publishes, kind=kind_of(entry.detail), state="attempt").inc()
            case "track.published":
                self._one(self._publishes, kind=kind_of(entry.detail), state="success").inc()
            case "subscribed":
                self._one(self._subscribes, state="success", error="").inc()
            case "subscription.failed":
                self._subscribes.labels(**self._labels, state="failure", error=entry.detail).inc()
            case _:
                pass

    def subscribing(self, attempts: int, cancels: int) -> None:
        """Tracks that a participant is to receive now, and those it was to receive and got no media of."""
        for state, n in (("attempt", attempts), ("cancel", cancels)):
            self._one(self._subscribes, state=state, error="").inc(n)

    def twirp(self, service: str, method: str, status: int, code: str, milliseconds: float) -> None:
        """One API call. `service` and `method` are ones that exist, so the number of series is bounded."""
        key = (service, method, status, code)
        series = self._twirp_series.get(key)
        if series is None:
            family = f"{status // 100}xx" if status >= 400 else str(status)
            labels = self._labels | {"service": service, "method": method, "status": family}
            series = self._twirp.labels(**labels, code=code), self._twirp_ms.labels(**labels)
            self._twirp_series[key] = series
        requests, times = series
        requests.inc()
        times.observe(milliseconds)

    def loop(self, stall: float, collecting: Sequence[float]) -> None:
        """Seconds of the longest turn of late, and in the garbage collector since the start by generation."""
        self._stall.set(stall)
        for generation, seconds in enumerate(collecting):
            self._collector.labels(generation=str(generation)).set(seconds)

    # -- what is ----------------------------------------------------------------------------------------------------

    def exposition(
        self,
        rooms: Iterable[models.Room],
        traffic: Traffic,
        dropped: Mapping[str, int],
        webhooks: Webhooks,
    ) -> bytes:
        """The text format."""
        infos, labels = list(rooms), self._labels
        self._rooms.labels(**labels).set(len(infos))
        self._participants.labels(**labels).set(sum(info.num_participants for info in infos))
        self.media.refresh()
        for direction, packets, size in (
            ("incoming", traffic.packets_in, traffic.bytes_in),
            ("outgoing", traffic.packets_out, traffic.bytes_out),
        ):
            self._packets.labels(direction=direction).set(packets)
            self._bytes.labels(direction=direction).set(size)
        unsent = sum(n for reason, n in dropped.items() if reason.startswith("udp.send"))
        self._node_packets.labels(**labels, type="out").set(traffic.packets_out)
        self._node_packets.labels(**labels, type="dropped").set(unsent)
        for reason, n in dropped.items():
            self._dropped.labels(reason=reason).set(n)
        signal = self.signal
        for status, direction, n in (
            ("success", "request", signal.requests),
            ("failure", "request", signal.bad_requests),
            ("success", "response", signal.responses),
        ):
            self._add(self._messages, n, type="signal", status=status, direction=direction)
        self._add(self._webhooks, webhooks.sent, status="success", reason="")
        self._add(self._webhooks, webhooks.failed, status="failure", reason="")
        self._add(self._webhooks, webhooks.dropped, status="drop", reason="overflow")
        self._webhook_queue.labels(**labels).observe(webhooks.queued)
        return self._families.text()

    def _add(self, series: Counter | Gauge, total: int, **names: str) -> None:
        """Bring a counter up to a total that is kept elsewhere."""
        key = (str(id(series)), *names.values())
        before = self._shown.get(key, 0)
        # A receiver that came back counts from zero again.
        series.labels(**self._labels, **names).inc(max(0, total - before))
        self._shown[key] = total
