"""Transport-wide feedback to a publisher: without it a browser's uplink estimate cannot grow (livekit-media 3.6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lkactor.wire import extensions
from lkactor.wire.rtcp import TransportFeedback
from lkactor.wire.rtp import RtpPacket
from lkactor.wire.sequence import Unwrapper

INTERVAL = 0.100
FRAME_INTERVAL = 0.050
MIN_PACKETS, MAX_PACKETS = 20, 100
EARLY = 0.03
"""Seconds by which a report may be early: who is asked in time, together with others, needs no timer of its own."""
MAX_SPAN = 1000
"""Statuses in all: what is further back was lost long ago."""
MAX_STATUSES = 400
"""In one report, which must fit a datagram: 3 bytes each at most."""
Arrival = tuple[float, int, int, bool]
"""When, SSRC, transport-wide sequence number, marker."""


class TwccRecorder:
    """Arrival times by transport-wide sequence number, for one peer connection."""

    def __init__(self) -> None:
        self._unwrapper = Unwrapper(16)
        self._arrivals: dict[int, float] = {}
        self._reported = -1
        self._last_at = 0.0
        self._count = 0
        self._ssrc = 0
        self._marker = False
        self._first_pending: float | None = None

    def note_packets(self, packets: Sequence[RtpPacket], extension_id: int) -> None:
        if not extension_id:
            return
        arrivals: list[Arrival] = []
        for packet in packets:
            if packet.rest:
                continue
            value = packet.extension(extension_id)
            sequence = extensions.transport_cc(value) if value is not None else None
            if sequence is not None:
                arrivals.append((packet.arrival, packet.ssrc, sequence, packet.marker))
        self.note(arrivals)

    def note(self, arrivals: Iterable[Arrival]) -> None:
        known, reported, unwrap = self._arrivals, self._reported, self._unwrapper.unwrap
        for arrival, ssrc, sequence, marker in arrivals:
            extended = unwrap(sequence)
            if extended <= reported:
                continue  # Told lost already; a report that went back would call its neighbours lost.
            known[extended] = arrival
            self._ssrc = ssrc
            if marker:
                self._marker = True
            if self._first_pending is None:
                self._first_pending = arrival

    def next_timeout(self) -> float | None:
        return None if self._first_pending is None else self._first_pending + INTERVAL

    def feedback(self, now: float) -> list[TransportFeedback]:
        """Reports, one as a rule: of enough packets after the interval, or of whatever there is when it gets late."""
        pending, elapsed = len(self._arrivals), now - self._last_at
        if self._first_pending is None:
            return []
        late = now + EARLY >= self._first_pending + INTERVAL
        enough = pending > MIN_PACKETS and (elapsed + EARLY >= INTERVAL or (self._marker and elapsed >= FRAME_INTERVAL))
        if not (late or enough or pending > MAX_PACKETS):
            return []
        known = self._arrivals
        first, last = min(known), max(known)
        if self._reported >= 0:
            first = min(first, self._reported + 1)
        numbers = range(max(first, last - MAX_SPAN + 1), last + 1)
        arrivals = tuple([(number & 0xFFFF, known.get(number)) for number in numbers])
        self._reported = max(last, self._reported)
        known.clear()
        self._first_pending, self._marker, self._last_at = None, False, now
        reports = []
        for start in range(0, len(arrivals), MAX_STATUSES):
            part = arrivals[start : start + MAX_STATUSES]
            if any(at is not None for _, at in part):
                reports.append(TransportFeedback(self._ssrc, self._ssrc, self._count, part))
                self._count = (self._count + 1) & 255
        return reports
