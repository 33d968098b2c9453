"""The receiving half of the Python plane: what needs no decision goes from the socket to the legs at once.

As `steady.c`: a packet is *steady* if it is newer than all that came of a known stream, of a payload type that can be
read here (Opus, RED, VP8, H264), no key frame, and without anything unusual in its header. It is kept for
retransmission, counted, its transport-wide number and audio level are noted, and it goes to the legs with the rest of
its burst. Everything else goes up, opened. A packet behind a gap is steady only if nothing of its stream has gone up
that has not been numbered yet, and what is missing is left for `LayerReceiver.nack`. So all that follows what goes up
waits with it, and goes to the legs when that is numbered (`InlineIngress.take`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from struct import Struct
from typing import TYPE_CHECKING, Any

from lkactor.errors import ProtocolViolation
from lkactor.ice import Consent
from lkactor.plane.cells import OPENED, REST, RTCP, HandedUp, PackedAddress, SocketCell
from lkactor.plane.consent import SharedConsent
from lkactor.plane.convoy import MAX_PAYLOAD, Packet
from lkactor.plane.fed import H264, UP, VP8, FedReceiver, Loss
from lkactor.plane.inline import Clock
from lkactor.sfu.receiver import MAX_GAP
from lkactor.sfu.twcc import Arrival
from lkactor.srtp import PacketBuffer, SrtpReceiver
from lkactor.wire.codecs import vp8
from lkactor.wire.rtp import RTP_HEADER_SIZE, is_rtcp

if TYPE_CHECKING:
    from lkactor.plane.steady import SteadyFanout

MOST_SOURCES, MOST_ARRIVALS, MOST_LEVELS, MOST_LOSSES = 64, 512, 64, 32
"""Streams of one peer that are received here; what waits to be taken, of a peer and of a stream."""
_header = Struct("!BBHI").unpack_from
_extension_header = Struct("!HH").unpack_from
_make = tuple.__new__
"""What `Packet` does when it is called, without the call."""
Elements = tuple[int, int, int, Sequence[tuple[int, int]], int, int]
"""The header extension elements of a packet: the ids of transport-wide numbers and audio levels, the extension's end,
where elements begin and with what, up to the last one sought, and where the two values are, 0: nowhere."""
Opened = tuple[bytes, int]
"""A datagram and what became of it: unprotected, and OPENED, REST or RTCP; or as it came, and 0."""


class Intake:
    """What has been received in a batch and not gone to the legs yet, and who has news."""

    def __init__(self) -> None:
        self.batch = 0
        self.waiting: list[InlineReceiver] = []
        """With a burst."""
        self.news: dict[InlineIngress, None] = {}
        self.has_losses = False
        """Among the news."""
        self.holding: OrderedDict[InlineIngress, float] = OrderedDict()
        """With reports that wait for more of their peer: when they have waited long enough. The first is due first."""
        self.put_up = self.taken = 0
        """Datagrams for the loop, in one order: so many, and so many of them it has taken."""

    def flush(self, offset: float, clock: Clock) -> None:
        """The end of a batch: what it brought goes to the legs. `offset`: from `clock` to the time of arrivals."""
        self.batch += 1
        waiting = self.waiting
        if waiting:
            self.deliver(clock() + offset)
            ended = clock() + offset
            for source in waiting:
                source.latency = ended - source.last_arrival

    def deliver(self, now: float) -> None:
        waiting, self.waiting = self.waiting, []
        for source in waiting:
            burst, source.burst = source.burst, []
            if source.fanout is not None:
                source.fanout.deliver(source.layer, burst, source.before, now)

    def tell_news(self) -> bool:
        """Call `on_news` of every ingress that has something to tell. False: none had."""
        told, self.news = self.news, {}
        self.has_losses = False
        for ingress in told:
            if ingress.on_news is not None:
                ingress.on_news()
        return bool(told)


class InlineIngress:
    """Where one peer connection is read. `ready`: RTP can be opened."""

    def __init__(self, intake: Intake, lock: AbstractContextManager[object], *, protect: bool) -> None:
        self._intake, self._lock, self._protect = intake, lock, protect
        self.on_news: Callable[[], None] | None = None
        self.ready = False
        self.transport_cc_id = 0
        self.heard = -math.inf
        self._consent: SharedConsent | None = None
        self._srtp: SrtpReceiver | None = None
        self._sources: dict[bytes, InlineReceiver] = {}
        """By SSRC, as it stands in a packet."""
        self._refused: dict[str, int] = {}
        self.eager = False
        self.estimate = 0
        """The peer's last one, bits per second."""
        self.held: list[HandedUp] = []
        """Reports that wait for more of this peer."""
        self.arrivals: list[Arrival] = []

    def set_keys(self, srtp: SrtpReceiver | None) -> None:
        with self._lock:
            self._srtp = srtp
            self.ready = srtp is not None

    def set_transport_cc(self, id: int) -> None:
        self.transport_cc_id = id

    def set_eager(self, eager: bool) -> None:
        self.eager = eager

    def set_consent(self, socket: SocketCell | None, address: PackedAddress, consent: Consent | None) -> None:
        with self._lock:
            self._consent = None
            if socket is not None and consent is not None:
                self._consent = SharedConsent(socket, address, consent)

    def consent_for(self, socket: SocketCell, sockaddr: tuple[Any, ...]) -> SharedConsent | None:
        """What is known of the checks that come so."""
        consent = self._consent
        return consent if consent is not None and consent.is_path(socket, sockaddr) else None

    def attach(self, source: InlineReceiver) -> None:
        """Packets of its SSRC are its own from now on; too many are left to Python."""
        self.detach(source)
        if len(self._sources) < MOST_SOURCES:
            self._sources[source.ssrc.to_bytes(4, "big")] = source
            # What went up before may be of this stream, with any number.
            source.waits, source.up = self._intake.put_up, math.inf

    def detach(self, source: InlineReceiver) -> None:
        for ssrc in [ssrc for ssrc, known in self._sources.items() if known is source]:
            del self._sources[ssrc]

    def receive(self, buffer: PacketBuffer, size: int, now: float) -> Opened | None:
        """RTP of this peer, protected, in the first octets of a buffer. What of it has to go up; None: nothing."""
        if not self._protect:
            data = buffer.view[:size].tobytes()
        elif self._srtp is None:
            return None
        else:
            try:
                data = self._srtp.unprotect_rtp_in(buffer, size)
            except ProtocolViolation as violation:
                self._refused[violation.reason] = self._refused.get(violation.reason, 0) + 1
                self._intake.news[self] = None
                return None
        source = self._sources.get(data[8:12])
        if source is None:
            return data, OPENED
        rest = source.take(self, self._intake, data, now, behind=source.waits > self._intake.taken)
        if rest == OPENED:
            source.note_up(self._intake, data[2] << 8 | data[3])
        return (data, rest) if rest else None

    def open_other(self, data: bytes) -> Opened:
        """What is no RTP. RTCP that cannot be opened goes up as it came: whoever reads it counts why."""
        if not self.ready or not is_rtcp(data) or data[0] >> 6 != 2 or len(data) < RTP_HEADER_SIZE:
            return data, 0
        if not self._protect:
            return data, RTCP
        try:
            return (data, 0) if self._srtp is None else (self._srtp.unprotect_rtcp(data), RTCP)
        except ProtocolViolation:
            return data, 0

    def take_again(self, data: bytes, now: float) -> int:
        """RTP of this peer, unprotected, that had to go up: OPENED, REST, or 0, nothing of it has to any more, for what
        came before it has been numbered."""
        source = self._sources.get(data[8:12])
        return source.take(self, self._intake, data, now, behind=False) if source is not None else OPENED

    def note_taken(self, data: bytes) -> None:
        """It is in the loop's hands, which is to number it."""
        source = self._sources.get(data[8:12])
        if source is not None:
            source.note_taken(data[2] << 8 | data[3])

    def note(self, arrival: Arrival) -> None:
        if len(self.arrivals) < MOST_ARRIVALS:
            self.arrivals.append(arrival)
        self._intake.news[self] = None

    def has_level(self) -> None:
        self._intake.news[self] = None

    def has_loss(self) -> None:
        self._intake.news[self] = None
        self._intake.has_losses = True

    @property
    def has_track_news(self) -> bool:
        with self._lock:
            return any(source.levels or source.losses for source in self._sources.values())

    def take_arrivals(self) -> list[Arrival]:
        if not self.arrivals:
            return []
        with self._lock:
            taken, self.arrivals = self.arrivals, []
        return taken

    def take_refusals(self) -> Mapping[str, int]:
        with self._lock:
            taken, self._refused = self._refused, {}
        return taken


class InlineReceiver(FedReceiver):
    """A `LayerReceiver` that is also handed packets before anybody else has seen them."""

    __slots__ = (
        "_checked",
        "_checked_type",
        "_elements",
        "_kinds",
        "_leaving",
        "_level_id",
        "_taken",
        "before",
        "burst",
        "fanout",
        "latency",
        "layer",
        "levels",
        "losses",
        "steady",
        "up",
        "waits",
    )

    ingress_type = InlineIngress

    def __init__(self, layer: int, clock_rate: int, history: int) -> None:
        super().__init__(clock_rate, history)
        self.layer = layer
        self.fanout: SteadyFanout | None = None
        self.burst: list[Packet] = []
        """To go to the legs."""
        self.before = -1
        """What this stream had come to before that."""
        self.waits = 0
        """The last datagram that went up and may be of this stream, by `Intake.put_up`."""
        self.up: float = -1
        self._taken = -1
        """The highest number of what waits so, and of what the loop has taken."""
        self.losses: list[Loss] = []
        self.levels: list[tuple[int, int]] = []
        self.latency = 0.0
        self.steady = 0
        """Packets that nobody else has seen."""
        self._ingress = None
        self._kinds: Mapping[int, int] = {}
        self._level_id = 0
        self._elements: Elements = 0, 0, 0, (), 0, 0
        """Of the newest packet that had some."""
        self._checked = self._checked_type = -1
        """The batch in which the legs were looked at, and for which payload type."""
        self._leaving = 0
        """Legs that were left in it."""

    def adopt(self, fanout: Any, ingress: Any, kinds: Mapping[int, int], level_id: int) -> None:
        self.fanout, self._kinds, self._level_id = fanout, kinds, level_id
        self._follow(ingress)

    def take_levels(self) -> list[tuple[int, int]]:
        taken, self.levels = self.levels, []
        return taken

    def take_losses(self) -> Sequence[Loss]:
        taken, self.losses = self.losses, []
        return taken

    def note_up(self, intake: Intake, sequence: int) -> None:
        """A packet is about to go up."""
        number = self._likely_number(sequence)
        self.up = number if self.waits <= intake.taken else max(self.up, number)
        self.waits = intake.put_up + 1

    def note_taken(self, sequence: int) -> None:
        """The loop has it, and is to number it."""
        self._taken = max(self._taken, self._likely_number(sequence))

    def _likely_number(self, sequence: int) -> int:
        """That the loop will give to a packet, as far as can be told; -1: it is late, or too far off."""
        ahead = sequence - self.highest & 0xFFFF
        return -1 if self.highest < 0 or not 0 < ahead <= MAX_GAP else self.highest + ahead

    def take_latency(self) -> float:
        latency, self.latency = self.latency, 0.0
        return latency

    def take(self, ingress: InlineIngress, intake: Intake, data: bytes, now: float, *, behind: bool) -> int:
        """OPENED: it has to be looked at, and nothing has been noted. REST: it goes to the legs with its batch, but
        some are left. 0: nothing is left. `behind`: some of the stream waits for the loop, and is older."""
        before = self.highest
        first, second, sequence, timestamp = _header(data)
        ahead = sequence - before & 0xFFFF
        extended = before + ahead
        if before < 0 or first & 0xEF != 0x80 or not (ahead == 1 or self._can_miss(ahead, behind=behind)):
            return OPENED  # The first, late, of another version, with padding or contributing sources.
        if self._taken >= extended or (behind and self.up >= extended):
            return OPENED  # It would overtake.
        at = 12
        if first & 0x10:
            if len(data) < 16:
                return OPENED
            profile, words = _extension_header(data, 12)
            at = 16 + 4 * words
            if profile != 0xBEDE:
                return OPENED
        payload = data[at:]
        size = len(payload)
        payload_type, marker = second & 127, second > 127
        kind = self._kinds.get(payload_type, UP)
        if kind == UP or not 0 < size <= MAX_PAYLOAD:
            return OPENED
        fields: vp8.Fields | None = None
        temporal, begins = 0, False
        if kind == VP8:
            if size < 8:
                return OPENED  # The longest descriptor has six octets.
            fields = vp8.read_fields(payload)
            begins, _, _, _, _, _, temporal, _, _, start, _ = fields
            if begins and not payload[start] & 1:
                return OPENED  # A key frame.
        elif kind == H264 and not _is_plain_h264(payload):
            return OPENED
        fanout, left = self.fanout, 0
        flows = fanout is not None and not fanout.muted
        if flows:
            left = self._count_left(intake, extended, payload_type, now)
        if ahead > 1:
            if left:
                return OPENED  # Such a leg may want what is missing (RED).
            self.losses.append((before + 1, extended - 1, now))
            ingress.has_loss()
        self._note(extended, data, timestamp, now)
        if kind == VP8:
            self.spread[temporal if temporal > 0 else 0] += size
            self.begun[temporal if temporal > 0 else 0] += begins
        elif kind == H264:
            self.begun[0] += marker
        if at > 16 and (ingress.transport_cc_id or self._level_id):
            self._note_extensions(ingress, data, at, timestamp, marker, now)
        if flows:
            if not self.burst:
                intake.waiting.append(self)
                self.before = before
            self.burst.append(_make(Packet, (extended, timestamp, payload_type, marker, payload, fields)))
        return REST if left else 0

    def _can_miss(self, ahead: int, *, behind: bool) -> bool:
        """A packet so far ahead need not be looked at: nothing between it and the newest one is in anybody's hands."""
        waits = behind or self._taken > self.highest
        return not waits and 0 < ahead <= MAX_GAP and len(self.losses) < MOST_LOSSES

    def _count_left(self, intake: Intake, extended: int, payload_type: int, now: float) -> int:
        """How many legs cannot have this packet from here. Legs do not change within a batch, and what is next for one
        of them stays so for what follows; only another payload type has to be looked at anew."""
        if self._checked == intake.batch:
            if self._checked_type == payload_type:
                return self._leaving
            intake.deliver(now)
        self._checked, self._checked_type = intake.batch, payload_type
        fanout = self.fanout
        self._leaving = fanout.count_left(self.layer, self.highest, extended, payload_type) if fanout is not None else 0
        return self._leaving

    def _forget(self) -> None:
        super()._forget()
        self._taken, self.losses = -1, []

    def _note(self, extended: int, data: bytes, timestamp: int, now: float) -> None:
        """As `receive`, of a packet that is the newest one."""
        slot = extended & self._mask
        self._history[slot] = (data, now)
        self._history_sequence[slot] = extended
        self._strays = 0
        self.highest = extended
        self.packets += 1
        self.bytes += len(data)
        self.last_arrival = now
        clock_rate = self._clock_rate
        transit = now * clock_rate - timestamp
        if self._last_transit is not None:
            step = abs(transit - self._last_transit)
            if step < clock_rate * 10:
                self._jitter += (step - self._jitter) / 16
        self._last_transit = transit
        self.steady += 1

    def _note_extensions(
        self, ingress: InlineIngress, data: bytes, end: int, timestamp: int, marker: bool, now: float
    ) -> None:
        """A stream's packets mostly have the same elements at the same places, so it is looked if this one has, too."""
        transport_cc_id, level_id, known_end, heads, transport_cc_at, level_at = self._elements
        same = known_end == end and transport_cc_id == ingress.transport_cc_id and level_id == self._level_id
        if same:
            for at, head in heads:
                if data[at] != head:
                    same = False
                    break
        if not same:
            self._elements = _find_elements(data, end, ingress.transport_cc_id, self._level_id)
            _, _, _, _, transport_cc_at, level_at = self._elements
        if transport_cc_at:
            ingress.note((now, self.ssrc, data[transport_cc_at] << 8 | data[transport_cc_at + 1], marker))
        if level_at:
            if len(self.levels) < MOST_LEVELS:
                self.levels.append((timestamp, data[level_at] & 127))
            ingress.has_level()


def _find_elements(data: bytes, end: int, transport_cc_id: int, level_id: int) -> Elements:
    """One-byte header extensions (RFC 8285 section 4.2) from octet 16 on; of each the first element counts."""
    heads: list[tuple[int, int]] = []
    transport_cc_at = level_at = 0
    sought = {transport_cc_id, level_id} - {0}
    at = 16
    while at < end and sought:
        head = data[at]
        heads.append((at, head))
        at += 1
        if not head:
            continue
        id, length = head >> 4, (head & 15) + 1
        if id == 15 or not id or at + length > end:
            break
        if id in sought:
            sought.discard(id)
            if id == transport_cc_id and length >= 2:
                transport_cc_at = at
            if id == level_id:
                level_at = at
        at += length
    return transport_cc_id, level_id, end, heads, transport_cc_at, level_at


def _is_plain_h264(payload: bytes) -> bool:
    """A slice of no key frame, or a fragment of one (RFC 6184 sections 5.2, 5.8)."""
    kind = payload[0] & 31
    if kind == 28:
        return len(payload) > 1 and payload[1] & 31 != 7
    return kind in (1, 5)
