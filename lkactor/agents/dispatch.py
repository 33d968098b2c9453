"""What one room has dispatched: its dispatches, their jobs, and what becomes of a job that failed. Pure.

A job that its worker reports as failed, or whose worker is gone while its agent is not in the room, is launched
again: at most MAX_RESTARTS times, after 1, 2, 4 seconds, unless the dispatch says never. An agent that was sent away
or left by itself stays away. (The open source reference never restarts a job.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from livekit.protocol import agent, agent_dispatch, models

from lkactor.agents.jobs import ENDED, JobOrder, check_deployment
from lkactor.room.sids import new_sid

MAX_RESTARTS = 3
RESTART_DELAY = 1.0
LOST_GRACE = 3.0
"""Seconds for a lost worker to come back and take its jobs, and for its agent's own connection to show."""
MAX_JOBS = 200
"""Kept for `ListDispatch`, per dispatch; the oldest that ended go first."""
JobType = agent.JobType


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch it `delay` seconds from now."""

    order: JobOrder
    delay: float


class Dispatches:
    """`owner` names the room in job orders; `room` is its public info as of now."""

    def __init__(
        self, *, owner: str, room: Callable[[], models.Room], rng: random.Random, unix: Callable[[], float]
    ) -> None:
        self._owner = owner
        self._room = room
        self._rng = rng
        self._unix = unix
        self._dispatches: dict[str, agent_dispatch.AgentDispatch] = {}
        self._agents: dict[str, str] = {}
        """Identity of an agent -> its job."""
        self._lost: set[str] = set()
        self._finished_by_us: set[str] = set()
        self._restarts: dict[tuple[str, int, str], int] = {}

    # -- dispatches -------------------------------------------------------------------------------------------------

    def open(self, agents: Iterable[agent_dispatch.RoomAgentDispatch]) -> None:
        """What the room was made with. Nothing: any worker without a name (livekit-surface 11)."""
        for wanted in list(agents) or [agent_dispatch.RoomAgentDispatch()]:
            if not check_deployment(wanted.deployment):
                self.create(
                    agent_dispatch.AgentDispatch(
                        agent_name=wanted.agent_name,
                        metadata=wanted.metadata,
                        restart_policy=wanted.restart_policy,
                        deployment=wanted.deployment,
                        attributes=wanted.attributes,
                    )
                )

    def create(self, dispatch: agent_dispatch.AgentDispatch) -> agent_dispatch.AgentDispatch:
        made = agent_dispatch.AgentDispatch()
        made.CopyFrom(dispatch)
        made.id = new_sid("AD_", self._rng)
        made.room = self._room().name
        made.state.created_at = int(self._unix() * 1e9)
        self._dispatches[made.id] = made
        return made

    def delete(self, id: str) -> agent_dispatch.AgentDispatch | None:
        """None: there is no such dispatch. Its running jobs are the caller's to terminate."""
        return self._dispatches.pop(id, None)

    def listed(self, id: str = "") -> tuple[agent_dispatch.AgentDispatch, ...]:
        return tuple(dispatch for dispatch in self._dispatches.values() if id in ("", dispatch.id))

    def running(self, dispatch: agent_dispatch.AgentDispatch) -> list[agent.Job]:
        return [job for job in dispatch.state.jobs if job.state.status not in ENDED]

    # -- orders -----------------------------------------------------------------------------------------------------

    def orders(self, type: int, participant: models.ParticipantInfo | None = None, *, only: str = "") -> list[JobOrder]:
        """One per dispatch, or of the dispatch `only`."""
        return [self._order(dispatch, type, participant) for dispatch in self.listed(only)]

    def _order(
        self, dispatch: agent_dispatch.AgentDispatch, type: int, participant: models.ParticipantInfo | None
    ) -> JobOrder:
        return JobOrder(
            owner=self._owner,
            dispatch_id=dispatch.id,
            type=type,
            room=self._room(),
            participant=participant,
            agent_name=dispatch.agent_name,
            metadata=dispatch.metadata,
            deployment=dispatch.deployment,
            attributes=dict(dispatch.attributes),
        )

    # -- jobs -------------------------------------------------------------------------------------------------------

    def job_of(self, identity: str) -> str:
        """The job of this agent, "" if it is none of ours."""
        return self._agents.get(identity, "")

    def changed(self, job: agent.Job, lost: bool, present: Mapping[str, models.ParticipantInfo]) -> Launch | None:
        """News of a job; what is to be launched in its place. `present`: who is in the room, by identity."""
        dispatch = self._dispatches.get(job.dispatch_id)
        if dispatch is None:
            if job.state.status in ENDED:
                self._finished_by_us.discard(job.id)
            return None
        self._keep(dispatch, job)
        if job.state.participant_identity:
            self._agents[job.state.participant_identity] = job.id
        if lost:
            self._lost.add(job.id)
        else:
            self._lost.discard(job.id)
        if job.state.status != agent.JobStatus.JS_FAILED or job.id in self._finished_by_us:
            return None
        return self._again(dispatch, job, present)

    def lost_for_good(self, job_id: str, present: Mapping[str, models.ParticipantInfo]) -> Launch | None:
        """LOST_GRACE after its worker went: if its agent is not here either, the job has failed."""
        found = self._find(job_id) if job_id in self._lost else None
        if found is None or found[1].state.participant_identity in present:
            return None
        return self._fail(*found, present)

    def agent_left(self, identity: str, present: Mapping[str, models.ParticipantInfo]) -> tuple[str, Launch | None]:
        """(the job to terminate, what to launch in its place): "" and None when it was no agent of ours."""
        job_id = self._agents.pop(identity, "")
        found = self._find(job_id)
        if found is None or found[1].state.status in ENDED:
            return "", None
        if job_id in self._lost:
            return "", self._fail(*found, present)
        return job_id, None

    def finish(self, job_id: str) -> None:
        """We end this job: however it ends, it is not launched again."""
        self._finished_by_us.add(job_id)

    def _fail(
        self, dispatch: agent_dispatch.AgentDispatch, job: agent.Job, present: Mapping[str, models.ParticipantInfo]
    ) -> Launch | None:
        self._lost.discard(job.id)
        job.state.status, job.state.error = agent.JobStatus.JS_FAILED, "agent worker is gone"
        job.state.ended_at = job.state.updated_at = int(self._unix() * 1e9)
        return self._again(dispatch, job, present)

    def _again(
        self, dispatch: agent_dispatch.AgentDispatch, job: agent.Job, present: Mapping[str, models.ParticipantInfo]
    ) -> Launch | None:
        target = job.participant.identity if job.HasField("participant") else ""
        key = (dispatch.id, job.type, target)
        count = self._restarts.get(key, 0)
        never = dispatch.restart_policy == agent_dispatch.JobRestartPolicy.JRP_NEVER
        if never or count >= MAX_RESTARTS or (target and target not in present):
            return None
        self._restarts[key] = count + 1
        return Launch(self._order(dispatch, job.type, present.get(target)), RESTART_DELAY * 2**count)

    def _find(self, job_id: str) -> tuple[agent_dispatch.AgentDispatch, agent.Job] | None:
        for dispatch in self._dispatches.values():
            for job in dispatch.state.jobs:
                if job.id == job_id:
                    return dispatch, job
        return None

    def _keep(self, dispatch: agent_dispatch.AgentDispatch, job: agent.Job) -> None:
        jobs = dispatch.state.jobs
        for known in jobs:
            if known.id == job.id:
                known.CopyFrom(job)
                return
        jobs.append(job)
        if len(jobs) > MAX_JOBS:
            oldest = next((index for index, known in enumerate(jobs) if known.state.status in ENDED), 0)
            self._finished_by_us.discard(jobs[oldest].id)
            del jobs[oldest]
