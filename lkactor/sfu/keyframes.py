"""Who waits for a key frame, and when the publisher may be asked for one: once per layer and throttle, whoever asks
(livekit-media section 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lkactor.sfu.leg import Leg
from lkactor.sfu.source import Source
from lkactor.sfu.switching import Switcher
from lkactor.wire.rtcp import Pli, RtcpPacket

KEY_FRAME_RETRY = 0.2
CAUGHT_UP_AT_ONCE, PAUSE = 32, 0.004
"""Packets of the past that Python writes in one go, about, and seconds until the next go. Each is some 40 us, with the
forwarding plane held: a hundred people who come together would stop all media of the process for 100 ms."""


class KeyFrameRequests:
    """`legs` are looked at, not kept track of. `catch_up` serves legs of a layer out of the past, if it can, until a
    number of packets is reached, and says what it came to. `send` goes to the publisher."""

    def __init__(
        self,
        source: Source,
        switcher: Switcher,
        legs: Sequence[Leg],
        catch_up: Callable[[Sequence[Leg], int, int, float], int],
        send: Callable[[Sequence[RtcpPacket]], None],
    ) -> None:
        self._source = source
        self._switcher = switcher
        self._legs = legs
        self._catch_up = catch_up
        self._send = send
        self._due: float | None = None
        self._last = [float("-inf")] * len(source.layers)
        self._pending: set[int] = set()
        """Layers of which a subscriber wants a key frame as soon as the throttle allows."""
        self.sent = 0

    def want(self, now: float) -> None:
        """Somebody waits anew: asked for now, not at the next look around. The throttle is in asking."""
        if self._source.video:
            self._due = now

    def request(self, layer: int, now: float) -> None:
        """One PLI, throttled per layer: too early it is kept until the throttle allows it."""
        receiver = self._source.layers[layer]
        if receiver is None or self._source.muted:
            return
        if now < self._allowed(layer):
            self._pending.add(layer)
            return
        self._pending.discard(layer)
        self._last[layer] = now
        self.sent += 1
        self._send([Pli(receiver.ssrc, receiver.ssrc)])

    def came(self, layer: int) -> None:
        """A key frame: whoever asked for one has it."""
        self._pending.discard(layer)

    def next_timeout(self) -> float | None:
        deadlines = [self._allowed(layer) for layer in self._pending]
        if self._due is not None:
            deadlines.append(self._due)
        return min(deadlines, default=None)

    def look(self, now: float) -> None:
        """To be called once in a while: layers that fall silent or come back change what is best for whom."""
        if self._due is None and self._source.video and self._legs:
            self._ask(now)

    def handle_timeout(self, now: float) -> None:
        if self._due is not None and now >= self._due:
            self._ask(now)
        for layer in list(self._pending):
            if now >= self._allowed(layer):
                self._pending.discard(layer)
                self.request(layer, now)

    def _ask(self, now: float) -> None:
        """PLI for each layer that some leg waits for; again as long as one does."""
        wanted: dict[int, list[Leg]] = {}
        for leg in self._legs:
            if not leg.open:
                continue
            target = self._switcher.target(leg, now)
            deeper = leg.svc is not None and leg.svc.wants_key_frame
            waits = target >= 0 and (target != leg.current_layer or leg.need_switch or deeper)
            if waits:
                wanted.setdefault(target, []).append(leg)
        past = 0
        for layer, legs in wanted.items():
            if now < self._allowed(layer) and past < CAUGHT_UP_AT_ONCE:
                past += self._catch_up(legs, layer, CAUGHT_UP_AT_ONCE - past, now)
            # The next one is asked for all the same: a player may not be ready for the past, and not say so.
            self.request(layer, now)
        wait = PAUSE if past >= CAUGHT_UP_AT_ONCE else KEY_FRAME_RETRY
        self._due = now + wait if wanted else None

    def _allowed(self, layer: int) -> float:
        return self._last[layer] + self._source.format.throttle[layer]
