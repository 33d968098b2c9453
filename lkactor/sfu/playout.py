"""How long a subscriber is to hold video back before it shows it: the playout delay header extension.

The value is 24 bits, the least and the most delay, 12 bits each, in units of 10 ms (libwebrtc's
rtp-hdrext/playout-delay); what it is: livekit-media 4.10.

| state      | packets carry it | leaves it                                                             |
|------------|------------------|-----------------------------------------------------------------------|
| announcing | all of them      | a receiver report is of a packet that had it: settled                 |
| settled    | none             | the value changes, or its id does: announcing                         |
"""

from __future__ import annotations

DEFAULT_MAXIMUM = 10_000
"""Milliseconds, where only a minimum is asked for: what Chromium takes without the extension."""
LIMIT = 10 * 0xFFF
"""The longest delay that can be written."""
STEP = 10
"""Milliseconds of a unit."""
JITTER_FACTOR = 10
TOLERATED_NACKS = 60
"""Per cent of the packets."""
NACK_COST = 2
"""Milliseconds for each per cent above that."""
PACE = 80
"""Milliseconds that the delay moves in a second, so that sound can stay with it."""


class PlayoutDelay:
    """Of one leg. `minimum` and `maximum` in milliseconds, of any size; a minimum above the maximum is the maximum."""

    __slots__ = (
        "_acknowledged",
        "_changed_at",
        "_first",
        "_highest",
        "_maximum",
        "_minimum",
        "_nacks",
        "_number",
        "delay",
    )

    def __init__(self, minimum: int, maximum: int) -> None:
        self._maximum = max(0, min(maximum or (DEFAULT_MAXIMUM if minimum > 0 else 0), LIMIT))
        self._minimum = max(0, min(minimum, self._maximum))
        self.delay = self._minimum
        """The least that is asked for now, milliseconds."""
        self._number = 0
        self._acknowledged = False
        self._first: int | None = None
        """The first sequence number that can have had the present value; None: all have had it."""
        self._changed_at: float | None = None
        self._highest: int | None = None
        """Extended, of the last report."""
        self._nacks = 0

    @property
    def element(self) -> int:
        """What packets are to carry now, as one element of the one-byte form (RFC 8285 section 4.2); 0: nothing."""
        if self._acknowledged or not self._number:
            return 0
        return self._number << 28 | 2 << 24 | self._value

    @property
    def _value(self) -> int:
        return self.delay // STEP << 12 | self._maximum // STEP

    def negotiated(self, number: int, last_sequence: int | None) -> None:
        """`number`: the extension's id, 0 without it. `last_sequence`: the last one that went out, None if none has."""
        if number != self._number:
            self._number = number
            self._announce(last_sequence)

    def reported(self, highest: int, jitter: int | None, nacks: int, last_sequence: int | None, now: float) -> None:
        """A receiver report: the extended highest sequence number, the jitter in ms (None: it says nothing, as that of
        a screen, which is seldom and in bursts), and how many packets have been asked for again since the beginning."""
        if self._first is None or (highest - self._first) & 0xFFFF < 0x8000:
            self._acknowledged = True
        expected = (highest - self._highest) & 0xFFFFFFFF if self._highest is not None else 0
        percent = (nacks - self._nacks) * 100 // expected if expected else 0
        self._highest, self._nacks = highest, nacks
        if jitter is not None:
            self._approach(jitter * JITTER_FACTOR + max(0, percent - TOLERATED_NACKS) * NACK_COST, last_sequence, now)

    def _approach(self, target: int, last_sequence: int | None, now: float) -> None:
        elapsed = 1.0 if self._changed_at is None else min(1.0, now - self._changed_at)
        pace = int(PACE * elapsed)
        delay = max(self.delay - pace, min(target, self.delay + pace))
        delay = max(self._minimum, min(delay, self._maximum))
        if delay != self.delay:
            before = self._value
            self.delay, self._changed_at = delay, now
            if self._value != before:
                self._announce(last_sequence)

    def _announce(self, last_sequence: int | None) -> None:
        self._acknowledged = False
        self._first = None if last_sequence is None else (last_sequence + 1) & 0xFFFF
