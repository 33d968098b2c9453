"""How well a subscriber receives: its reports about our streams, scored per window. Pure.

Loss upstream is not held against the downlink: what was never sent cannot be lost here.
"""

from __future__ import annotations

from collections.abc import Iterable

from lkactor.sfu.leg import Leg
from lkactor.sfu.quality import StreamScore, loss_weight
from lkactor.wire.rtcp import ReportBlock

REPORT_TIMEOUT = 30.0
"""Without a receiver report for this long there is no score."""


def layers_missing(leg: Leg) -> int:
    """By how many sizes of the picture the leg is behind what is wished and sent."""
    sent = [spatial for spatial, row in enumerate(leg.offer.rates) if any(row)]
    within = [spatial for spatial in sent if spatial <= leg.wanted_layer]
    if leg.kind != "video" or not within:
        return 0
    return max(0, within[-1] - (leg.target_layer if leg.svc is not None else leg.current_layer))


class _Stream:
    __slots__ = ("lost", "lost_before", "reported_at", "score", "sent_before")

    def __init__(self, leg: Leg, block: ReportBlock, now: float) -> None:
        self.lost = self.lost_before = block.packets_lost
        self.reported_at = now
        self.sent_before = leg.packets
        self.score = StreamScore(loss_weight(leg.kind, "audio/opus" if leg.kind == "audio" else ""))


class DownlinkScores:
    """Scores of all legs of one subscriber."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}

    def report(self, leg: Leg, block: ReportBlock, now: float) -> None:
        stream = self._streams.get(leg.ssrc)
        if stream is None:
            self._streams[leg.ssrc] = _Stream(leg, block, now)
        else:
            stream.lost, stream.reported_at = block.packets_lost, now

    def forget(self, leg: Leg) -> None:
        self._streams.pop(leg.ssrc, None)

    def window(self, legs: Iterable[Leg], now: float) -> float | None:
        """A window is over: the worst score, None if no stream can be scored."""
        worst: float | None = None
        for leg in legs:
            stream = self._streams.get(leg.ssrc)
            if stream is None or now - stream.reported_at > REPORT_TIMEOUT:
                continue
            sent, lost = leg.packets - stream.sent_before, stream.lost - stream.lost_before
            stream.sent_before, stream.lost_before = leg.packets, stream.lost
            if leg.halted and not leg.disabled:
                score = stream.score.halt()
            elif leg.paused or sent <= 0:
                stream.score.rest()
                continue
            else:
                score = stream.score.window(sent, lost, layers_missing=layers_missing(leg))
            worst = score if worst is None else min(worst, score)
        return worst
