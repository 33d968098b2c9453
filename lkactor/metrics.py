"""Prometheus: `livekit_*` series as the reference names them, and `lkactor_*` of our own. No socket, no clock.

What happened is counted as the record of events is written; what is, is read when somebody asks. Nothing here is on the
path of a packet. Source: livekit-surface 7; which of its series are missing is in docs/status.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from livekit.protocol import models
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lkactor.eventlog import LogEntry

LATENCY_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
DURATION_S = (10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800)
KINDS = {"TR_A": "audio", "TR_V": "video", "TR_S": "video"}
JOIN_STATES = {
    "participant.joined": ("signal_connected", "rtc_init"),
    "active": ("rtc_active",),
    "publisher.connected": ("rtc_connected",),
    "participant.start_failed": ("rtc_failure",),
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Datagrams of the media ports since the start."""

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int


def kind_of(track_sid: str) -> str:
    """ "audio" or "video", from how track sids are made: TR_A(udio), TR_V(ideo), TR_S(creen share)."""
    if track_sid.startswith("TR_SA"):
        return "audio"
    return KINDS.get(track_sid[:4], "video")


class Metrics:
    """One registry for one node."""

    def __init__(self, node_id: str) -> None:
        self._registry = CollectorRegistry()
        labels = {"node_id": node_id, "node_type": "SERVER"}
        self._labels = labels
        common = tuple(labels)

        def counter(name: str, text: str, *names: str) -> Counter:
            return Counter(f"livekit_{name}", text, (*common, *names), registry=self._registry)

        def gauge(name: str, text: str, *names: str) -> Gauge:
            return Gauge(f"livekit_{name}", text, (*common, *names), registry=self._registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *names: str) -> Histogram:
            return Histogram(
                f"livekit_{name}", text, (*common, *names), registry=self._registry, buckets=tuple(buckets)
            )

        self._joins = counter("participant_join", "Steps that joins have reached.", "state")
        # The library ends every counter's name with _total; these have none in the reference, so they are gauges.
        self._publishes = gauge("track_publish_counter", "Attempts to publish a track.", "kind", "state")
        self._subscribes = gauge("track_subscribe_counter", "Attempts to receive a track.", "state", "error")
        self._twirp = gauge("node_twirp_request_status", "API calls.", "service", "method", "status", "code")
        self._twirp_ms = histogram(
            "node_twirp_request_latency_ms", "API calls, milliseconds.", LATENCY_MS, "service", "method", "status"
        )
        self._join_ms = histogram("session_join_latency_ms", "From the signal connection to media.", LATENCY_MS)
        self._session_ms = histogram("session_duration_ms", "Sessions.", (s * 1000 for s in DURATION_S))
        self._room_s = histogram("room_duration_seconds", "Rooms.", DURATION_S)
        self._rooms = gauge("room_total", "Rooms now.")
        self._participants = gauge("participant_total", "Participants now.")
        self._published = gauge("track_published_total", "Published tracks now.", "kind")
        self._packets = gauge("packet_total", "Datagrams of the media ports.", "direction")
        self._bytes = gauge("packet_bytes", "Their bytes.", "direction")
        self._node_packets = gauge("node_packet_total", "Datagrams sent, and not sent.", "type")
        self._dropped = Gauge(
            "lkactor_dropped_total",
            "Input and output that was dropped, by reason.",
            ("reason",),
            registry=self._registry,
        )
        self._joined_at: dict[tuple[str, str], float] = {}
        self._opened_at: dict[str, float] = {}

    # -- what happens -----------------------------------------------------------------------------------------------

    def observe(self, entry: LogEntry) -> None:
        """One entry of the record of events."""
        for state in JOIN_STATES.get(entry.event, ()):
            self._joins.labels(**self._labels, state=state).inc()
        key = (entry.room, entry.participant)
        match entry.event:
            case "participant.joined":
                self._joined_at[key] = entry.at
            case "active" if key in self._joined_at:
                self._join_ms.labels(**self._labels).observe((entry.at - self._joined_at[key]) * 1000)
            case "participant.left":
                joined = self._joined_at.pop(key, None)
                if joined is not None:
                    self._session_ms.labels(**self._labels).observe((entry.at - joined) * 1000)
            case "join.refused":
                state = "signal_validation_failed" if entry.detail.startswith("401") else "signal_failed"
                self._joins.labels(**self._labels, state=state).inc()
            case "room.started":
                self._opened_at[entry.room] = entry.at
            case "room.finished" if entry.room in self._opened_at:
                self._room_s.labels(**self._labels).observe(entry.at - self._opened_at.pop(entry.room))
            case _:
                self._observe_track(entry)

    def _observe_track(self, entry: LogEntry) -> None:
        match entry.event:
            case "add_track":
                self._publishes.labels(**self._labels, kind=kind_of(entry.detail), state="attempt").inc()
            case "track.published":
                self._publishes.labels(**self._labels, kind=kind_of(entry.detail), state="success").inc()
            case "subscribed":
                self._subscribes.labels(**self._labels, state="success", error="").inc()
            case "subscription.failed":
                self._subscribes.labels(**self._labels, state="failure", error=entry.detail).inc()
            case _:
                pass

    def twirp(self, service: str, method: str, status: int, code: str, milliseconds: float) -> None:
        """One API call. `service` and `method` are ones that exist, so the number of series is bounded."""
        family = f"{status // 100}XX"
        self._twirp.labels(**self._labels, service=service, method=method, status=family, code=code).inc()
        self._twirp_ms.labels(**self._labels, service=service, method=method, status=family).observe(milliseconds)

    # -- what is ----------------------------------------------------------------------------------------------------

    def exposition(
        self,
        rooms: Iterable[models.Room],
        tracks: Iterable[str],
        traffic: Traffic,
        dropped: Mapping[str, int],
    ) -> bytes:
        """The text format. `tracks` are the sids of published tracks."""
        infos, sids = list(rooms), list(tracks)
        self._rooms.labels(**self._labels).set(len(infos))
        self._participants.labels(**self._labels).set(sum(info.num_participants for info in infos))
        for kind in ("audio", "video"):
            self._published.labels(**self._labels, kind=kind).set(sum(kind_of(sid) == kind for sid in sids))
        for direction, packets, size in (
            ("incoming", traffic.packets_in, traffic.bytes_in),
            ("outgoing", traffic.packets_out, traffic.bytes_out),
        ):
            self._packets.labels(**self._labels, direction=direction).set(packets)
            self._bytes.labels(**self._labels, direction=direction).set(size)
        unsent = sum(n for reason, n in dropped.items() if reason.startswith("udp.send"))
        self._node_packets.labels(**self._labels, type="out").set(traffic.packets_out)
        self._node_packets.labels(**self._labels, type="dropped").set(unsent)
        for reason, n in dropped.items():
            self._dropped.labels(reason=reason).set(n)
        return generate_latest(self._registry)
