"""What a track has to offer: bits per second, and frames per second, of each of its layers. Pure.

A receiver counts octets and frames by the layers inside its stream, as far as its codec tells them: VP8 (temporal), and
VP9 and AV1 with layers. Here they become rates, once a second. Source: livekit-media 3.10, 4.14.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lkactor.sfu.receiver import TEMPORALS, LayerReceiver

WINDOW, SCREEN_WINDOW = 1.0, 4.0
"""Seconds. A screen share comes in bursts."""
FPS_SLACK = 0.9

Rates = tuple[tuple[int, ...], ...]
"""Bits per second by spatial and temporal layer, each with all that it needs; 0: not sent."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Told to each leg about once a second."""

    rates: Rates = ()
    frames: tuple[tuple[float, ...], ...] = ()
    """Frames per second by spatial layer, up to each temporal layer; empty where nothing is known."""
    muted: bool = False
    screen: bool = False
    multiple: bool = False
    """It was announced with several layers."""

    def temporal_for(self, fps: int, spatial: int, highest: int) -> int:
        """The first temporal layer that is fast enough for `fps`, with 10 % slack; `highest`: any will do."""
        frames = self.frames[spatial] if 0 <= spatial < len(self.frames) else ()
        if fps > 0:
            for temporal, rate in enumerate(frames):
                if rate >= fps * FPS_SLACK:
                    return temporal if temporal < len(frames) - 1 else highest
        return highest


class RateMeter:
    """Of one forwarder. Call `measure` about once a second; the result is in `rates` and `frames`, as in `Offer`."""

    def __init__(self, *, screen: bool) -> None:
        self._window = SCREEN_WINDOW if screen else WINDOW
        self._octets: dict[int, deque[tuple[float, int]]] = {}
        self._bits: dict[int, int] = {}
        self._counted_at: dict[int, float] = {}
        self._shares: dict[int, list[int]] = {}
        self._speeds: dict[int, tuple[float, ...]] = {}
        self.rates: Rates = ()
        self.frames: tuple[tuple[float, ...], ...] = ()

    def measure(self, receivers: Sequence[LayerReceiver | None], now: float, *, layered: bool) -> None:
        """`layered`: the layers are inside the first stream."""
        live = [receiver if receiver is not None and receiver.live(now) else None for receiver in receivers]
        for layer, receiver in enumerate(live):
            if receiver is None:
                self._octets.pop(layer, None)
                self._counted_at.pop(layer, None)
            else:
                self._count(layer, receiver, now)
        bits = [self._rate(layer, receiver, now) for layer, receiver in enumerate(live)]
        if layered and bits and bits[0]:
            shares = self._shares[0]
            top = max((place // TEMPORALS for place, octets in enumerate(shares) if octets), default=0)
            self.rates = tuple(_cumulative(bits[0], shares, spatial) for spatial in range(top + 1))
            self.frames = (self._speeds.get(0, ()),) * (top + 1)
        else:
            self.rates = tuple(_cumulative(rate, self._shares.get(layer, []), 0) for layer, rate in enumerate(bits))
            self.frames = tuple(self._speeds.get(layer, ()) if rate else () for layer, rate in enumerate(bits))

    def _count(self, layer: int, receiver: LayerReceiver, now: float) -> None:
        """Take the counts of the time since the last look; the first look only tells how octets spread."""
        since, (spread, begun) = self._counted_at.get(layer), receiver.take_counts()
        if any(spread) or layer not in self._shares:
            self._shares[layer] = spread
        if since is not None and now > since and any(begun):
            top = max(temporal for temporal, frames in enumerate(begun) if frames)
            self._speeds[layer] = tuple(sum(begun[: temporal + 1]) / (now - since) for temporal in range(top + 1))
        self._counted_at[layer] = now

    def _rate(self, layer: int, receiver: LayerReceiver | None, now: float) -> int:
        """Bits per second of a whole stream; 0: not sent now, or not long enough to tell."""
        if receiver is None:
            return 0
        samples = self._octets.setdefault(layer, deque())
        samples.append((now, receiver.bytes))
        while len(samples) > 2 and samples[1][0] <= now - self._window:
            samples.popleft()
        (began, first), (ended, last) = samples[0], samples[-1]
        if ended - began >= WINDOW / 2:
            self._bits[layer] = max(1, int((last - first) * 8 / (ended - began)))
        return self._bits.get(layer, 0)


def _cumulative(rate: int, shares: Sequence[int], spatial: int) -> tuple[int, ...]:
    """The share of `rate` that the layers up to `spatial` have, by temporal layer."""
    within = [
        sum(shares[place] for place in range(temporal, (spatial + 1) * TEMPORALS, TEMPORALS))
        if len(shares) >= (spatial + 1) * TEMPORALS
        else 0
        for temporal in range(TEMPORALS)
    ]
    if not rate or not any(within):
        return (rate,) + (0,) * (TEMPORALS - 1)
    top = max(temporal for temporal, octets in enumerate(within) if octets)
    total = sum(shares)
    return tuple(
        max(1, rate * sum(within[: temporal + 1]) // total) if temporal <= top else 0 for temporal in range(TEMPORALS)
    )
