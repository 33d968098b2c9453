"""Fewer frames per second of a VP8 stream, for one leg: its upper temporal layers are left out (RFC 7741 section 4.2).

| event                                                    | effect                                             |
|----------------------------------------------------------|----------------------------------------------------|
| a picture begins, its layer is within the current one    | it goes out                                        |
| a picture begins right behind the last packet, above it  | it is left out, numbers close up                   |
| the same, but packets between are missing                | it goes out: nobody knows what the gap belongs to  |
| a key frame begins                                       | the current layer becomes the wished one           |
| a picture begins that needs none of its layer before it  | up to its layer, within the wish (Y)               |
| any picture begins                                       | down to the wished layer                           |
| a late packet                                            | does as its picture did                            |

Source: livekit-media 4.2 to 4.4; the reference goes up at any picture.
"""

from __future__ import annotations

from collections import deque

from lkactor.sfu.receiver import TEMPORALS
from lkactor.wire.codecs.vp8 import Vp8Descriptor

REMEMBERED = 64
"""Pictures."""


class Vp8Thinner:
    """One leg's."""

    __slots__ = ("_dropped", "_picture", "_picture_goes", "_seen", "_since", "current")

    def __init__(self, current: int) -> None:
        self.current = current
        """The highest temporal layer that goes out."""
        self._picture = -1
        self._picture_goes = True
        self._seen = 0
        """The highest layer that came."""
        self._since = 0
        """Pictures since the last one that was left out."""
        self._dropped: deque[int] = deque(maxlen=REMEMBERED)

    def switched(self, target: int) -> None:
        """Another source, at a key frame."""
        self.current = target
        self._picture = -1
        self._dropped.clear()

    def takes(self, descriptor: Vp8Descriptor, target: int, *, keyframe: bool, contiguous: bool) -> tuple[bool, bool]:
        """A packet newer than all before: (it goes out, it is the first of a picture that does not)."""
        picture = descriptor.picture_id
        if picture < 0:
            return True, False
        if picture == self._picture:
            return self._picture_goes, False
        temporal = max(descriptor.tid, 0)
        self._picture, self._seen = picture, max(self._seen, temporal)
        if keyframe:
            self.current = target
        elif descriptor.sync and self.current < temporal <= target:
            self.current = temporal
        self.current = min(self.current, target)
        self._picture_goes = temporal <= self.current or not contiguous
        self._since += 1
        if not self._picture_goes:
            self._since = 0
            self._dropped.append(picture)
        return self._picture_goes, not self._picture_goes

    def idle(self, target: int) -> bool:
        """Nothing is left out any more, nor will late packets of what was left out come."""
        return target >= TEMPORALS - 1 and self.current >= self._seen and self._since > REMEMBERED

    def was_dropped(self, descriptor: Vp8Descriptor) -> bool:
        """Of a late packet's picture."""
        return descriptor.picture_id in self._dropped

    def dropped_since(self, descriptor: Vp8Descriptor) -> int:
        """Pictures left out after the one that a late packet belongs to: its number is that much further back."""
        mask = 0x7FFF if descriptor.wide else 0x7F
        half = mask // 2
        return sum(1 for picture in self._dropped if 0 < ((picture - descriptor.picture_id) & mask) <= half)
