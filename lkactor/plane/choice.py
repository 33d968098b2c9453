"""Which implementation runs, chosen once at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lkactor.plane.cells import EgressCell, NoEgressCell, NoSocketCell, SocketCell
from lkactor.plane.sources import source_id
from lkactor.sfu.fanout import Fanout, PythonFanout
from lkactor.sfu.leg import Leg
from lkactor.srtp import kernel_access


class Plane(Protocol):
    """Makes the rows. One per process."""

    name: str
    why: str
    """Why this one, for the banner."""

    def socket(self, fd: int) -> SocketCell: ...

    def egress(self) -> EgressCell: ...

    def leg(self, **row: Any) -> Leg:
        """Arguments as of `Leg`."""

    def fanout(self, kind: str, red: Mapping[int, int]) -> Fanout:
        """`red`: the publisher's RED payload types, each with the type of the blocks inside."""


class PythonPlane:
    """`lkactor.sfu` alone."""

    name = "python"

    def __init__(self, why: str = "asked for") -> None:
        self.why = why

    def socket(self, fd: int) -> SocketCell:
        return NoSocketCell()

    def egress(self) -> EgressCell:
        return NoEgressCell()

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
        return "kernel.c has changed since it was built: python lkactor/plane/build.py"
    return "" if kernel_access() is not None else "this pylibsrtp does not show libsrtp's functions"
