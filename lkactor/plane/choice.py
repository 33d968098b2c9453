"""Which implementation runs, chosen once at start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from lkactor.plane.cells import EgressCell, HandedUp, IngressCell, NoEgressCell, NoIngressCell, NoSocketCell, SocketCell
from lkactor.plane.convoy import SLOT_SIZE, SLOTS
from lkactor.plane.inline import InlineEgress, InlineSocket
from lkactor.plane.intake import InlineIngress, Intake
from lkactor.plane.riding import RidingLeg
from lkactor.plane.sources import source_id
from lkactor.plane.steady import SteadyFanout
from lkactor.sfu.fanout import Fanout, PythonFanout
from lkactor.sfu.leg import Leg
from lkactor.srtp import SLOTS_AVAILABLE, SlotArray, SrtpKeys, SrtpReceiver, SrtpSender, kernel_access, libsrtp


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

    def take(self, most: int) -> Iterable[HandedUp]:
        """Up to `most` of what waits and still has to be handed up, with RECORDS; what only had to wait for the packet
        before it is forwarded instead."""

    @property
    def has_more(self) -> bool:
        """The last `take` did not look at everything. Who leaves it for later has to `ring`."""

    def ring(self) -> None:
        """`fd` is readable again."""

    def tell_news(self) -> bool:
        """Call `on_news` of every ingress that has something to tell. False: none had, and the next one will ring.
        True: it is to be called again soon, and `take` after it: what can wait for others waits for that."""

    @property
    def has_losses(self) -> bool:
        """Packets are missing, and nobody has been told: `tell_news` is to be called before they are due to be asked
        for."""

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

    def srtp(self, keys: SrtpKeys) -> tuple[SrtpSender, SrtpReceiver]:
        """What protects and opens the packets of one peer connection."""

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
    """`lkactor.sfu`, and for legs in their steady state `lkactor.plane.steady`.

    What is sent at once needs a sender: whoever owns the sockets sets it in their cells. Without, and where libsrtp's
    functions cannot be reached, it is `lkactor.sfu` alone.
    """

    name = "python"

    def __init__(self, why: str = "asked for", *, protect: bool = True, steady: bool = True) -> None:
        """`protect` False: packets leave as they are and are taken as they come, for tests. `steady` False: one leg at
        a time, and everything through the actors."""
        self.why = why
        self.lock: AbstractContextManager[object] = nullcontext()
        """Whoever reads the sockets on another thread sets one, before anything is made."""
        self._protect = protect
        self.intake: Intake | None = Intake() if steady and SLOTS_AVAILABLE else None
        """What RTP of known peers goes through first, for whoever reads the sockets; None: it goes to the actors."""
        self._slots = SlotArray(SLOTS, SLOT_SIZE) if self.intake is not None else None

    def srtp(self, keys: SrtpKeys) -> tuple[SrtpSender, SrtpReceiver]:
        return libsrtp(keys)

    def socket(self, fd: int) -> SocketCell:
        return InlineSocket(fd) if self.intake is not None else NoSocketCell()

    def egress(self) -> EgressCell:
        return InlineEgress(self.lock, protect=self._protect) if self.intake is not None else NoEgressCell()

    def ingress(self) -> IngressCell:
        return (
            InlineIngress(self.intake, self.lock, protect=self._protect) if self.intake is not None else NoIngressCell()
        )

    def pump(self, sockets: Sequence[SocketCell], now: float) -> Pump | None:
        return None

    def leg(self, **row: Any) -> Leg:
        return RidingLeg(lock=self.lock, **row) if self.intake is not None else Leg(**row)

    def fanout(self, kind: str, red: Mapping[int, int]) -> Fanout:
        if self.intake is None or self._slots is None:
            return PythonFanout()
        return SteadyFanout(self._slots, self.intake, kind, red, protect=self._protect)


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
