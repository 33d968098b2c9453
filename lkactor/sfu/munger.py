"""Continuity: what a subscriber sees is one stream, whatever the server switches, drops or pauses (livekit-media 4.3).

Sequence numbers: out = extended - offset. A packet left out on purpose right behind the newest one makes the offset of
all later ones one larger; packets that come late are numbered with the offset of their own time.
"""

from __future__ import annotations

from bisect import bisect_right

from lkactor.wire.codecs.vp8 import Vp8Descriptor

MAX_RANGES = 100


class RtpMunger:
    """Sequence numbers and timestamps of one leg."""

    __slots__ = ("_offsets", "_starts", "last_sequence", "last_timestamp", "newest", "started", "timestamp_offset")

    def __init__(self) -> None:
        self.started = False
        self.newest = -1
        """Newest extended source sequence number of the current source."""
        self.last_sequence = 0
        self.last_timestamp = 0
        self.timestamp_offset = 0
        self._starts: list[int] = []
        self._offsets: list[int] = []

    def start(self, extended: int, timestamp: int) -> None:
        """The first packet ever keeps its numbers."""
        self.started = True
        self.newest = extended - 1
        self.timestamp_offset = 0
        self._starts, self._offsets = [extended], [extended - (extended & 0xFFFF)]
        self.last_sequence = (extended - 1) & 0xFFFF

    def switch(self, extended: int, timestamp: int, out_timestamp: int) -> None:
        """Another source, or the same one after a pause: its packet `extended` goes out right behind the last one."""
        self._starts, self._offsets = [extended], [extended - ((self.last_sequence + 1) & 0xFFFF)]
        self.newest = extended - 1
        self.timestamp_offset = (out_timestamp - timestamp) & 0xFFFFFFFF

    def sequence(self, extended: int) -> int:
        """The outgoing number; -1 for a packet from before the source was switched to, or long gone."""
        if extended > self.newest:
            self.newest = extended
            out = (extended - self._offsets[-1]) & 0xFFFF
            self.last_sequence = out
            return out
        index = bisect_right(self._starts, extended) - 1
        return (extended - self._offsets[index]) & 0xFFFF if index >= 0 else -1

    def skip(self, extended: int) -> None:
        """Leave a packet out. Behind a gap the hole stays: the missing ones may still come."""
        if extended == self.newest + 1:
            self.newest = extended
            self._starts.append(extended + 1)
            self._offsets.append(self._offsets[-1] + 1)
            if len(self._starts) > MAX_RANGES:
                del self._starts[0], self._offsets[0]

    def timestamp(self, timestamp: int) -> int:
        return (timestamp + self.timestamp_offset) & 0xFFFFFFFF


class Vp8Munger:
    """Picture id, TL0PICIDX and KEYIDX run on over switches of the source (livekit-media 4.4)."""

    __slots__ = ("_keyidx_offset", "_last_keyidx", "_last_picture", "_last_tl0", "_picture_offset", "_tl0_offset")

    def __init__(self) -> None:
        self._last_picture = self._last_tl0 = self._last_keyidx = -1
        self._picture_offset = self._tl0_offset = self._keyidx_offset = 0

    def switch(self, first: Vp8Descriptor) -> None:
        """`first` is the descriptor of the key frame that the new source starts with."""
        if self._last_picture >= 0 and first.picture_id >= 0:
            self._picture_offset = self._last_picture + 1 - first.picture_id
        if self._last_tl0 >= 0 and first.tl0picidx >= 0:
            self._tl0_offset = self._last_tl0 + 1 - first.tl0picidx
        if self._last_keyidx >= 0 and first.keyidx >= 0:
            self._keyidx_offset = self._last_keyidx + 1 - first.keyidx

    def drop(self) -> None:
        """A picture is left out: what comes after it closes up."""
        self._picture_offset -= 1

    def map(self, descriptor: Vp8Descriptor, newest: bool, dropped: int = 0) -> tuple[int, int, int]:
        """(picture id, TL0PICIDX, KEYIDX) to write; `newest`: the packet is not late; `dropped`: pictures that were
        left out after a late one."""
        picture = (descriptor.picture_id + self._picture_offset + dropped) & (0x7FFF if descriptor.wide else 0x7F)
        tl0 = (descriptor.tl0picidx + self._tl0_offset) & 0xFF
        keyidx = (descriptor.keyidx + self._keyidx_offset) & 31
        if newest:
            if descriptor.picture_id >= 0:
                self._last_picture = picture
            if descriptor.tl0picidx >= 0:
                self._last_tl0 = tl0
            if descriptor.keyidx >= 0:
                self._last_keyidx = keyidx
        return picture, tl0, keyidx


def write_vp8(view: memoryview, at: int, descriptor: Vp8Descriptor, ids: tuple[int, int, int]) -> None:
    """Overwrite the numbers of a descriptor that was copied to `view[at:]`."""
    picture, tl0, keyidx = ids
    if descriptor.picture_id_at >= 0:
        position = at + descriptor.picture_id_at
        if descriptor.wide:
            view[position] = 0x80 | (picture >> 8)
            view[position + 1] = picture & 0xFF
        else:
            view[position] = picture & 0x7F
    if descriptor.tl0picidx_at >= 0:
        view[at + descriptor.tl0picidx_at] = tl0
    if descriptor.keyidx >= 0:
        position = at + descriptor.keyidx_at
        view[position] = (view[position] & 0xE0) | keyidx
