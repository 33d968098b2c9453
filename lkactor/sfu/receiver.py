"""One inbound RTP stream: a track's layer. Statistics, history for retransmission, loss detection, sender reports."""

from __future__ import annotations

from lkactor.sfu.nack import NackGenerator
from lkactor.wire.rtcp import ReportBlock, SenderReport
from lkactor.wire.rtp import RtpPacket, parse_rtp
from lkactor.wire.sequence import seq_diff

LIVE_FOR = 1.5
"""Seconds without a packet after which a layer counts as not sent."""
CYCLE = 65536
"""Extended numbers start one cycle up, so that what came before the first packet is not negative."""
TEMPORALS, SPATIALS = 4, 3
"""Layers inside a stream that are told apart."""
MAX_STRAYS = 5
"""Packets from far behind, one after the other, until the stream is taken to have begun anew there."""
MAX_GAP = 2000
"""A longer jump ahead is a stream that restarted, once a second packet follows the first (RFC 3550 A.1)."""


class LayerReceiver:
    """`history` holds the last packets by extended sequence number, a power of two of them."""

    __slots__ = (
        "_clock_rate",
        "_expected_prior",
        "_history",
        "_history_sequence",
        "_jitter",
        "_last_transit",
        "_mask",
        "_received_prior",
        "_stray",
        "_strays",
        "_window_expected",
        "_window_packets",
        "begun",
        "bytes",
        "duplicates",
        "first",
        "highest",
        "last_arrival",
        "nack",
        "out_of_order",
        "packets",
        "report",
        "report_arrival",
        "restarts",
        "spread",
        "ssrc",
    )

    def __init__(self, clock_rate: int, history: int) -> None:
        size = 1 << (history - 1).bit_length()
        self._mask = size - 1
        self._history: list[RtpPacket | tuple[bytes, float] | None] = [None] * size
        """Parsed, or as it came and when, for `packet` to parse."""
        self._history_sequence = [-1] * size
        self._clock_rate = clock_rate
        self.first = -1
        self._jitter = 0.0
        self._strays = 0
        self._stray = -1
        self._last_transit: float | None = None
        self._expected_prior = self._received_prior = 0
        self._window_expected = self._window_packets = 0
        self.highest = -1
        self.ssrc = 0
        self.packets = self.bytes = self.duplicates = self.out_of_order = 0
        self.spread = [0] * (SPATIALS * TEMPORALS)
        """Octets by spatial x TEMPORALS + temporal layer, for the caller to fill; `take_counts` resets."""
        self.begun = [0] * TEMPORALS
        """Frames begun, by temporal layer; likewise."""
        self.restarts = 0
        """How often the numbers began anew: legs must re-synchronise then."""
        self.last_arrival = float("-inf")
        self.nack = NackGenerator()
        self.report: SenderReport | None = None
        """The last sender report of this layer, and when it came (seconds, monotonic)."""
        self.report_arrival = 0.0

    def receive(self, packet: RtpPacket) -> int:
        """The packet's extended sequence number; -1 for a duplicate or a packet that is too old to matter."""
        if packet.ssrc != self.ssrc:
            self._restart(packet.ssrc)
        now, highest = packet.arrival, self.highest
        extended = packet.sequence + CYCLE if highest < 0 else highest + seq_diff(packet.sequence, highest & 0xFFFF)
        if highest < 0:
            self.first = extended
        elif extended > highest + 1:
            if extended - highest > MAX_GAP:
                return self._far_off(packet, 2)
            self.nack.lost(highest + 1, extended - 1, now)
        elif extended <= highest:
            if extended <= highest - self._mask:
                return self._far_off(packet, MAX_STRAYS + 1)
            if self._has(extended):
                self.duplicates += 1
                return -1
            self.out_of_order += 1
            self.nack.received(extended)
        self._strays = 0
        self._keep(extended, packet)
        if extended > self.highest:
            self.highest = extended
        self.packets += 1
        self.bytes += len(packet.data)
        self.last_arrival = now
        transit = now * self._clock_rate - packet.timestamp
        if self._last_transit is not None:
            # RFC 3550 A.8; a wrapped timestamp shows as a huge step and is left out.
            step = abs(transit - self._last_transit)
            if step < self._clock_rate * 10:
                self._jitter += (step - self._jitter) / 16
        self._last_transit = transit
        return extended

    def _far_off(self, packet: RtpPacket, proof: int) -> int:
        """A straggler, or, when `proof` packets follow each other there, a stream that began anew (RFC 3550 A.1)."""
        self._strays = self._strays + 1 if packet.sequence == self._stray else 1
        self._stray = (packet.sequence + 1) & 0xFFFF
        if self._strays < proof:
            self.duplicates += 1
            return -1
        self._restart(packet.ssrc)
        return self.receive(packet)

    def _keep(self, extended: int, packet: RtpPacket) -> None:
        slot = extended & self._mask
        self._history[slot] = packet
        self._history_sequence[slot] = extended

    def _has(self, extended: int) -> bool:
        return self._history_sequence[extended & self._mask] == extended

    def _forget(self) -> None:
        self._history_sequence = [-1] * (self._mask + 1)

    def packet(self, extended: int) -> RtpPacket | None:
        """From the history."""
        slot = extended & self._mask
        if self._history_sequence[slot] != extended:
            return None
        kept = self._history[slot]
        if isinstance(kept, tuple):
            kept = self._history[slot] = parse_rtp(*kept)
        return kept

    def take_counts(self) -> tuple[list[int], list[int]]:
        """`spread` and `begun` since the last call."""
        spread, begun = list(self.spread), list(self.begun)
        self.spread, self.begun = [0] * (SPATIALS * TEMPORALS), [0] * TEMPORALS
        return spread, begun

    def take_levels(self) -> list[tuple[int, int]]:
        """(timestamp, level in -dBov) of packets that only the forwarding plane has seen, since the last call."""
        return []

    def note_losses(self) -> None:
        """What is missing before those packets is to be asked for."""

    def take_latency(self) -> float:
        """Seconds that one of those packets took, 0 if there was none since the last call."""
        return 0.0

    def live(self, now: float) -> bool:
        return now - self.last_arrival < LIVE_FOR

    def on_report(self, report: SenderReport, arrival: float) -> bool:
        """False: of another source, such as the retransmissions, or older than the last one."""
        if report.ssrc != self.ssrc or (self.report is not None and report.ntp <= self.report.ntp):
            return False
        self.report, self.report_arrival = report, arrival
        return True

    @property
    def jitter(self) -> float:
        """In units of the RTP clock."""
        return self._jitter

    def report_block(self, now: float) -> ReportBlock | None:
        """RFC 3550 A.3; None before the first packet."""
        if self.highest < 0:
            return None
        expected = self.highest - self.first + 1
        lost = expected - self.packets
        interval, received = expected - self._expected_prior, self.packets - self._received_prior
        self._expected_prior, self._received_prior = expected, self.packets
        fraction = max(0, min(255, ((interval - received) << 8) // interval)) if interval > 0 else 0
        lsr = (self.report.ntp >> 16) & 0xFFFFFFFF if self.report is not None else 0
        dlsr = int((now - self.report_arrival) * 65536) & 0xFFFFFFFF if self.report is not None else 0
        return ReportBlock(self.ssrc, fraction, lost, self.highest - CYCLE, int(self._jitter), lsr, dlsr)

    def window(self) -> tuple[int, int]:
        """(packets expected, packets lost) since the last call; what was sent again in time is not lost."""
        expected = self.highest - self.first + 1 if self.highest >= 0 else 0
        result = (
            expected - self._window_expected,
            (expected - self._window_expected) - (self.packets - self._window_packets),
        )
        self._window_expected, self._window_packets = expected, self.packets
        return result

    def _restart(self, ssrc: int) -> None:
        """Another source, or the same one anew: numbers and reports start over, counters go on."""
        if self.highest >= 0:
            self.restarts += 1
        self.ssrc = ssrc
        self._strays, self._stray = 0, -1
        self._forget()
        self.highest = -1
        self.packets = 0
        self._expected_prior = self._received_prior = 0
        self._window_expected = self._window_packets = 0
        self._last_transit = None
        self.report = None
        self.nack.clear()
