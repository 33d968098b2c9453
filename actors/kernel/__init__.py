"""The actor runtime: standard library and Trio only. What it promises is in docs/runtime-semantics.md."""

from __future__ import annotations

from actors.kernel.actor import (
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    REST_FOR_ONE,
    Actor,
    ActorContext,
    Exit,
    Group,
    Restart,
    Restarted,
    Strategy,
    Terminated,
)
from actors.kernel.errors import (
    ActorDead,
    ActorError,
    AskCycle,
    AskTimeout,
    MailboxFull,
    RestartIntensityExceeded,
    StartFailed,
)
from actors.kernel.faults import FailNext, FaultPlan, Full, Kill, LinkFault, Pause, Slow
from actors.kernel.link import MediaLink
from actors.kernel.mailbox import NOT_NOW
from actors.kernel.ref import ActorRef
from actors.kernel.supervisor import ChildSpec, Supervisor
from actors.kernel.system import ActorInfo, ActorSystem
from actors.kernel.timers import Timer

__all__ = [
    "NOT_NOW",
    "ONE_FOR_ALL",
    "ONE_FOR_ONE",
    "REST_FOR_ONE",
    "Actor",
    "ActorContext",
    "ActorDead",
    "ActorError",
    "ActorInfo",
    "ActorRef",
    "ActorSystem",
    "AskCycle",
    "AskTimeout",
    "ChildSpec",
    "Exit",
    "FailNext",
    "FaultPlan",
    "Full",
    "Group",
    "Kill",
    "LinkFault",
    "MailboxFull",
    "MediaLink",
    "Pause",
    "Restart",
    "RestartIntensityExceeded",
    "Restarted",
    "Slow",
    "StartFailed",
    "Strategy",
    "Supervisor",
    "Terminated",
    "Timer",
]
