"""Agents: which workers there are, which jobs they have, and what a room dispatches. Pure."""

from lkactor.agents.dispatch import Dispatches, Launch
from lkactor.agents.jobs import JobOrder, JobReason, check_deployment
from lkactor.agents.pool import JobChanged, WorkerClosed, WorkerPool

__all__ = [
    "Dispatches",
    "JobChanged",
    "JobOrder",
    "JobReason",
    "Launch",
    "WorkerClosed",
    "WorkerPool",
    "check_deployment",
]
