"""Which implementation runs, chosen once at start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from lkactor.plane.cells import EgressCell, IngressCell, NoEgressCell, NoIngressCell, NoSocketCell, SocketCell
from lkactor.plane.sources import source_id
from lkactor.sfu.fanout import Fanout, PythonFanout
from lkactor.sfu.leg import Leg
from lkactor.srtp import kernel_access


class Pump(Protocol):
    """Receives, on a thread of its own. `fd` becomes readable when there is something to take."""

    fd: int

    @property
    def dropped(self) -> int:
        """Datagrams that Python was too slow for."""

    def start(self) -> None:
        """Raises OSError."""

    def stop(self) -> None:
        """Returns when it has ended; before the sockets are closed."""

    def take(self) -> Iterator[tuple[int, int, bytes, bytes, float, int]]:
        """(socket, route number or 0, packed address, datagram, arrival, 0 or OPENED or REST) of all that waits."""

    def tell_news(self) -> bool:
        """Call `on_news` of every ingress that has something to tell. False: none had, and the next one will ring."""

    @property
    def rings_with_news(self) -> bool:
        """The last `tell_news` found nothing, and nothing has come since."""


class Plane(Protocol):
    """Makes the rows. One per process."""

    name: str
    why: str
    """Why this one, for the banner."""
    lock: AbstractContextManager[object]
    """Held by whoever reads or writes rows, streams or SRTP sessions that another thread may run packets through. May
    be entered again by who is inside."""

    def socket(self, fd: int) -> SocketCell: ...

    def egress(self) -> EgressCell: ...

    def ingress(self) -> IngressCell: ...

    def pump(self, sockets: Sequence[SocketCell], now: float) -> Pump | None:
        """What receives on `sockets`, numbered from 0, not started; None: Python does. `now`: of Trio's clock. Raises
        OSError."""

    def leg(self, **row: Any) -> Leg:
        """Arguments as of `Leg`."""

    def fanout(self, kind: str, red: Mapping[int, int]) -> Fanout:
        """`red`: the publisher's RED payload types, each with the type of the blocks inside."""


class PythonPlane:
    """`lkactor.sfu` alone."""

    name = "python"

    def __init__(self, why: str = "asked for") -> None:
        self.why = why
        self.lock: AbstractContextManager[object] = nullcontext()

    def socket(self, fd: int) -> SocketCell:
        return NoSocketCell()

    def egress(self) -> EgressCell:
        return NoEgressCell()

    def ingress(self) -> IngressCell:
        return NoIngressCell()

    def pump(self, sockets: Sequence[SocketCell], now: float) -> Pump | None:
        return None

    def leg(self, **row: Any) -> Leg:
        return Leg(**row)

    def fanout(self, kind: str, red: Mapping[int, int]) -> Fanout:
        return PythonFanout()


def choose(name: str = "auto") -> Plane:
    """The plane asked for, or the best there is. Raises RuntimeError if "kernel" was asked for and cannot be had."""
    if name == "python":
        return PythonPlane()
    why = _missing()
    if not why:
        from lkactor.plane.native import KernelPlane

        return KernelPlane()
    if name == "kernel":
        raise RuntimeError(f"the C kernel of the forwarding plane cannot be used: {why}")
    return PythonPlane(why)


def _missing() -> str:
    """What keeps the kernel from running here; "" if nothing does."""
    try:
        from lkactor.plane import _kernel
    except ImportError:
        return "it was not built (no compiler when lkactor was installed)"
    built_of = _kernel.ffi.string(_kernel.lib.lk_source_id()).decode()
    if source_id(Path(__file__).parent) not in ("", built_of):
        return "its sources have changed since it was built: python lkactor/plane/build.py"
    return "" if kernel_access() is not None else "this pylibsrtp does not show libsrtp's functions"
