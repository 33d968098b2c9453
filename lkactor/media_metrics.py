"""What the streams of this node do, for Prometheus: the `livekit_packet_*`, `_nack_`, `_loss_`, `_jitter_` ... series.

Tracks hand in their forwarders every few seconds (`sample`), and this reads the counters that are there anyway, so that
a packet costs nothing. "incoming" is a publisher's stream, "outgoing" one to a subscriber; a publisher's that lives for
less than the time between two samples is not seen. Source: livekit-surface 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from livekit.protocol import models
from prometheus_client import Counter, Gauge, Histogram

from lkactor.metric_families import Families
from lkactor.sfu.forwarder import TrackForwarder
from lkactor.sfu.leg import INITIAL_RTT, Leg
from lkactor.sfu.receiver import LayerReceiver

PERCENT = (0.0, 0.1, 0.3, 0.5, 0.7, 1, 5, 10, 40, 100)
JITTER_US = (1000, 10000, 30000, 50000, 70000, 100000, 300000, 600000, 1000000)
RTT_MS = (50, 100, 150, 200, 250, 500, 750, 1000, 5000, 10000)
LATENCY_NS = (50e3, 100e3, 250e3, 500e3, 1e6, 2e6, 3e6, 5e6, 10e6, 20e6)
STREAM = ("direction", "source", "type", "country")
RTP_HEADER = 12
ABS_SEND_TIME = 8
"""Bytes of the header extension with one element."""
SMOOTHING = 1 / 16
Family = Counter | Gauge | Histogram


@dataclass(slots=True)
class _Seen:
    """The counters of one stream at the last sample."""

    packets: int = 0
    bytes: int = 0
    resent: int = 0
    resent_bytes: int = 0
    nacks: int = 0
    plis: int = 0
    firs: int = 0
    lost: int = 0
    out_of_order: int = 0
    expected: int = 0
    restarts: int = 0


@dataclass(slots=True)
class _Track:
    source: str
    kind: str
    layers: dict[LayerReceiver, _Seen] = field(default_factory=dict)
    forwarders: dict[TrackForwarder, _Seen] = field(default_factory=dict)
    legs: dict[Leg, _Seen] = field(default_factory=dict)


class MediaMetrics:
    """All tracks of one node."""

    def __init__(self, families: Families) -> None:
        self._labels = families.labels
        counter, histogram = families.counter, families.histogram
        wire = ("direction", "transmission", "country")
        self._packets = counter("packet_total", "RTP packets.", *wire)
        self._bytes = counter("packet_bytes", "Their bytes.", *wire)
        rtcp = ("direction", "country")
        self._nacks = counter("nack_total", "Packets that were asked for again.", *rtcp)
        self._plis = counter("pli_total", "Key frame requests: PLI.", *rtcp)
        self._firs = counter("fir_total", "Key frame requests: FIR.", *rtcp)
        self._lost = counter("packet_loss_total", "Packets that never came.", *STREAM)
        self._loss = histogram("packet_loss_percent", "Loss of streams, every few seconds.", PERCENT, *STREAM)
        self._late = counter("packet_out_of_order_total", "Packets that came late.", *STREAM)
        self._disorder = histogram("packet_out_of_order_percent", "Their share, every few seconds.", PERCENT, *STREAM)
        self._jitter = histogram("jitter_us", "Jitter of streams, microseconds.", JITTER_US, *STREAM)
        self._rtt = histogram("rtt_ms", "Round trip times of streams, milliseconds.", RTT_MS, *STREAM)
        self._published = families.gauge("track_published_total", "Published tracks now.", "kind")
        self._subscribed = families.gauge("track_subscribed_total", "Subscribed tracks now.", "kind")
        self._forward_latency = families.gauge("forward_latency", "Smoothed time in this server, nanoseconds.")
        self._forward_jitter = families.gauge("forward_jitter", "Its smoothed variation, nanoseconds.")
        self._forward_ns = histogram("forward_latency_ns", "Sampled time in this server, nanoseconds.", LATENCY_NS)
        self._latency: float | None = None
        self._variation = 0.0
        self._tracks: dict[str, _Track] = {}
        self._series: dict[tuple[object, ...], Any] = {}

    # -- what is ----------------------------------------------------------------------------------------------------

    @property
    def published(self) -> int:
        """Tracks now."""
        return len(self._tracks)

    @property
    def subscribed(self) -> int:
        """Legs now, as of the last samples."""
        return sum(1 for track in self._tracks.values() for leg in track.legs if not leg.revoked)

    def refresh(self) -> None:
        """Before the text is made."""
        for kind in ("AUDIO", "VIDEO"):
            tracks = [track for track in self._tracks.values() if track.kind == kind]
            legs = sum(1 for track in tracks for leg in track.legs if not leg.revoked)
            self._of(self._published, kind).set(len(tracks))
            self._of(self._subscribed, kind).set(legs)

    # -- what tracks say --------------------------------------------------------------------------------------------

    def began(self, info: models.TrackInfo) -> None:
        """A track is there; said again after a restart, it changes nothing."""
        if info.sid not in self._tracks:
            kind = models.TrackType.Name(info.type)
            self._tracks[info.sid] = _Track(models.TrackSource.Name(info.source), kind)

    def ended(self, sid: str) -> None:
        self._tracks.pop(sid, None)

    def leg_added(self, sid: str, leg: Leg) -> None:
        """Counts from now on: what it sent of the track's former incarnation has been counted."""
        track = self._tracks.get(sid)
        if track is not None:
            track.legs.setdefault(leg, _seen_of(leg))

    def leg_removed(self, sid: str, leg: Leg, clock_rate: int) -> None:
        """Read a last time, now: of a crowd that comes and goes hundreds would be left for one sample."""
        track = self._tracks.get(sid)
        seen = track.legs.pop(leg, None) if track is not None else None
        if track is not None and seen is not None:
            self._sample_legs(track, {leg: seen}, {leg: clock_rate})

    def sample(self, sid: str, forwarders: Iterable[TrackForwarder]) -> None:
        """Read all counters of a track's streams. Legs that are gone are read a last time."""
        track = self._tracks.get(sid)
        if track is None:
            return
        kept = list(forwarders)
        self._sample_uplink(track, kept)
        present = {leg for forwarder in kept for leg in forwarder.legs}
        rates = {leg: forwarder.clock_rate for forwarder in kept for leg in forwarder.legs}
        for leg in present:
            track.legs.setdefault(leg, _seen_of(leg))
        self._sample_legs(track, track.legs, rates)
        for leg in track.legs.keys() - present:
            del track.legs[leg]

    def latency(self, seconds: float) -> None:
        """One sample of how long packets have been in this server."""
        ns = seconds * 1e9
        self._of(self._forward_ns).observe(ns)
        if self._latency is None:
            self._latency = ns
        self._variation += (abs(ns - self._latency) - self._variation) * SMOOTHING
        self._latency += (ns - self._latency) * SMOOTHING
        self._of(self._forward_latency).set(round(self._latency))
        self._of(self._forward_jitter).set(round(self._variation))

    # -- reading ----------------------------------------------------------------------------------------------------

    def _sample_uplink(self, track: _Track, forwarders: list[TrackForwarder]) -> None:
        now = {receiver: forwarder for forwarder in forwarders for receiver in forwarder.receivers}
        track.layers = {receiver: track.layers.get(receiver) or _Seen() for receiver in now}
        track.forwarders = {forwarder: track.forwarders.get(forwarder) or _Seen() for forwarder in forwarders}
        for forwarder, seen in track.forwarders.items():
            self._count_rtcp("incoming", forwarder.nacks_sent - seen.nacks, forwarder.plis_sent - seen.plis, 0)
            seen.nacks, seen.plis = forwarder.nacks_sent, forwarder.plis_sent
        for receiver, seen in track.layers.items():
            self._sample_layer(track, receiver, seen, now[receiver].clock_rate)

    def _sample_layer(self, track: _Track, receiver: LayerReceiver, seen: _Seen, clock_rate: int) -> None:
        if receiver.restarts != seen.restarts:
            # Numbers began anew: what was lost across that is not known. Bytes and disorder go on.
            seen.restarts, seen.packets, seen.expected = receiver.restarts, 0, 0
        expected = receiver.highest - receiver.first + 1 if receiver.highest >= 0 else 0
        packets, total = receiver.packets - seen.packets, expected - seen.expected
        late, size = receiver.out_of_order - seen.out_of_order, receiver.bytes - seen.bytes
        seen.packets, seen.expected = receiver.packets, expected
        seen.out_of_order, seen.bytes = receiver.out_of_order, receiver.bytes
        if packets <= 0:
            return
        self._count("incoming", "initial", packets, size)
        self._observe_loss("incoming", track, max(0, total - packets), total)
        self._stream(self._disorder, "incoming", track).observe(100 * late / packets)
        if late:
            self._stream(self._late, "incoming", track).inc(late)
        if receiver.jitter > 0:
            self._stream(self._jitter, "incoming", track).observe(receiver.jitter * 1e6 / clock_rate)

    def _sample_legs(self, track: _Track, legs: dict[Leg, _Seen], rates: Mapping[Leg, int]) -> None:
        """Of hundreds: what can be added up is counted once."""
        sent = _Seen()
        for leg, seen in legs.items():
            legs[leg] = now = _seen_of(leg)
            resent, again = now.resent - seen.resent, now.resent_bytes - seen.resent_bytes
            packets = now.packets - seen.packets - resent
            if packets > 0:
                sent.packets += packets
                sent.bytes += max(0, now.bytes - seen.bytes - again)
                self._observe_leg(track, leg, now.lost - seen.lost, packets, rates.get(leg, 0))
            sent.resent += resent
            sent.resent_bytes += again
            sent.nacks += now.nacks - seen.nacks
            sent.plis += now.plis - seen.plis
            sent.firs += now.firs - seen.firs
        self._count("outgoing", "initial", sent.packets, sent.bytes)
        self._count("outgoing", "retransmit", sent.resent, sent.resent_bytes)
        self._count_rtcp("outgoing", sent.nacks, sent.plis, sent.firs)

    def _observe_leg(self, track: _Track, leg: Leg, lost: int, packets: int, clock_rate: int) -> None:
        report = leg.report
        if report is not None:
            self._observe_loss("outgoing", track, min(packets, max(0, lost)), packets)
            if report.jitter > 0 and clock_rate:
                self._stream(self._jitter, "outgoing", track).observe(report.jitter * 1e6 / clock_rate)
        if leg.rtt != INITIAL_RTT:
            self._stream(self._rtt, "outgoing", track).observe(leg.rtt * 1000)

    def _observe_loss(self, direction: str, track: _Track, lost: int, total: int) -> None:
        if total <= 0:
            return
        self._stream(self._loss, direction, track).observe(100 * lost / total)
        if lost:
            self._stream(self._lost, direction, track).inc(lost)

    def _count(self, direction: str, transmission: str, packets: int, size: int) -> None:
        if packets > 0:
            self._of(self._packets, direction, transmission, "").inc(packets)
            self._of(self._bytes, direction, transmission, "").inc(max(0, size))

    def _count_rtcp(self, direction: str, nacks: int, plis: int, firs: int) -> None:
        for family, n in ((self._nacks, nacks), (self._plis, plis), (self._firs, firs)):
            if n > 0:
                self._of(family, direction, "").inc(n)

    def _stream(self, family: Family, direction: str, track: _Track) -> Any:
        return self._of(family, direction, track.source, track.kind, "")

    def _of(self, family: Family, *values: str) -> Any:
        """Its series with these values behind the node's labels: the library takes four microseconds to find it."""
        series = self._series.get((family, values))
        if series is None:
            series = self._series[family, values] = family.labels(*self._labels.values(), *values)
        return series


def _seen_of(leg: Leg) -> _Seen:
    header = RTP_HEADER + (ABS_SEND_TIME if leg.abs_send_time_id else 0)
    return _Seen(
        packets=leg.packets,
        bytes=leg.octets + leg.packets * header,
        resent=leg.resent,
        resent_bytes=leg.resent_octets + leg.resent * header,
        nacks=leg.nacks,
        plis=leg.plis,
        firs=leg.firs,
        lost=leg.report.packets_lost if leg.report is not None else 0,
    )
