"""The forwarding plane: rows that say what becomes of a packet, and who runs packets through them.

| implementation | hot step                                     | needs                                  |
|----------------|----------------------------------------------|----------------------------------------|
| python         | `intake.py`: unprotect, what needs no        | nothing                                |
|                | decision; `steady.py`: which legs ride;      |                                        |
|                | `convoy.py`: rewrite, protect, `sendmmsg`    |                                        |
| kernel         | `receive.c`: `recvmmsg`, unprotect           | a compiler at installation, libsrtp 2  |
|                | `steady.c`: what needs no decision,          |                                        |
|                | `take.c`: what had to wait for one           |                                        |
|                | `kernel.c`: rewrite, protect, `sendmmsg`     |                                        |

Either does what a row needs in its steady state, for all rows of a burst in one call. Starting, switching, resuming,
late packets, retransmission, RED that has to be taken apart, paths that are no UDP socket: that is
`lkactor/sfu/forwarder.py`, on the same rows, with either implementation. `tests/lkactor/plane` and `tests/lkactor/sfu`
run the same cases through both.
"""

from lkactor.plane.cells import DTLS_DATA, OPENED, RECORDS, REST, RTCP, EgressCell, HandedUp, IngressCell, SocketCell
from lkactor.plane.choice import Plane, Pump, PythonPlane, choose
from lkactor.plane.inline import InlineSocket
from lkactor.plane.intake import InlineIngress, Intake

__all__ = [
    "DTLS_DATA",
    "OPENED",
    "RECORDS",
    "REST",
    "RTCP",
    "EgressCell",
    "HandedUp",
    "IngressCell",
    "InlineIngress",
    "InlineSocket",
    "Intake",
    "Plane",
    "Pump",
    "PythonPlane",
    "SocketCell",
    "choose",
]
