"""What the agents actor is told by the workers' connections and by rooms, and what it tells rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from livekit.protocol import agent, agent_dispatch

from actors.kernel import ActorRef
from lkactor.agents import JobOrder, JobReason


class WorkerSink(Protocol):
    """The sending half of a worker's connection."""

    def send(self, message: agent.ServerMessage) -> None: ...

    def close(self) -> None: ...


# -- from the front


@dataclass(frozen=True, slots=True)
class ConnectWorker:
    """Answer: the worker's id."""

    api_key: str
    sink: WorkerSink


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    worker_id: str
    message: agent.WorkerMessage


@dataclass(frozen=True, slots=True)
class WorkerGone:
    worker_id: str


# -- from rooms


@dataclass(frozen=True, slots=True)
class LaunchJobs:
    """News of what comes of it go to `room` as JobNews."""

    room: ActorRef[JobNews]
    orders: tuple[JobOrder, ...]


@dataclass(frozen=True, slots=True)
class TerminateJobs:
    job_ids: tuple[str, ...]
    reason: JobReason


@dataclass(frozen=True, slots=True)
class AgentsTick:
    """Timer, to itself."""


AgentsMessage = ConnectWorker | WorkerSaid | WorkerGone | LaunchJobs | TerminateJobs | AgentsTick


# -- to rooms


@dataclass(frozen=True, slots=True)
class JobNews:
    """A job of this room was assigned, updated or ended. `lost`: its worker is gone."""

    job: agent.Job
    lost: bool


@dataclass(frozen=True, slots=True)
class CreateDispatch:
    """From the API. Answer: AgentDispatch."""

    dispatch: agent_dispatch.AgentDispatch


@dataclass(frozen=True, slots=True)
class DeleteDispatch:
    """From the API. Answer: AgentDispatch, or None when there is none of that id."""

    id: str


@dataclass(frozen=True, slots=True)
class ListDispatches:
    """From the API; "" for all. Answer: tuple of AgentDispatch."""

    id: str


@dataclass(frozen=True, slots=True)
class LaunchAgain:
    """Timer of a room, to itself."""

    order: JobOrder


@dataclass(frozen=True, slots=True)
class LostJobDue:
    """Timer of a room, to itself."""

    job_id: str


@dataclass(frozen=True, slots=True)
class SendAgentAway:
    """Timer of a room, to itself: an agent whose dispatch was deleted has had its time."""

    identity: str


DispatchMessage = JobNews | CreateDispatch | DeleteDispatch | ListDispatches | LaunchAgain | LostJobDue | SendAgentAway
