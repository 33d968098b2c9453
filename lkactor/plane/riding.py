"""Legs that ride: in its steady state a leg's numbers follow from those of all legs that go with it.

While a leg rides in a convoy (`lkactor.plane.convoy`) nothing is written into it per packet. What its `Leg`, its
mungers and its history say is worked out when somebody asks; whoever changes anything that matters makes it alight
first, and its numbers are then its own, as if it had been served by itself all the time.

| asked for                                | while it rides                                                    |
|------------------------------------------|-------------------------------------------------------------------|
| newest, last sequence number, timestamp  | the convoy's newest packet, by the leg's offsets                  |
| packets, octets                          | its own, and the convoy's                                         |
| VP8 numbers last sent                    | the convoy's, by the leg's offsets                                |
| an entry of the history                  | the convoy's log, by the leg's offsets, unless its own is younger |
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from weakref import proxy

from lkactor.plane.inline import InlineEgress
from lkactor.sfu.leg import HISTORY, Leg, Sent
from lkactor.sfu.munger import RtpMunger, Vp8Munger

if TYPE_CHECKING:
    from lkactor.plane.convoy import Convoy, Logged
    from lkactor.wire.codecs import vp8

_MASK = HISTORY - 1
_NOTHING: Any = object()
_Place = tuple[int, int, int, tuple[int, int, int]]
"""Of a leg in a convoy: layer, offsets of sequence number and timestamp, offsets of the VP8 numbers."""
_Past = tuple["list[Logged | None]", "dict[int, Logged | None]", int, _Place]
"""A convoy's log as it was when a leg alighted, what of it had been written over, from where on it is the leg's, and
what its place was."""


def _sent(entry: Logged, place: _Place) -> Sent:
    """An entry of a convoy's log as it went out on one leg."""
    extended, timestamp, fields, now = entry
    layer, offset, timestamp_offset, offsets = place
    ids = None if fields is None else mapped(fields, offsets)
    return (extended - offset) & 0xFFFF, extended, layer, ids, now, 0, (timestamp + timestamp_offset) & 0xFFFFFFFF


def mapped(fields: vp8.Fields, offsets: tuple[int, int, int]) -> tuple[int, int, int]:
    """As `Vp8Munger.map`."""
    picture, tl0, keyidx = offsets
    _, source_picture, _, wide, source_tl0, _, _, source_keyidx, _, _, _ = fields
    mask = 0x7FFF if wide else 0x7F
    return (source_picture + picture) & mask, (source_tl0 + tl0) & 0xFF, (source_keyidx + keyidx) & 31


def _slot(of: type, name: str) -> Any:
    """The storage behind an attribute that is more than that here."""
    return of.__dict__[name]


def _watched(of: type, name: str) -> Any:
    """What a convoy relies on: a leg that rides alights before it changes."""
    slot = _slot(of, name)
    read, write_slot = slot.__get__, slot.__set__

    def write(self: Any, value: Any) -> None:
        leg = self.leg
        with leg.lock:
            if leg.convoy is not None and read(self) != value:
                leg.alight()
            write_slot(self, value)

    return property(read, write)


def _followed(of: type, name: str, value_of: Callable[[Any, Convoy], float]) -> Any:
    """What follows from the convoy's numbers as soon as it has served the leg."""
    slot = _slot(of, name)
    read_slot, write_slot = slot.__get__, slot.__set__

    def read(self: Any) -> Any:
        leg = self.leg
        convoy = leg.convoy
        if convoy is None or convoy.newest < leg.boarded:
            return read_slot(self)
        return value_of(self, convoy)

    def write(self: Any, value: Any) -> None:
        with self.leg.lock:
            self.leg.alight()
            write_slot(self, value)

    return property(read, write)


class RidingMunger(RtpMunger):
    __slots__ = ("leg",)

    leg: RidingLeg
    newest: Any = _followed(RtpMunger, "newest", lambda self, convoy: convoy.newest)
    last_sequence: Any = _followed(
        RtpMunger, "last_sequence", lambda self, convoy: (convoy.newest - self._offsets[-1]) & 0xFFFF
    )
    last_timestamp: Any = _followed(
        RtpMunger, "last_timestamp", lambda self, convoy: (convoy.timestamp + self.timestamp_offset) & 0xFFFFFFFF
    )

    def __init__(self, leg: RidingLeg) -> None:
        self.leg = leg
        super().__init__()

    def start(self, extended: int, timestamp: int) -> None:
        self.leg.alight()
        super().start(extended, timestamp)

    def switch(self, extended: int, timestamp: int, out_timestamp: int) -> None:
        self.leg.alight()
        super().switch(extended, timestamp, out_timestamp)

    @property
    def offset(self) -> int:
        """Out = extended - offset, of what is the newest."""
        return self._offsets[-1]


def _vp8_last(which: int, name: str) -> Any:
    """The last VP8 number of a kind; not every packet has them."""
    slot = _slot(Vp8Munger, name)
    read_slot, write_slot = slot.__get__, slot.__set__

    def read(self: Any) -> Any:
        leg = self.leg
        convoy = leg.convoy
        if convoy is not None:
            extended, fields = convoy.vp8[which]
            if extended >= leg.boarded:
                return mapped(fields, self.offsets)[which]
        return read_slot(self)

    def write(self: Any, value: Any) -> None:
        self.leg.alight()
        write_slot(self, value)

    return property(read, write)


class RidingVp8(Vp8Munger):
    __slots__ = ("leg",)

    leg: RidingLeg
    _last_picture = _vp8_last(0, "_last_picture")
    _last_tl0 = _vp8_last(1, "_last_tl0")
    _last_keyidx = _vp8_last(2, "_last_keyidx")
    _picture_offset = _watched(Vp8Munger, "_picture_offset")
    _tl0_offset = _watched(Vp8Munger, "_tl0_offset")
    _keyidx_offset = _watched(Vp8Munger, "_keyidx_offset")

    def __init__(self, leg: RidingLeg) -> None:
        self.leg = leg
        super().__init__()

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Of picture id, TL0PICIDX, KEYIDX."""
        return self._picture_offset, self._tl0_offset, self._keyidx_offset


class RidingHistory:
    """Indexed like the list it stands for."""

    __slots__ = ("_over", "_past", "_ring", "leg")

    def __init__(self, leg: RidingLeg) -> None:
        self.leg = leg
        self._ring: list[Sent | None] = [None] * HISTORY
        self._over: dict[int, Logged | None] = {}
        """What was written while riding, with the entry of the log that it was written over."""
        self._past: _Past | None = None
        """Of the last ride, not copied yet: most legs that alight are never asked again."""

    def keep(self, convoy: Convoy, boarded: int, place: _Place) -> None:
        """The ride is over."""
        self._settle()
        self._past = (convoy.log[:], self._over, boarded, place)
        self._over = {}

    def _settle(self) -> None:
        if self._past is None:
            return
        (log, over, boarded, place), self._past = self._past, None
        for number, entry in enumerate(log):
            index = (number - place[1]) & _MASK
            if entry is not None and entry[0] >= boarded and over.get(index, _NOTHING) is not entry:
                self._ring[index] = _sent(entry, place)

    def __getitem__(self, index: int) -> Sent | None:
        self._settle()
        leg = self.leg
        convoy = leg.convoy
        if convoy is not None:
            entry = convoy.log[(index + leg.munger.offset) & _MASK]
            if entry is not None and entry[0] >= leg.boarded and self._over.get(index, _NOTHING) is not entry:
                return _sent(entry, leg.place)
        return self._ring[index]

    def __setitem__(self, index: int, sent: Sent | None) -> None:
        self._settle()
        leg = self.leg
        if leg.convoy is not None:
            self._over[index] = leg.convoy.log[(index + leg.munger.offset) & _MASK]
        self._ring[index] = sent

    def __len__(self) -> int:
        return HISTORY


def _counted(name: str) -> Any:
    """Of the leg itself and, while it rides, of the convoy: what is stored is less by what that had on boarding."""
    slot = _slot(Leg, name)
    read_slot, write_slot = slot.__get__, slot.__set__

    def read(self: Any) -> Any:
        convoy = self.convoy
        return read_slot(self) if convoy is None else read_slot(self) + getattr(convoy, name)

    def write(self: Any, value: Any) -> None:
        convoy = self.convoy
        write_slot(self, value if convoy is None else value - getattr(convoy, name))

    return property(read, write)


_REVOKED = _watched(Leg, "revoked")


class RidingLeg(Leg):
    """A `Leg` that can ride."""

    __slots__ = ("__weakref__", "boarded", "cell", "convoy", "lock")

    munger: RidingMunger
    vp8: RidingVp8
    cell: InlineEgress | None
    """Where it is written to; None: Python's."""
    convoy: Convoy | None
    boarded: int
    """Extended number of the first packet that the convoy serves it with."""

    current_layer = _watched(Leg, "current_layer")
    need_switch = _watched(Leg, "need_switch")
    paused = _watched(Leg, "paused")
    abs_send_time_id = _watched(Leg, "abs_send_time_id")
    playout_delay = _watched(Leg, "playout_delay")
    ssrc = _watched(Leg, "ssrc")
    payload_types = _watched(Leg, "payload_types")
    red_payload_types = _watched(Leg, "red_payload_types")
    thinner = _watched(Leg, "thinner")
    strips_trailers = _watched(Leg, "strips_trailers")
    leg = property(lambda self: self)
    """What has its numbers; `RidingMunger` has the same."""
    last_sent_at: Any = _followed(Leg, "last_sent_at", lambda self, convoy: convoy.now)
    packets = _counted("packets")
    octets = _counted("octets")

    def __init__(self, *, egress: Any, lock: AbstractContextManager[object], **row: Any) -> None:
        self.lock = lock
        self.convoy = None
        self.boarded = 0
        super().__init__(egress=egress, **row)
        cell = getattr(egress, "cell", None)
        self.cell = cell if isinstance(cell, InlineEgress) else None
        self.munger = RidingMunger(self)
        self.vp8 = RidingVp8(self)
        self.history: RidingHistory = RidingHistory(self)

    @property
    def revoked(self) -> bool:
        return bool(_REVOKED.__get__(self))

    @revoked.setter
    def revoked(self, revoked: bool) -> None:
        _REVOKED.__set__(self, revoked)
        if revoked:
            # It has ended: what is its own does not keep it any more, so that no collector has to look for it.
            self.munger.leg = self.vp8.leg = self.history.leg = proxy(self)

    @property
    def place(self) -> _Place:
        """While it rides."""
        layer = self.convoy.layer if self.convoy is not None else -1
        return layer, self.munger.offset, self.munger.timestamp_offset, self.vp8.offsets

    def board(self, convoy: Convoy, extended: int) -> None:
        """From packet `extended` on the convoy serves it."""
        self.packets -= convoy.packets
        self.octets -= convoy.octets
        self.convoy, self.boarded = convoy, extended

    def alight(self) -> None:
        """Its numbers are its own again."""
        with self.lock:
            if self.convoy is not None:
                self._leave(self.convoy)

    def _leave(self, convoy: Convoy) -> None:
        munger, vp8, place = self.munger, self.vp8, self.place
        newest, sequence, timestamp = munger.newest, munger.last_sequence, munger.last_timestamp
        counts, sent_at = (self.packets, self.octets), self.last_sent_at
        last = (vp8._last_picture, vp8._last_tl0, vp8._last_keyidx)
        self.convoy = None
        if newest >= self.boarded:
            self.history.keep(convoy, self.boarded, place)
        munger.newest, munger.last_sequence, munger.last_timestamp = newest, sequence, timestamp
        (self.packets, self.octets), self.last_sent_at = counts, sent_at
        vp8._last_picture, vp8._last_tl0, vp8._last_keyidx = last
        convoy.remove(self)
