"""The desk of a room that dispatches agents: which jobs follow from who comes, publishes and leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, assert_never
from weakref import proxy

from livekit.protocol import agent, agent_dispatch, models

from actors.kernel import ActorDead, MailboxFull
from actors.messages.agents import (
    CreateDispatch,
    DeleteDispatch,
    DispatchMessage,
    JobNews,
    LaunchAgain,
    LaunchJobs,
    ListDispatches,
    LostJobDue,
    SendAgentAway,
    TerminateJobs,
)
from lkactor.agents import Dispatches, JobOrder, JobReason, Launch
from lkactor.agents.dispatch import LOST_GRACE
from lkactor.agents.jobs import ENDED

if TYPE_CHECKING:
    from actors.room import Member, RoomActor

SHUTDOWN_GRACE = 3.0
"""Seconds for an agent to leave after its dispatch was deleted."""
JobType = agent.JobType


class DispatchingDesk:
    """The part of a room actor that agents are the business of. Without an agents actor it does nothing."""

    def __init__(self, room: RoomActor, agents: Sequence[agent_dispatch.RoomAgentDispatch]) -> None:
        services = room.services
        self._room: RoomActor = proxy(room)
        own = self._room
        self._wanted = tuple(agents)
        self._agents = services.agents
        self._owner = room.sid
        self.dispatches = Dispatches(owner=room.sid, room=lambda: own.info(), rng=services.rng, unix=services.unix)
        self._published: set[str] = set()

    # -- what happens in the room -----------------------------------------------------------------------------------

    def opened(self) -> None:
        self.dispatches.open(self._wanted)
        self._launch(self.dispatches.orders(JobType.JT_ROOM))

    def joined(self, member: Member) -> None:
        if not member.dependent:
            self._launch(self.dispatches.orders(JobType.JT_PARTICIPANT, member.info))

    def published(self, member: Member) -> None:
        if not member.dependent and member.sid not in self._published:
            self._published.add(member.sid)
            self._launch(self.dispatches.orders(JobType.JT_PUBLISHER, member.info))

    def left(self, member: Member) -> None:
        self._published.discard(member.sid)
        job_id, again = self.dispatches.agent_left(member.identity, self._present())
        if job_id:
            self._terminate((job_id,), JobReason.AGENT_LEFT_ROOM)
        self._launch_later(again)

    def closed(self) -> None:
        jobs = [job.id for dispatch in self.dispatches.listed() for job in self.dispatches.running(dispatch)]
        self._terminate(tuple(jobs), JobReason.TERMINATION_REQUESTED)

    # -- messages ---------------------------------------------------------------------------------------------------

    def handle(self, message: DispatchMessage) -> object:
        match message:
            case JobNews(job=job, lost=lost):
                if not self.dispatches.listed(job.dispatch_id) and job.state.status not in ENDED:
                    self._terminate((job.id,), JobReason.TERMINATION_REQUESTED)  # Deleted while it was being offered.
                self._room.log("agent.job", f"{job.id} {agent.JobStatus.Name(job.state.status)}{' lost' * lost}")
                self._launch_later(self.dispatches.changed(job, lost, self._present()))
                if lost:
                    self._room.context.schedule(LOST_GRACE, LostJobDue(job.id))
            case CreateDispatch(dispatch=dispatch):
                return self._create(dispatch)
            case DeleteDispatch(id=id):
                return self._delete(id)
            case ListDispatches(id=id):
                return self.dispatches.listed(id)
            case LaunchAgain(order=order):
                if self.dispatches.listed(order.dispatch_id):
                    self._room.log("agent.launched_again", order.dispatch_id)
                    self._launch([order])
            case LostJobDue(job_id=job_id):
                self._launch_later(self.dispatches.lost_for_good(job_id, self._present()))
            case SendAgentAway(identity=identity):
                self._room.send_away(identity, models.DisconnectReason.PARTICIPANT_REMOVED)
            case _:
                assert_never(message)
        return None

    def _create(self, wanted: agent_dispatch.AgentDispatch) -> agent_dispatch.AgentDispatch:
        dispatch = self.dispatches.create(wanted)
        orders = self.dispatches.orders(JobType.JT_ROOM, only=dispatch.id)
        for member in self._room.members.values():
            if not member.dependent and member.active_seen:
                if member.tracks:
                    orders += self.dispatches.orders(JobType.JT_PUBLISHER, member.info, only=dispatch.id)
                orders += self.dispatches.orders(JobType.JT_PARTICIPANT, member.info, only=dispatch.id)
        self._launch(orders)
        return dispatch

    def _delete(self, id: str) -> agent_dispatch.AgentDispatch | None:
        dispatch = self.dispatches.delete(id)
        if dispatch is not None:
            jobs = self.dispatches.running(dispatch)
            self._terminate(tuple(job.id for job in jobs), JobReason.TERMINATION_REQUESTED)
            for job in jobs:
                if job.state.participant_identity:
                    self._room.context.schedule(SHUTDOWN_GRACE, SendAgentAway(job.state.participant_identity))
        return dispatch

    # -- small things -----------------------------------------------------------------------------------------------

    def _present(self) -> Mapping[str, models.ParticipantInfo]:
        return {member.identity: member.info for member in self._room.members.values()}

    def _launch_later(self, launch: Launch | None) -> None:
        if launch is not None:
            self._room.context.schedule(launch.delay, LaunchAgain(launch.order))

    def _launch(self, orders: Sequence[JobOrder]) -> None:
        if orders:
            self._tell(LaunchJobs(self._room.context.ref, tuple(orders)))

    def _terminate(self, job_ids: tuple[str, ...], reason: JobReason) -> None:
        for job_id in job_ids:
            self.dispatches.finish(job_id)
        if job_ids:
            self._tell(TerminateJobs(job_ids, reason))

    def _tell(self, message: LaunchJobs | TerminateJobs) -> None:
        if self._agents is None:
            return
        try:
            self._agents.tell(message)
        except (ActorDead, MailboxFull):
            self._room.log("agent.unreachable")
