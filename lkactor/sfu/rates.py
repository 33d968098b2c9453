"""What a track has to offer: bits per second, and frames per second, of each of its layers. Pure.

Nothing is counted per packet for it. The bits are the receivers' octet counters, read once a second; how they spread
over the layers inside a stream is told by a sample of the packets that are kept for retransmission anyway. Frame rates
likewise. Source: livekit-media 3.10, 4.14.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lkactor.errors import ProtocolViolation
from lkactor.sfu.receiver import LayerReceiver
from lkactor.wire.codecs import vp8, vp9
from lkactor.wire.rtp import RtpPacket

SAMPLE = 96
"""Packets looked at per stream and second."""
WINDOW, SCREEN_WINDOW = 1.0, 4.0
"""Seconds. A screen share comes in bursts."""
TEMPORALS = 4
SPATIALS = 3
FPS_SLACK = 0.9


@dataclass(frozen=True, slots=True)
class Offer:
    """Told to each leg about once a second."""

    rates: tuple[tuple[int, ...], ...] = ()
    """Bits per second by spatial and temporal layer, each with all that it needs; 0: not sent."""
    frames: tuple[float, ...] = ()
    """Frames per second up to each temporal layer; empty where nothing is known."""
    muted: bool = False
    screen: bool = False
    multiple: bool = False
    """It was announced with several layers."""


def temporal_for(fps: int, frames: Sequence[float], highest: int) -> int:
    """The first temporal layer that is fast enough for `fps`, with 10 % slack; `highest`: any will do."""
    if fps > 0:
        for temporal, rate in enumerate(frames):
            if rate >= fps * FPS_SLACK:
                return temporal
    return highest


class RateMeter:
    """Of one forwarder."""

    def __init__(self, mime: str, *, screen: bool) -> None:
        self._mime = mime
        self._window = SCREEN_WINDOW if screen else WINDOW
        self._octets: dict[int, deque[tuple[float, int]]] = {}
        self._rates: dict[int, int] = {}
        self.frames: tuple[float, ...] = ()

    def measure(
        self, receivers: Sequence[LayerReceiver | None], now: float, *, layered: bool
    ) -> tuple[tuple[int, ...], ...]:
        """Rates as in `Offer`. `layered`: the layers are inside the first stream."""
        rows: list[tuple[int, ...]] = []
        frames: tuple[float, ...] = ()
        for layer, receiver in enumerate(receivers):
            rate = self._rate(layer, receiver, now)
            spread = self._spread(receiver) if receiver is not None and rate else {}
            if layered and layer == 0 and any(spatial for spatial, _ in spread):
                self.frames = ()
                return tuple(_cumulative(rate, spread, spatial) for spatial in range(max(s for s, _ in spread) + 1))
            rows.append(_cumulative(rate, spread, SPATIALS))
            if rate and receiver is not None:
                frames = self._frames(receiver)
        self.frames = frames
        return tuple(rows)

    def _rate(self, layer: int, receiver: LayerReceiver | None, now: float) -> int:
        """0: not sent now."""
        if receiver is None or not receiver.live(now):
            self._octets.pop(layer, None)
            return 0
        samples = self._octets.setdefault(layer, deque())
        samples.append((now, receiver.bytes))
        while len(samples) > 2 and samples[1][0] <= now - self._window:
            samples.popleft()
        (began, first), (ended, last) = samples[0], samples[-1]
        if ended - began < WINDOW / 2:
            return self._rates.get(layer, 0)
        self._rates[layer] = max(1, int((last - first) * 8 / (ended - began)))
        return self._rates[layer]

    def _spread(self, receiver: LayerReceiver) -> dict[tuple[int, int], int]:
        """Octets by (spatial, temporal) in a sample."""
        spread: dict[tuple[int, int], int] = {}
        if self._mime not in ("video/vp8", "video/vp9"):
            return spread
        for packet in receiver.recent(SAMPLE):
            spatial, temporal, _ = _place(self._mime, packet)
            key = (spatial, temporal)
            spread[key] = spread.get(key, 0) + len(packet.data)
        return spread

    def _frames(self, receiver: LayerReceiver) -> tuple[float, ...]:
        packets = receiver.recent(SAMPLE)
        if len(packets) < 2:
            return ()
        span = packets[-1].arrival - packets[0].arrival
        if span <= 0:
            return ()
        begun = [0] * TEMPORALS
        for packet in packets:
            _, temporal, first = _place(self._mime, packet)
            for above in range(temporal, TEMPORALS):
                begun[above] += first
        top = max((_place(self._mime, packet)[1] for packet in packets), default=0)
        return tuple(count / span for count in begun[: top + 1])


def _cumulative(rate: int, spread: dict[tuple[int, int], int], spatial: int) -> tuple[int, ...]:
    """The share of `rate` that the layers up to `spatial` have, by temporal layer."""
    within = {key: octets for key, octets in spread.items() if key[0] <= spatial}
    total = sum(spread.values())
    if not rate:
        return (0,) * TEMPORALS
    if not within:
        return (rate,) + (0,) * (TEMPORALS - 1)
    top = max(temporal for _, temporal in within)
    row = [0] * TEMPORALS
    for temporal in range(top + 1):
        octets = sum(octets for (_, below), octets in within.items() if below <= temporal)
        row[temporal] = rate * octets // total
    return tuple(row)


def _place(mime: str, packet: RtpPacket) -> tuple[int, int, bool]:
    """(spatial, temporal, begins a frame)."""
    try:
        if mime == "video/vp8":
            found = vp8.parse_descriptor(packet.payload)
            return 0, min(max(found.tid, 0), TEMPORALS - 1), found.start
        if mime == "video/vp9":
            layers = vp9.parse_descriptor(packet.payload)
            spatial, temporal = min(layers.spatial_id or 0, SPATIALS - 1), min(layers.temporal_id or 0, TEMPORALS - 1)
            return spatial, temporal, layers.start_of_frame and spatial == 0
    except ProtocolViolation:
        return 0, 0, False
    return 0, 0, packet.marker  # One marker per frame: RFC 6184, RFC 7798, AV1 without layers.
