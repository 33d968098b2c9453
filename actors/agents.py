"""The agents actor: every worker of this node, and which room is told of which job. The rules are in `lkactor.agents`.

It survives its rooms; a crash closes all workers' connections, which come back and take their jobs with them.
"""

from __future__ import annotations

import math
import weakref
from typing import assert_never

from livekit.protocol import agent
from trio import current_time

from actors.kernel import Actor, ActorDead, ActorRef, Exit, MailboxFull, Timer
from actors.messages.agents import (
    AgentsMessage,
    AgentsTick,
    ConnectWorker,
    JobNews,
    LaunchJobs,
    TerminateJobs,
    WorkerGone,
    WorkerSaid,
    WorkerSink,
)
from actors.services import Services
from lkactor.agents import JobChanged, WorkerClosed, WorkerPool


class AgentsActor(Actor[AgentsMessage]):
    """Rooms are known by the path of their ref, for as long as they live."""

    mailbox_capacity = 4096

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pool = WorkerPool(
            rng=services.rng,
            server_info=services.server_info,
            unix=services.unix,
            keys=lambda: services.config.keys,
        )
        self._sinks: dict[str, WorkerSink] = {}
        self._rooms: weakref.WeakValueDictionary[str, ActorRef[JobNews]] = weakref.WeakValueDictionary()
        self._timer: Timer | None = None
        self._timer_at = math.inf

    async def stopping(self, exit: Exit) -> None:
        for sink in self._sinks.values():
            sink.close()

    async def receive(self, message: AgentsMessage) -> object:
        pool, now, answer = self._pool, current_time(), ""
        match message:
            case ConnectWorker(api_key=api_key, sink=sink):
                answer = pool.connect(api_key, now)
                self._sinks[answer] = sink
            case WorkerSaid(worker_id=worker_id, message=said):
                self._said(worker_id, said, now)
            case WorkerGone(worker_id=worker_id):
                self._gone(worker_id, now)
            case LaunchJobs(room=room, orders=orders):
                for order in orders:
                    self._rooms[order.owner] = room
                    pool.launch(order, now)
            case TerminateJobs(job_ids=job_ids, reason=reason):
                for job_id in job_ids:
                    pool.terminate(job_id, reason)
            case AgentsTick():
                self._timer, self._timer_at = None, math.inf
                pool.handle_timeout(now)
            case _:
                assert_never(message)
        self._flush()
        self._schedule(now)
        return answer

    def _said(self, worker_id: str, said: agent.WorkerMessage, now: float) -> None:
        self._pool.receive(worker_id, said, now)
        worker = self._pool.workers.get(worker_id)
        if said.HasField("register") and worker is not None and worker.registered:
            kind = agent.JobType.Name(worker.key.type)
            self._log("worker.registered", f"{worker_id} {worker.key.agent_name or '(no name)'} {kind}")

    def _gone(self, worker_id: str, now: float) -> None:
        if self._sinks.pop(worker_id, None) is not None:
            self._log("worker.gone", worker_id)
        self._pool.disconnect(worker_id, now)

    def _flush(self) -> None:
        pool = self._pool
        while (event := pool.next_event()) is not None:
            match event:
                case JobChanged(owner=owner, job=job, lost=lost):
                    self._tell(owner, JobNews(job, lost))
                case WorkerClosed(worker_id=worker_id, reason=reason):
                    self._log("worker.closed", f"{worker_id} {reason}")
                    sink = self._sinks.get(worker_id)
                    if sink is not None:
                        sink.close()
                case _:
                    assert_never(event)
        while pool.outbox:
            worker_id, message = pool.outbox.popleft()
            sink = self._sinks.get(worker_id)
            if sink is not None:
                sink.send(message)

    def _tell(self, owner: str, news: JobNews) -> None:
        room = self._rooms.get(owner)
        if room is None:
            return
        try:
            room.tell(news)
        except (ActorDead, MailboxFull):
            self._log("job.room_unreachable", news.job.id)

    def _schedule(self, now: float) -> None:
        deadline = self._pool.next_timeout()
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.context.schedule(max(0.0, deadline - now), AgentsTick())

    def _log(self, event: str, detail: str) -> None:
        self._services.events.record(current_time(), "", "", event, detail)
