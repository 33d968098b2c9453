"""One row of the forwarding table: one track on its way to one subscriber.

The subscriber's transport creates the row and grants it to the track, which writes its packets; revoking it is one
write. All numbers that continuity depends on live here, so a track that restarts goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lkactor.sfu.munger import RtpMunger, Vp8Munger
from lkactor.sfu.playout import PlayoutDelay
from lkactor.sfu.rates import Offer
from lkactor.sfu.svc import Rewrite, Selector
from lkactor.sfu.thinning import Vp8Thinner
from lkactor.srtp import SrtpSender
from lkactor.wire.rtcp import ReportBlock

HISTORY = 512
"""Outgoing packets that can be retransmitted; a power of two."""
INITIAL_RTT = 0.070
"""Seconds, until the subscriber has reported."""

MAX_TEMPORAL = 3
"""The highest temporal layer there can be: everything is wanted."""
Rewritten = tuple[int, int, int] | Rewrite | None
"""What was changed in a packet: VP8's picture id, TL0PICIDX and KEYIDX, or what a choice of layers needs."""
Sent = tuple[int, int, int, Rewritten, float, int, int]
"""(out, source extended, layer, what was changed, last sent at, tries, timestamp)."""


class History(Protocol):
    """A ring of HISTORY entries."""

    def __getitem__(self, index: int, /) -> Sent | None: ...

    def __setitem__(self, index: int, sent: Sent | None, /) -> None: ...


class Egress(Protocol):
    """What a leg writes to. Owned by the subscriber's transport."""

    ready: bool
    srtp: SrtpSender | None

    def send_run(self, segments: Sequence[memoryview]) -> None: ...

    def send_rtcp(self, packet: bytes) -> None: ...


class Leg:
    """Mutable on purpose, slotted, flat. Layer -1: none."""

    __slots__ = (
        "abs_send_time_id",
        "cname",
        "codec",
        "codecs",
        "current_layer",
        "dependency_id",
        "disabled",
        "egress",
        "firs",
        "fixed_codec",
        "halted",
        "history",
        "kind",
        "last_sent_at",
        "limit_layer",
        "limit_temporal",
        "munger",
        "nacks",
        "need_switch",
        "octets",
        "offer",
        "packets",
        "paused",
        "payload_types",
        "playout",
        "playout_delay",
        "plis",
        "red_payload_types",
        "refused_since",
        "repeated_nacks",
        "report",
        "report_ntp",
        "report_sent_at",
        "reports_due",
        "resent",
        "resent_octets",
        "revoked",
        "rtt",
        "rtx_payload_types",
        "rtx_sequence",
        "rtx_ssrc",
        "ssrc",
        "strips_trailers",
        "subscriber",
        "svc",
        "target_layer",
        "target_temporal",
        "thinner",
        "track_id",
        "unanswered_nacks",
        "vp8",
        "wanted_fps",
        "wanted_layer",
        "wanted_temporal",
    )

    def __init__(
        self, *, track_id: str, subscriber: str, kind: str, ssrc: int, rtx_ssrc: int, cname: str, egress: Egress
    ) -> None:
        self.track_id = track_id
        self.subscriber = subscriber
        self.kind = kind
        self.ssrc = ssrc
        self.rtx_ssrc = rtx_ssrc
        self.cname = cname
        self.egress = egress
        self.codecs: tuple[str, ...] = ()
        """Mimes of the track's codecs that the subscriber can decode, the preferred first; empty: not asked."""
        self.codec = ""
        """The one it is served from; "": none yet."""
        self.fixed_codec = False
        """The client cannot follow a change of codec; it gets a new leg instead."""
        self.payload_types: Mapping[int, int] = {}
        """The publisher's payload type -> the subscriber's."""
        self.rtx_payload_types: Mapping[int, int] = {}
        """The subscriber's payload type -> that of its retransmissions."""
        self.red_payload_types: Mapping[int, int] = {}
        """The publisher's RED type -> the subscriber's type of the block inside, where RED is passed on."""
        self.strips_trailers = False
        """The track has packet trailers (`lkactor.sfu.trailers`) and the subscriber does not know them."""
        self.abs_send_time_id = 0
        self.playout: PlayoutDelay | None = None
        """In rooms that ask for it."""
        self.playout_delay = 0
        """Its element for the packets of now; 0: none."""
        self.dependency_id = 0
        """The subscriber's id of the dependency descriptor, for AV1; 0 without."""
        self.offer = Offer()
        """What there is to choose from, as the track last measured it."""
        self.wanted_layer = 2
        self.wanted_temporal = MAX_TEMPORAL
        self.wanted_fps = 0
        """Of the subscriber; 0: as many as there are."""
        self.limit_layer = 2
        self.limit_temporal = MAX_TEMPORAL
        """Of its downlink."""
        self.target_layer = 2
        self.target_temporal = MAX_TEMPORAL
        """The lesser of both."""
        self.thinner: Vp8Thinner | None = None
        """While temporal layers of VP8 are left out."""
        self.current_layer = -1
        self.disabled = False
        """The subscriber does not want it now."""
        self.halted = False
        """Its downlink has no room for it."""
        self.paused = False
        """Either of them: nothing goes out."""
        self.revoked = False
        self.need_switch = False
        """The source has changed or paused: the next key frame re-synchronises the numbers."""
        self.svc: Selector | None = None
        """Which layers inside the one stream go out."""
        self.munger = RtpMunger()
        self.vp8 = Vp8Munger()
        ring: list[Sent | None] = [None] * HISTORY
        self.history: History = ring
        """By out sequence."""
        self.rtx_sequence = (ssrc >> 7) & 0x7FFF
        self.refused_since: float | None = None
        self.last_sent_at = 0.0
        self.packets = self.octets = 0
        self.nacks = self.resent = self.resent_octets = self.unanswered_nacks = 0
        self.repeated_nacks = 0
        """Asked for again, though sent again already."""
        self.plis = self.firs = 0
        self.report: ReportBlock | None = None
        """The subscriber's last one about this stream."""
        self.rtt = INITIAL_RTT
        self.report_ntp = 0
        self.report_sent_at = 0.0
        self.reports_due = 0.0

    def leave_source(self) -> None:
        """What comes next is another codec's: the outgoing numbers go on, all that points into the source is void."""
        self.current_layer = -1
        self.svc = None
        self.need_switch = self.munger.started
        for index in range(HISTORY):
            self.history[index] = None
        self.refused_since = None

    @property
    def last_sequence(self) -> int | None:
        """The last that went out; None: none has."""
        return self.munger.last_sequence if self.munger.started else None

    @property
    def open(self) -> bool:
        """Packets can go out."""
        return not (self.paused or self.revoked) and self.egress.ready
