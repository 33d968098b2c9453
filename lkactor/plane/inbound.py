"""The receiving half of the kernel plane: cells for what `receive.c` looks up, and the thread that runs it.

A stream's numbers live in a row (`lk_source`), as those of a leg do, so that the kernel and `LayerReceiver` go on where
the other has stopped. Everything that changes what the thread reads is done under the kernel's lock.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lkactor.ice import Consent
from lkactor.plane._kernel import ffi, lib
from lkactor.plane.cells import HandedUp, PackedAddress, SocketCell
from lkactor.plane.fed import UP, FedReceiver, Loss
from lkactor.plane.fields import ARRIVAL, HANDED_UP, field
from lkactor.plane.sealing import OpeningReceiver
from lkactor.sfu.twcc import Arrival
from lkactor.srtp import SrtpReceiver
from lkactor.wire.rtp import RtpPacket, parse_rtp

REFUSALS = ("srtp.auth", "srtp.replay", "srtp.old", "srtp.invalid")
Lock = AbstractContextManager[object]
_TAKEN = 1 << 16
"""Octets of datagrams that are handed up at once: what Python can do in about two milliseconds."""
_MOST_NEWS = 1024
_ids = itertools.count(1)
_ingresses: weakref.WeakValueDictionary[int, KernelIngress] = weakref.WeakValueDictionary()
"""By id."""


class KernelLock:
    """A context manager; may be entered again by who is inside."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __enter__(self) -> None:
        lib.lk_lock(self._kernel)

    def __exit__(self, *exception: object) -> None:
        lib.lk_unlock(self._kernel)


class KernelIngress:
    """Keeps alive what its cell points to."""

    def __init__(self, kernel: Any, lock: Lock) -> None:
        self._kernel, self._lock = kernel, lock
        cell = lib.lk_ingress_new(kernel)
        if cell == ffi.NULL:
            raise MemoryError
        self.cell = ffi.gc(cell, lib.lk_ingress_free)
        self.cell.id = next(_ids)
        _ingresses[self.cell.id] = self
        self.on_news: Callable[[], None] | None = None
        self._srtp: SrtpReceiver | None = None
        self._sources: set[KernelReceiver] = set()
        self._told = [0] * len(REFUSALS)

    def set_keys(self, srtp: SrtpReceiver | None) -> None:
        with self._lock:
            self._srtp = srtp
            self.cell.srtp = srtp.context_address if srtp is not None else 0
            self.cell.cipher = srtp.cipher if isinstance(srtp, OpeningReceiver) else ffi.NULL
            self.cell.ready = bool(self.cell.srtp)

    def set_transport_cc(self, id: int) -> None:
        self.cell.transport_cc_id = id

    def set_eager(self, eager: bool) -> None:
        self.cell.eager = eager

    def set_consent(self, socket: SocketCell | None, address: PackedAddress, consent: Consent | None) -> None:
        cell = getattr(socket, "cell", ffi.NULL)
        if consent is None or cell == ffi.NULL:
            lib.lk_set_consent(self._kernel, self.cell, cell, b"", 0, b"", 0, b"", 0, False, False)
            return
        user, password = consent.user, consent.password
        lib.lk_set_consent(
            self._kernel, self.cell, cell, address, len(address), user, len(user), password, len(password),
            consent.controlling, consent.nominated,
        )  # fmt: skip

    @property
    def heard(self) -> float:
        return float(self.cell.consent.heard) or -math.inf

    def attach(self, source: KernelReceiver) -> None:
        """Packets of its SSRC are its own from now on; too many are left to Python."""
        if lib.lk_attach(self._kernel, self.cell, source.row) == 0:
            self._sources.add(source)

    def detach(self, source: KernelReceiver) -> None:
        lib.lk_detach(self._kernel, self.cell, source.row)
        self._sources.discard(source)

    @property
    def has_track_news(self) -> bool:
        return any(source.row.level_count or source.row.loss_count for source in self._sources)

    def take_arrivals(self) -> list[Arrival]:
        cell = self.cell
        if not cell.arrival_count:
            return []
        with self._lock:
            arrivals = list(ARRIVAL.iter_unpack(ffi.buffer(cell.arrivals, ARRIVAL.size * cell.arrival_count)))
            cell.arrival_count = 0
        return arrivals

    def take_refusals(self) -> Mapping[str, int]:
        now = list(self.cell.refused)
        new = {
            reason: count - told for reason, count, told in zip(REFUSALS, now, self._told, strict=True) if count > told
        }
        self._told = now
        return new


class KernelReceiver(FedReceiver):
    """A `LayerReceiver` whose numbers and packets live in a row that the kernel adds to."""

    __slots__ = ("_fanout", "_kernel", "_lock", "row")

    ingress_type = KernelIngress

    highest = field("highest")
    packets = field("packets")
    bytes = field("bytes")
    ssrc = field("ssrc")
    last_arrival = field("last_arrival", float)
    _jitter = field("jitter", float)

    def __init__(self, kernel: Any, lock: Lock, layer: int, clock_rate: int, history: int) -> None:
        self._kernel, self._lock = kernel, lock
        self.row = ffi.new("lk_source *")
        self._ingress = None
        self._fanout: object = None
        size = 1 << (history - 1).bit_length()
        kept = ffi.new("lk_kept[]", size)
        self.row.kept, self.row.kept_count = kept, size
        self.row.layer, self.row.clock_rate = layer, clock_rate
        self.row = ffi.gc(self.row, _Release(lib.lk_forget_kept, kept))
        self._forget()
        super().__init__(clock_rate, 1)
        self._mask = size - 1

    def adopt(self, fanout: Any, ingress: Any, kinds: Mapping[int, int], level_id: int) -> None:
        with self._lock:
            self._fanout = fanout
            self.row.fanout = fanout.cell
            self.row.level_id = level_id
            self.row.kinds = bytes(kinds.get(number, UP) for number in range(128))
            self._follow(ingress)

    @property
    def _last_transit(self) -> float | None:
        transit = self.row.last_transit
        return None if math.isnan(transit) else transit

    @_last_transit.setter
    def _last_transit(self, transit: float | None) -> None:
        self.row.last_transit = math.nan if transit is None else transit

    @property
    def spread(self) -> Any:
        return self.row.spread

    @spread.setter
    def spread(self, octets: Sequence[int]) -> None:
        self.row.spread = octets

    @property
    def begun(self) -> Any:
        return self.row.begun

    @begun.setter
    def begun(self, frames: Sequence[int]) -> None:
        self.row.begun = frames

    def _keep(self, extended: int, packet: RtpPacket) -> None:
        if lib.lk_keep(self._kernel, self.row, extended, packet.data, len(packet.data), packet.arrival):
            raise MemoryError

    def _has(self, extended: int) -> bool:
        row = self.row
        return bool(row.kept[extended & (row.kept_count - 1)].extended == extended)

    def _forget(self) -> None:
        row = self.row
        for index in range(row.kept_count):
            row.kept[index].extended = -1
        row.taken = row.loss_count = 0

    def packet(self, extended: int) -> RtpPacket | None:
        row = self.row
        kept = row.kept[extended & (row.kept_count - 1)]
        if kept.extended != extended:
            return None
        return parse_rtp(ffi.unpack(ffi.cast("char *", kept.data), kept.size), kept.arrival)

    def take_levels(self) -> list[tuple[int, int]]:
        row = self.row
        if not row.level_count:
            return []
        with self._lock:
            levels = [(entry.timestamp, entry.level) for entry in row.levels[0 : row.level_count]]
            row.level_count = 0
        return levels

    def take_losses(self) -> Sequence[Loss]:
        row = self.row
        if not row.loss_count:
            return ()
        with self._lock:
            losses = [(loss.first, loss.last, loss.seen) for loss in row.losses[0 : row.loss_count]]
            row.loss_count = 0
        return losses

    def take_latency(self) -> float:
        latency, self.row.latency = self.row.latency, 0.0
        return float(latency)


class _Release:
    """A destructor that keeps alive what it needs: garbage is collected in any order."""

    __slots__ = ("_needed", "_release")

    def __init__(self, release: Callable[[Any], None], *needed: object) -> None:
        self._release = release
        self._needed = needed

    def __call__(self, cell: Any) -> None:
        self._release(cell)


class KernelPump:
    """The thread that receives. `fd` becomes readable when there is something to take."""

    def __init__(self, kernel: Any, unprotecting: Sequence[int], sockets: Sequence[Any], now: float) -> None:
        """`unprotecting`: the functions for RTP and RTCP, as of `kernel_access`. `sockets`: cells, numbered from 0;
        they must stay open until `stop`. Raises OSError."""
        pump = lib.lk_pump_new(kernel, *unprotecting, now)
        if pump == ffi.NULL:
            raise OSError("no memory or no descriptor left for the receiving thread")
        self._pump = ffi.gc(pump, _Release(lib.lk_pump_free, sockets))
        for number, socket in enumerate(sockets):
            if lib.lk_pump_add(self._pump, socket.cell, number):
                raise OSError("too many UDP sockets for one receiving thread")
        self.fd = int(lib.lk_pump_fd(self._pump))
        self._buffer = bytearray(_TAKEN)
        self._buffer_cell = ffi.from_buffer("uint8_t[]", self._buffer)
        self._ids = ffi.new("uint32_t[]", _MOST_NEWS)
        self._more = ffi.new("int *")

    def start(self) -> None:
        """Raises OSError."""
        failed = lib.lk_pump_start(self._pump)
        if failed:
            raise OSError(failed, "the receiving thread could not be started")

    def stop(self) -> None:
        """Returns when it has ended."""
        lib.lk_pump_stop(self._pump)

    def once(self) -> int:
        """What the thread does when something has come, for tests without it; datagrams read, or passed on at last."""
        return int(lib.lk_pump_once(self._pump))

    @property
    def dropped(self) -> int:
        """Datagrams that Python was too slow for."""
        return int(lib.lk_dropped(self._pump))

    def take(self, most: int) -> Iterator[HandedUp]:
        end = lib.lk_take(self._pump, self._buffer_cell, _TAKEN, most, self._more)
        at, buffer, head = 0, self._buffer, HANDED_UP
        while at < end:
            arrival, route, socket, size, opened, length, address = head.unpack_from(buffer, at)
            at += head.size
            yield socket, route, address[:length], bytes(buffer[at : at + size]), arrival, opened
            at += size + 7 & ~7

    @property
    def has_more(self) -> bool:
        return bool(self._more[0])

    def ring(self) -> None:
        lib.lk_ring(self._pump)

    def tell_news(self) -> bool:
        """Call `on_news` of every ingress that has something to tell. False: none had, and the next one will ring."""
        count = lib.lk_take_news(self._pump, self._ids, _MOST_NEWS)
        for id in self._ids[0:count]:
            ingress = _ingresses.get(id)
            if ingress is not None and ingress.on_news is not None:
                ingress.on_news()
        return bool(count)

    @property
    def has_losses(self) -> bool:
        return bool(lib.lk_has_losses(self._pump))

    @property
    def rings_with_news(self) -> bool:
        """The last `tell_news` found nothing, and nothing has come since."""
        return bool(lib.lk_rings(self._pump))
