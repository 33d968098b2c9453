"""The rows of the C kernel, with the face of the Python ones: what decides need not know which it has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from lkactor.plane._kernel import ffi, lib
from lkactor.plane.cells import EgressCell, IngressCell, PackedAddress, SocketCell
from lkactor.plane.fed import AUDIO, H264, UP, VP8, FeedingFanout
from lkactor.plane.fields import ARRIVAL, HANDED_UP, PACKET, field
from lkactor.plane.inbound import KernelIngress, KernelLock, KernelPump, KernelReceiver
from lkactor.plane.sealing import SealingSender, srtp_of
from lkactor.sfu.fanout import Fanout
from lkactor.sfu.leg import HISTORY, Leg, Rewritten, Sent
from lkactor.sfu.munger import RtpMunger, Vp8Munger
from lkactor.sfu.receiver import LayerReceiver
from lkactor.sfu.svc import Rewrite
from lkactor.sfu.thinning import Vp8Thinner
from lkactor.srtp import SrtpKeys, SrtpReceiver, SrtpSender, kernel_access, signing_access
from lkactor.wire.extensions import abs_send_time

if TYPE_CHECKING:
    from lkactor.plane.choice import Pump
    from lkactor.sfu.frame import Frame

MAX_BURST = 128
PAST = 16
"""Packets of the past that the kernel sends to a leg while Python writes one."""
MAX_PAYLOAD = 1480
"""What a slot holds beside header, extension and trailer; a larger packet is Python's to refuse."""
_VP8, _REWRITE = 1, 2
_orders = itertools.count()


class KernelSocket:
    def __init__(self, kernel: Any, fd: int) -> None:
        self._kernel = kernel
        self.cell = ffi.gc(ffi.new("lk_socket *"), lib.lk_forget_routes)
        self.cell.fd = fd
        self.cell.gso = 1
        self._ingresses: dict[PackedAddress, KernelIngress] = {}
        """Those that the routes point to."""

    @property
    def divert(self) -> bool:
        return bool(self.cell.divert)

    @divert.setter
    def divert(self, value: bool) -> None:
        self.cell.divert = value

    @property
    def packets(self) -> int:
        return int(self.cell.packets)

    @property
    def bytes(self) -> int:
        return int(self.cell.bytes)

    @property
    def buffer_full(self) -> int:
        return int(self.cell.buffer_full)

    @property
    def errors(self) -> int:
        return int(self.cell.errors)

    @property
    def received(self) -> tuple[int, int, int]:
        return self.cell.packets_in, self.cell.bytes_in, self.cell.receive_errors

    def set_route(self, address: PackedAddress, number: int, ingress: IngressCell | None) -> None:
        cell = ingress.cell if isinstance(ingress, KernelIngress) else ffi.NULL
        if lib.lk_route(self._kernel, self.cell, address, len(address), cell, number):
            raise MemoryError
        if isinstance(ingress, KernelIngress) and number:
            self._ingresses[address] = ingress
        else:
            self._ingresses.pop(address, None)


class KernelEgress:
    """Keeps alive what its cell points to."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self.cell = ffi.new("lk_egress *")
        self.cell.order = next(_orders)
        self._lock = lock
        self._kept: tuple[SrtpSender | None, SocketCell | None] = (None, None)

    def set_ready(self, ready: bool) -> None:
        self.cell.ready = ready

    def set_keys(self, srtp: SrtpSender | None) -> None:
        with self._lock:
            self._kept = (srtp, self._kept[1])
            self.cell.srtp = srtp.context_address if srtp is not None else 0
            self.cell.cipher = srtp.cipher if isinstance(srtp, SealingSender) else ffi.NULL

    def set_path(self, socket: SocketCell | None, address: bytes) -> None:
        with self._lock:
            self._kept = (self._kept[0], socket)
            self.cell.address_size = len(address)
            ffi.memmove(self.cell.address, address, len(address))
            self.cell.socket = socket.cell if isinstance(socket, KernelSocket) else ffi.NULL


class KernelHistory:
    """Indexed like the list it stands for."""

    __slots__ = ("_entries", "_rewrites")

    def __init__(self, row: Any) -> None:
        self._entries = row.history
        self._rewrites: dict[int, Rewrite] = {}
        """What only Python can write again, of entries that say so."""

    def __getitem__(self, index: int) -> Sent | None:
        entry = self._entries[index]
        if not entry.used:
            return None
        ids: Rewritten = None
        if entry.has_ids == _VP8:
            ids = (entry.picture, entry.tl0, entry.keyidx)
        elif entry.has_ids == _REWRITE:
            ids = self._rewrites[index]
        return entry.sequence, entry.extended, entry.layer, ids, entry.sent_at, entry.tries, entry.timestamp

    def __setitem__(self, index: int, sent: Sent | None) -> None:
        entry = self._entries[index]
        entry.used = sent is not None
        if sent is None:
            return
        entry.sequence, entry.extended, entry.layer, ids, entry.sent_at, entry.tries, entry.timestamp = sent
        if ids is None:
            entry.has_ids = 0
        elif isinstance(ids, Rewrite):
            entry.has_ids = _REWRITE
            self._rewrites[index] = ids
        else:
            entry.has_ids = _VP8
            entry.picture, entry.tl0, entry.keyidx = ids

    def __len__(self) -> int:
        return HISTORY


class KernelMunger(RtpMunger):
    """Its numbers live in the row; the offsets of the past stay here, for packets that come late."""

    __slots__ = ("row",)

    started = field("started", bool)
    newest = field("newest")
    last_sequence = field("last_sequence")
    last_timestamp = field("last_timestamp")
    timestamp_offset = field("timestamp_offset")

    def __init__(self, row: Any) -> None:
        self.row = row
        super().__init__()

    def start(self, extended: int, timestamp: int) -> None:
        super().start(extended, timestamp)
        self.row.offset = self._offsets[-1]

    def switch(self, extended: int, timestamp: int, out_timestamp: int) -> None:
        super().switch(extended, timestamp, out_timestamp)
        self.row.offset = self._offsets[-1]

    def skip(self, extended: int) -> None:
        super().skip(extended)
        self.row.offset = self._offsets[-1]


class KernelVp8(Vp8Munger):
    __slots__ = ("row",)

    _last_picture = field("last_picture")
    _last_tl0 = field("last_tl0")
    _last_keyidx = field("last_keyidx")
    _picture_offset = field("picture_offset")
    _tl0_offset = field("tl0_offset")
    _keyidx_offset = field("keyidx_offset")

    def __init__(self, row: Any) -> None:
        self.row = row
        super().__init__()


class KernelLeg(Leg):
    """A `Leg` whose numbers live in a row that the kernel runs packets through."""

    __slots__ = ("_red", "_red_source", "_strips", "_thinner", "_types", "row")

    current_layer = field("layer")
    need_switch = field("need_switch", bool)
    paused = field("paused", bool)
    revoked = field("revoked", bool)
    abs_send_time_id = field("abs_send_time_id")
    playout_delay = field("playout_delay")
    ssrc = field("ssrc")
    last_sent_at = field("last_sent_at", float)
    packets = field("packets")
    octets = field("octets")

    def __init__(self, *, egress: Any, **row: Any) -> None:
        self.row = ffi.new("lk_row *")
        self._red: Mapping[int, int] = {}
        self._red_source: Mapping[int, int] = {}
        self._thinner: Vp8Thinner | None = None
        self._strips = False
        super().__init__(egress=egress, **row)
        cell: KernelEgress = egress.cell
        self.row.egress = cell.cell
        self.munger = KernelMunger(self.row)
        self.vp8 = KernelVp8(self.row)
        self.history = KernelHistory(self.row)

    @property
    def payload_types(self) -> Mapping[int, int]:
        return self._types

    @payload_types.setter
    def payload_types(self, types: Mapping[int, int]) -> None:
        self._types = types
        ffi.memmove(self.row.payload_types, bytes(types.get(n, lib.LK_NO_TYPE) for n in range(128)), 128)
        self.row.type_in = lib.LK_NO_TYPE
        self._decide()

    @property
    def red_payload_types(self) -> Mapping[int, int]:
        return self._red

    @red_payload_types.setter
    def red_payload_types(self, types: Mapping[int, int]) -> None:
        self._red = types
        self._decide()

    def fed_by(self, red: Mapping[int, int]) -> None:
        """The publisher's RED types, each with the type inside."""
        self._red_source = red
        self._decide()

    @property
    def thinner(self) -> Vp8Thinner | None:
        return self._thinner

    @thinner.setter
    def thinner(self, thinner: Vp8Thinner | None) -> None:
        self._thinner = thinner
        self._decide()

    @property
    def strips_trailers(self) -> bool:
        return self._strips

    @strips_trailers.setter
    def strips_trailers(self, strips: bool) -> None:
        self._strips = strips
        self._decide()

    def _decide(self) -> None:
        """RED passes as it is only if the numbers inside are the same on both sides. Frames, trailers: Python's."""
        source, types = self._red_source, self._types
        same = all(self._red.get(number) == inside for number, inside in source.items() if number in types)
        self.row.plain = same and self._thinner is None and not self._strips


def _order(leg: KernelLeg) -> int:
    return int(leg.row.egress.order)


class KernelFanout(FeedingFanout):
    """The rows of one track in an array, and the arena in which its bursts are laid out."""

    def __init__(self, plane: KernelPlane, kind: str, red: Mapping[int, int]) -> None:
        super().__init__()
        self._plane = plane
        self._video = kind == "video"
        self._red = red
        self._legs: tuple[Leg, ...] = ()
        self._rows = ffi.new("lk_row *[]", 0)
        self._left = ffi.new("uint8_t[]", 0)
        self.cell = ffi.new("lk_fanout *")
        """Also of those streams that go to the rows without Python."""
        self.cell.video = self._video

    def set_legs(self, legs: Sequence[Leg]) -> None:
        native = tuple(sorted((leg for leg in legs if isinstance(leg, KernelLeg)), key=_order))
        if len(native) != len(legs):
            raise TypeError("a leg of another plane")
        rows = ffi.new("lk_row *[]", [leg.row for leg in native])
        with self._plane.lock:
            for leg in native:
                leg.fed_by(self._red)
            self.cell.rows, self.cell.count = rows, len(native)
            self._legs, self._rows = native, rows
        self._left = ffi.new("uint8_t[]", len(native))

    def set_muted(self, muted: bool) -> None:
        self.cell.muted = muted

    def receiver(self, layer: int, clock_rate: int, history: int) -> LayerReceiver:
        return KernelReceiver(self._plane.kernel, self._plane.lock, layer, clock_rate, history)

    def forward(self, layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        return self._serve(self._legs, self._rows, self._left, layer, frames, now)

    def past_cost(self, packets: int) -> int:
        return 2 + packets // PAST

    def serve_past(self, legs: Sequence[Leg], layer: int, frames: Sequence[Frame], now: float) -> Sequence[Leg]:
        native = [leg for leg in legs if isinstance(leg, KernelLeg)]
        rows = ffi.new("lk_row *[]", [leg.row for leg in native])
        return self._serve(native, rows, ffi.new("uint8_t[]", len(native)), layer, frames, now)

    def _serve(
        self, legs: Sequence[Leg], rows: Any, left: Any, layer: int, frames: Sequence[Frame], now: float
    ) -> Sequence[Leg]:
        """`rows`, and room for a mark each in `left`, of `legs`."""
        plane = self._plane
        count = plane.lay_out(frames) if legs else 0
        if not count:
            return legs
        keyframe = self._video and any(frame.keyframe for frame in frames)
        marked = lib.lk_forward(
            plane.kernel, rows, len(legs), plane.packets, count, plane.arena, layer,
            self._video, keyframe, abs_send_time(now), now, left,
        )  # fmt: skip
        if not marked:
            return ()
        return [leg for leg, mark in zip(legs, left, strict=True) if mark]


class KernelPlane:
    """One kernel, one arena, one burst at a time: all but the pump's thread runs on the thread of the Trio loop."""

    name = "kernel"
    why = "built at installation"

    def __init__(self, *, protect: bool = True) -> None:
        """`protect` False: packets leave as they are, for tests."""
        access = kernel_access() if protect else (0, 0, 0)
        sizes = tuple(ffi.sizeof(name) for name in ("lk_packet", "lk_up", "lk_arrival"))
        kinds = (lib.LK_UP, lib.LK_AUDIO, lib.LK_VP8, lib.LK_H264)
        if access is None or sizes != (PACKET.size, HANDED_UP.size, ARRIVAL.size) or kinds != (UP, AUDIO, VP8, H264):
            raise RuntimeError("the C kernel does not fit this Python or this libsrtp")
        protecting, *self._unprotecting = access
        self.kernel = ffi.gc(lib.lk_new(protecting), lib.lk_free)
        lib.lk_sign_with(self.kernel, *signing_access())
        self.lock: AbstractContextManager[object] = KernelLock(self.kernel)
        self._packets = bytearray(PACKET.size * MAX_BURST)
        self._arena = bytearray(MAX_PAYLOAD * MAX_BURST)
        self._arena_view = memoryview(self._arena)
        self.packets = ffi.cast("lk_packet *", ffi.from_buffer(self._packets))
        self.arena = ffi.from_buffer("uint8_t[]", self._arena)

    def srtp(self, keys: SrtpKeys) -> tuple[SrtpSender, SrtpReceiver]:
        return srtp_of(keys)

    def socket(self, fd: int) -> SocketCell:
        return KernelSocket(self.kernel, fd)

    def egress(self) -> EgressCell:
        return KernelEgress(self.lock)

    def ingress(self) -> IngressCell:
        return KernelIngress(self.kernel, self.lock)

    def pump(self, sockets: Sequence[SocketCell], now: float) -> Pump:
        """Not started. Raises OSError."""
        return KernelPump(self.kernel, self._unprotecting, sockets, now)

    def leg(self, **row: Any) -> Leg:
        return KernelLeg(**row)

    def fanout(self, kind: str, red: Mapping[int, int]) -> Fanout:
        return KernelFanout(self, kind, red)

    def lay_out(self, frames: Sequence[Frame]) -> int:
        """Fill `packets` and `arena`; 0 if the burst holds anything that is Python's to handle."""
        if len(frames) > MAX_BURST:
            return 0
        at, previous, view = 0, -1, self._arena_view
        for index, frame in enumerate(frames):
            payload, packet, vp8 = frame.payload, frame.packet, frame.descriptor
            size = len(payload)
            if not size or size > MAX_PAYLOAD or frame.recovered or frame.extended <= previous:
                return 0
            if frame.layers is not None:
                return 0  # Layers inside the stream are chosen per leg (lkactor/sfu/svc.py).
            previous = frame.extended
            view[at : at + size] = payload
            head = (previous, at, size, frame.timestamp, packet.payload_type, packet.marker)
            if vp8 is None:
                PACKET.pack_into(self._packets, index * PACKET.size, *head, 0, 0, -1, -1, -1, 0, -1, -1, -1)
            else:
                PACKET.pack_into(
                    self._packets, index * PACKET.size, *head, 1, vp8.wide, vp8.picture_id_at, vp8.tl0picidx_at,
                    vp8.keyidx_at, 0, vp8.picture_id, vp8.tl0picidx, vp8.keyidx,
                )  # fmt: skip
            at += size
        return len(frames)
