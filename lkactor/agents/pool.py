"""All workers of this node and the jobs they were offered or have (livekit-surface 11).

One worker:

| state       | meaning                       | leaves it                                                       |
|-------------|-------------------------------|-----------------------------------------------------------------|
| REGISTERING | connected, has said nothing   | `register`: REGISTERED; 10 s without it, anything bad: CLOSED   |
| REGISTERED  | gets jobs while AVAILABLE     | disconnects: CLOSED; its running jobs are lost                  |

One job:

| state   | meaning                         | leaves it                                                              |
|---------|---------------------------------|------------------------------------------------------------------------|
| OFFERED | a worker was asked              | accepted: RUNNING; refused, silent for 10 s or gone: the next worker   |
| RUNNING | assigned, its agent has a token | the worker says so, or `terminate`: ended; its worker goes: LOST       |
| LOST    | its agent may go on alone       | a worker that reconnects takes it back with `migrate_job`; `terminate` |
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from livekit.protocol import agent, models

from lkactor.agents.jobs import ENDED, JobOrder, JobReason, check_deployment, job_token
from lkactor.counters import Counters
from lkactor.room.sids import new_sid

Status = agent.JobStatus
REGISTER_TIMEOUT = 10.0
ASSIGN_TIMEOUT = 10.0
MAX_OFFERS_PER_WORKER = 100
"""A worker may ask for jobs itself (`simulate_job`), not for any number."""
MAX_LOST = 1000


class WorkerKey(NamedTuple):
    """Whom a job can go to."""

    agent_name: str
    namespace: str
    type: int
    deployment: str


def _default_permissions() -> models.ParticipantPermission:
    """Of a worker that asks for none."""
    return models.ParticipantPermission(
        can_subscribe=True, can_publish=True, can_publish_data=True, can_update_metadata=True
    )


NOBODY = WorkerKey("", "", 0, "")


@dataclass(slots=True)
class Worker:
    """One connection of a worker."""

    id: str
    api_key: str
    deadline: float | None
    """To register by; None once it has."""
    key: WorkerKey = NOBODY
    permissions: models.ParticipantPermission = field(default_factory=_default_permissions)
    status: int = agent.WorkerStatus.WS_AVAILABLE
    load: float = 0.0
    jobs: dict[str, Assigned] = field(default_factory=dict)

    @property
    def registered(self) -> bool:
        return self.deadline is None

    @property
    def capacity(self) -> float:
        """Its weight in the choice, 0 to 1."""
        return max(0.0, min(1.0, 1.0 - self.load)) if self.status == agent.WorkerStatus.WS_AVAILABLE else 0.0


@dataclass(slots=True)
class Assigned:
    """A job that runs, and whose it is."""

    owner: str
    job: agent.Job


@dataclass(slots=True)
class Offer:
    """A job that a worker was asked to take."""

    owner: str
    job: agent.Job
    key: WorkerKey
    worker_id: str
    deadline: float
    tried: set[str]


@dataclass(frozen=True, slots=True)
class JobChanged:
    """Assigned, updated, ended. `lost`: its worker is gone, its agent may not be."""

    owner: str
    job: agent.Job
    lost: bool = False


@dataclass(frozen=True, slots=True)
class WorkerClosed:
    """This connection is to be closed."""

    worker_id: str
    reason: str


PoolEvent = JobChanged | WorkerClosed


class WorkerPool:
    """Verbs: `connect`, `receive`, `disconnect`, `launch`, `terminate`, `next_timeout`, `handle_timeout`.

    What is to be sent is in `outbox`, what happened in `next_event`.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        server_info: models.ServerInfo,
        unix: Callable[[], float],
        keys: Callable[[], Mapping[str, str]],
    ) -> None:
        self._rng = rng
        self._server_info = server_info
        self._unix = unix
        self._keys = keys
        self.workers: dict[str, Worker] = {}
        self._offers: dict[str, Offer] = {}
        self._lost: dict[str, Assigned] = {}
        self.outbox: deque[tuple[str, agent.ServerMessage]] = deque()
        self._events: deque[PoolEvent] = deque()
        self.counters = Counters()

    # -- workers ----------------------------------------------------------------------------------------------------

    def connect(self, api_key: str, now: float) -> str:
        """A worker's id."""
        id = new_sid("AW_", self._rng)
        self.workers[id] = Worker(id, api_key, now + REGISTER_TIMEOUT)
        return id

    def receive(self, worker_id: str, message: agent.WorkerMessage, now: float) -> None:
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        kind = message.WhichOneof("message")
        if kind == "ping":
            stamp = int(self._unix() * 1000)
            pong = agent.WorkerPong(last_timestamp=message.ping.timestamp, timestamp=stamp)
            self.outbox.append((worker_id, agent.ServerMessage(pong=pong)))
        elif kind == "register" and not worker.registered:
            self._register(worker, message.register)
        elif kind is None or not worker.registered or kind == "register":
            self.counters.count("agents.unexpected_message")
            self._close(worker_id, f"unexpected message {kind or '(none)'}")
        else:
            self._receive_registered(worker, kind, message, now)

    def _register(self, worker: Worker, request: agent.RegisterWorkerRequest) -> None:
        problem = check_deployment(request.deployment)
        if request.type not in agent.JobType.values():
            problem = "unknown job type"
        if problem:
            self.counters.count("agents.bad_registration")
            self._close(worker.id, problem)
            return
        worker.key = WorkerKey(request.agent_name, request.namespace, request.type, request.deployment)
        if request.HasField("allowed_permissions"):
            worker.permissions = request.allowed_permissions
        worker.deadline = None
        registered = agent.RegisterWorkerResponse(worker_id=worker.id, server_info=self._server_info)
        self.outbox.append((worker.id, agent.ServerMessage(register=registered)))

    def _receive_registered(self, worker: Worker, kind: str, message: agent.WorkerMessage, now: float) -> None:
        match kind:
            case "availability":
                self._answered(worker, message.availability, now)
            case "update_worker":
                if message.update_worker.HasField("status"):
                    worker.status = message.update_worker.status
                worker.load = message.update_worker.load
            case "update_job":
                self._update_job(worker, message.update_job)
            case "simulate_job":
                self._simulate(worker, message.simulate_job, now)
            case "migrate_job":
                self._take_back(worker, message.migrate_job.job_ids)

    def disconnect(self, worker_id: str, now: float) -> None:
        """Its offers go to others, its running jobs are lost."""
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return
        for offer in [offer for offer in self._offers.values() if offer.worker_id == worker_id]:
            self._offer_next(offer, now)
        for id, assigned in worker.jobs.items():
            self._lost[id] = assigned
            if len(self._lost) > MAX_LOST:
                del self._lost[next(iter(self._lost))]
            self._changed(assigned, lost=True)

    def _take_back(self, worker: Worker, job_ids: Iterable[str]) -> None:
        """A worker that lost its connection, not its jobs."""
        for id in job_ids:
            assigned = self._lost.get(id)
            if assigned is None or assigned.job.agent_name != worker.key.agent_name:
                self.counters.count("agents.migrate_unknown_job")
                continue
            del self._lost[id]
            assigned.job.state.worker_id = worker.id
            worker.jobs[id] = assigned
            self._changed(assigned)

    def _close(self, worker_id: str, reason: str) -> None:
        self._events.append(WorkerClosed(worker_id, reason))

    # -- jobs -------------------------------------------------------------------------------------------------------

    def launch(self, order: JobOrder, now: float) -> int:
        """Offer a job in every namespace that has a worker for it; how many."""
        namespaces = {
            worker.key.namespace
            for worker in self.workers.values()
            if worker.registered
            and (worker.key.agent_name, worker.key.type, worker.key.deployment)
            == (order.agent_name, order.type, order.deployment)
        }
        for namespace in sorted(namespaces):
            job = order.job(new_sid("AJ_", self._rng), namespace)
            key = WorkerKey(order.agent_name, namespace, order.type, order.deployment)
            self._offer_next(Offer(order.owner, job, key, "", 0.0, set()), now)
        return len(namespaces)

    def terminate(self, job_id: str, reason: JobReason) -> agent.Job | None:
        """End a job from outside; its state then, None if it does not run."""
        self._offers.pop(job_id, None)
        self._lost.pop(job_id, None)
        worker = next((worker for worker in self.workers.values() if job_id in worker.jobs), None)
        if worker is None:
            return None
        self.outbox.append((worker.id, agent.ServerMessage(termination=agent.JobTermination(job_id=job_id))))
        left = reason is JobReason.AGENT_LEFT_ROOM
        update = agent.UpdateJobStatus(
            job_id=job_id,
            status=Status.JS_FAILED if left else Status.JS_SUCCESS,
            error="agent worker left the room" if left else "",
        )
        job = worker.jobs[job_id].job
        self._update_job(worker, update)
        return job

    def _offer_next(self, offer: Offer, now: float) -> None:
        self._offers.pop(offer.job.id, None)
        worker = self._choose(offer.key, offer.tried)
        if worker is None:
            self.counters.count("agents.no_worker")
            return
        offer.tried.add(worker.id)
        offer.worker_id, offer.deadline = worker.id, now + ASSIGN_TIMEOUT
        stamp = self._stamp()
        state = agent.JobState(status=Status.JS_RUNNING, worker_id=worker.id, started_at=stamp, updated_at=stamp)
        offer.job.state.CopyFrom(state)
        self._offers[offer.job.id] = offer
        request = agent.AvailabilityRequest(job=offer.job)
        self.outbox.append((worker.id, agent.ServerMessage(availability=request)))

    def _choose(self, key: WorkerKey, tried: set[str]) -> Worker | None:
        """At random, weighted by what is left of each worker's capacity."""
        fitting = [w for w in self.workers.values() if w.registered and w.key == key and w.id not in tried]
        weights = [worker.capacity for worker in fitting]
        return self._rng.choices(fitting, weights)[0] if sum(weights) > 0 else None

    def _answered(self, worker: Worker, answer: agent.AvailabilityResponse, now: float) -> None:
        offer = self._offers.get(answer.job_id)
        if offer is None or offer.worker_id != worker.id:
            self.counters.count("agents.answer_to_nothing")
            return
        if answer.terminate:
            del self._offers[answer.job_id]
            self._end(offer.job, Status.JS_SUCCESS, "")
            self._events.append(JobChanged(offer.owner, offer.job))
        elif not answer.available:
            self._offer_next(offer, now)
        else:
            self._assign(worker, offer, answer)

    def _assign(self, worker: Worker, offer: Offer, answer: agent.AvailabilityResponse) -> None:
        del self._offers[answer.job_id]
        keys = self._keys()
        key = worker.api_key if worker.api_key in keys else next(iter(keys))
        job = offer.job
        job.state.participant_identity = answer.participant_identity
        token = job_token(key, keys[key], job, answer, worker.permissions, self._unix())
        self.outbox.append((worker.id, agent.ServerMessage(assignment=agent.JobAssignment(job=job, token=token))))
        assigned = worker.jobs[job.id] = Assigned(offer.owner, job)
        self._changed(assigned)

    def _update_job(self, worker: Worker, update: agent.UpdateJobStatus) -> None:
        assigned = worker.jobs.get(update.job_id)
        if assigned is None:
            self.counters.count("agents.update_of_unknown_job")  # The room may have closed first.
            return
        job = assigned.job
        if update.status in ENDED:
            del worker.jobs[update.job_id]
            self._end(job, update.status, update.error)
        else:
            job.state.status, job.state.error, job.state.updated_at = update.status, update.error, self._stamp()
        self._changed(assigned)

    def _end(self, job: agent.Job, status: agent.JobStatus, error: str) -> None:
        stamp = self._stamp()
        job.state.status, job.state.error = status, error
        job.state.updated_at = job.state.ended_at = stamp

    def _simulate(self, worker: Worker, request: agent.SimulateJobRequest, now: float) -> None:
        """The worker's own wish: a job that belongs to no dispatch."""
        mine = sum(offer.worker_id == worker.id for offer in self._offers.values())
        if mine >= MAX_OFFERS_PER_WORKER:
            self.counters.count("agents.too_many_offers")
            return
        given = request.HasField("participant")
        job = agent.Job(
            id=new_sid("AJ_", self._rng),
            type=agent.JobType.JT_PUBLISHER if given else agent.JobType.JT_ROOM,
            room=request.room,
            participant=request.participant if given else None,
            namespace=worker.key.namespace,
            agent_name=worker.key.agent_name,
        )
        others = {id for id in self.workers if id != worker.id}
        self._offer_next(Offer("", job, worker.key, "", 0.0, others), now)

    def _changed(self, assigned: Assigned, *, lost: bool = False) -> None:
        if assigned.owner:
            copy = agent.Job()
            copy.CopyFrom(assigned.job)
            self._events.append(JobChanged(assigned.owner, copy, lost))

    def _stamp(self) -> int:
        """Unix nanoseconds."""
        return int(self._unix() * 1e9)

    # -- time and events --------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        deadlines = [offer.deadline for offer in self._offers.values()]
        deadlines += [worker.deadline for worker in self.workers.values() if worker.deadline is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        for worker in list(self.workers.values()):
            if worker.deadline is not None and now >= worker.deadline:
                worker.deadline = float("inf")
                self._close(worker.id, "did not register in time")
        for offer in [offer for offer in self._offers.values() if now >= offer.deadline]:
            self.counters.count("agents.offer_timeout")
            self._offer_next(offer, now)

    def next_event(self) -> PoolEvent | None:
        return self._events.popleft() if self._events else None
