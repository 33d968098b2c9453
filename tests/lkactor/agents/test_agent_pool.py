"""Workers and their jobs: who is chosen, who refuses, who is silent, who goes and comes back."""

import random
from collections import Counter

import jwt
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import agent, models

from lkactor.agents import JobChanged, JobOrder, JobReason, WorkerClosed, WorkerPool
from lkactor.agents.pool import ASSIGN_TIMEOUT, MAX_LOST, MAX_OFFERS_PER_WORKER, REGISTER_TIMEOUT

KEYS = {"key": "secret-of-some-length-that-is-enough", "other": "another-secret-of-some-length-enough"}
ROOM, PUBLISHER = agent.JobType.JT_ROOM, agent.JobType.JT_PUBLISHER
RUNNING, SUCCESS, FAILED = agent.JobStatus.JS_RUNNING, agent.JobStatus.JS_SUCCESS, agent.JobStatus.JS_FAILED
FULL, AVAILABLE = agent.WorkerStatus.WS_FULL, agent.WorkerStatus.WS_AVAILABLE


class World:
    """A pool, and what its workers were sent."""

    def __init__(self, seed=1):
        self.keys = dict(KEYS)
        info = models.ServerInfo(edition=models.ServerInfo.Standard, version="1")
        self.pool = WorkerPool(rng=random.Random(seed), server_info=info, unix=lambda: 1000.0, keys=lambda: self.keys)
        self.now = 0.0

    def worker(self, name="", *, kind=ROOM, namespace="", deployment="", load=0.0, key="key", **fields):
        id = self.pool.connect(key, self.now)
        request = agent.RegisterWorkerRequest(
            type=kind, agent_name=name, namespace=namespace, deployment=deployment, **fields
        )
        self.say(id, register=request)
        if load:
            self.say(id, update_worker=agent.UpdateWorkerStatus(status=AVAILABLE, load=load))
        self.sent(id)
        return id

    def say(self, id, **message):
        self.pool.receive(id, agent.WorkerMessage(**message), self.now)

    def sent(self, id):
        """What went to this worker since the last look; of others it stays."""
        mine = [message for worker, message in self.pool.outbox if worker == id]
        rest = [entry for entry in self.pool.outbox if entry[0] != id]
        self.pool.outbox.clear()
        self.pool.outbox.extend(rest)
        return mine

    def asked(self):
        """(worker, job) of the only offer that is under way."""
        ((worker, message),) = [entry for entry in self.pool.outbox if entry[1].HasField("availability")]
        self.pool.outbox.clear()
        return worker, message.availability.job

    def answer(self, id, job, *, available=True, **fields):
        self.say(id, availability=agent.AvailabilityResponse(job_id=job.id, available=available, **fields))

    def events(self):
        found = []
        while (event := self.pool.next_event()) is not None:
            found.append(event)
        return found

    def run_job(self, name="", **order):
        """Launched and accepted: (worker, job)."""
        self.pool.launch(ordered(name, **order), self.now)
        worker, job = self.asked()
        self.answer(worker, job, participant_identity="bot")
        self.sent(worker)
        self.events()
        return worker, job

    def later(self, seconds):
        self.now += seconds
        self.pool.handle_timeout(self.now)


def ordered(name="", *, kind=ROOM, deployment="", participant=None):
    room = models.Room(sid="RM_1", name="studio")
    return JobOrder("RM_1", "AD_1", kind, room, participant, name, "meta", deployment, {"a": "b"})


@pytest.fixture
def world():
    return World()


def test_registration_is_answered_with_an_id_and_the_server(world):
    id = world.pool.connect("key", 0.0)
    assert id.startswith("AW_")
    world.say(id, register=agent.RegisterWorkerRequest(type=ROOM))
    (answer,) = world.sent(id)
    assert (answer.register.worker_id, answer.register.server_info.version) == (id, "1")
    assert world.pool.next_timeout() is None


@pytest.mark.parametrize(
    "message",
    [
        agent.WorkerMessage(),
        agent.WorkerMessage(update_worker=agent.UpdateWorkerStatus(load=0.5)),
        agent.WorkerMessage(availability=agent.AvailabilityResponse(job_id="AJ_1", available=True)),
        agent.WorkerMessage(register=agent.RegisterWorkerRequest(deployment="a_b")),
        agent.WorkerMessage(register=agent.RegisterWorkerRequest(deployment="a b")),
        agent.WorkerMessage(register=agent.RegisterWorkerRequest(deployment="x" * 65)),
        agent.WorkerMessage(register=agent.RegisterWorkerRequest(type=17)),
    ],
    ids=["nothing", "load first", "answer first", "underscore", "space", "too long", "type"],
)
def test_who_does_not_register_properly_is_closed(world, message):
    id = world.pool.connect("key", 0.0)
    world.pool.receive(id, message, 0.0)
    (event,) = world.events()
    assert isinstance(event, WorkerClosed)
    assert event.worker_id == id
    assert world.pool.launch(ordered(), 0.0) == 0


def test_who_registers_twice_or_not_at_all_is_closed(world):
    twice = world.worker()
    world.say(twice, register=agent.RegisterWorkerRequest(type=ROOM))
    assert [event.worker_id for event in world.events()] == [twice]
    silent = world.pool.connect("key", world.now)
    world.later(REGISTER_TIMEOUT - 0.01)
    assert world.events() == []
    world.later(0.02)
    (event,) = world.events()
    assert (event.worker_id, event.reason) == (silent, "did not register in time")
    world.later(100)
    assert world.events() == []


def test_a_ping_is_answered_with_both_clocks_even_before_registration(world):
    id = world.pool.connect("key", 0.0)
    world.say(id, ping=agent.WorkerPing(timestamp=77))
    (answer,) = world.sent(id)
    assert (answer.pong.last_timestamp, answer.pong.timestamp) == (77, 1_000_000)


def test_an_accepted_job_is_assigned_with_a_token_of_the_workers_key(world):
    permissions = models.ParticipantPermission(can_subscribe=True, hidden=True)
    id = world.worker("helper", key="other", allowed_permissions=permissions)
    assert world.pool.launch(ordered("helper"), 0.0) == 1
    worker, job = world.asked()
    assert (worker, job.room.name, job.metadata, dict(job.attributes)) == (id, "studio", "meta", {"a": "b"})
    world.answer(id, job, participant_identity="bot", participant_name="Bot", participant_attributes={"x": "y"})
    (message,) = world.sent(id)
    assert message.assignment.job.id == job.id
    assert message.assignment.job.state.participant_identity == "bot"
    claims = jwt.decode(message.assignment.token, KEYS["other"], algorithms=["HS256"], options={"verify_exp": False})
    assert (claims["iss"], claims["sub"], claims["name"], claims["kind"]) == ("other", "bot", "Bot", "agent")
    assert claims["attributes"] == {"x": "y", "lk.agent_name": "helper"}
    assert claims["exp"] == 1000 + 3600
    video = claims["video"]
    assert (video["room"], video["roomJoin"], video["agent"], video["hidden"]) == ("studio", True, True, True)
    assert (video["canSubscribe"], video["canPublish"]) == (True, False)
    (event,) = world.events()
    assert (event.owner, event.job.state.status, event.lost) == ("RM_1", RUNNING, False)


def test_a_worker_whose_key_is_gone_gets_a_token_of_another(world):
    world.worker(key="other")
    world.pool.launch(ordered(), 0.0)
    worker, job = world.asked()
    del world.keys["other"]
    world.answer(worker, job, participant_identity="bot")
    (message,) = world.sent(worker)
    claims = jwt.decode(message.assignment.token, KEYS["key"], algorithms=["HS256"], options={"verify_exp": False})
    assert claims["iss"] == "key"


@pytest.mark.parametrize(
    ("worker", "order", "fits"),
    [
        ({}, {}, True),
        ({"name": "a"}, {"name": "a"}, True),
        ({"name": "a"}, {}, False),
        ({}, {"name": "a"}, False),
        ({"kind": PUBLISHER}, {"kind": PUBLISHER}, True),
        ({"kind": PUBLISHER}, {}, False),
        ({"deployment": "blue"}, {"deployment": "blue"}, True),
        ({"deployment": "blue"}, {}, False),
        ({"namespace": "x"}, {}, True),
    ],
)
def test_name_type_and_deployment_must_fit(world, worker, order, fits):
    world.worker(**worker)
    assert world.pool.launch(ordered(**order), 0.0) == fits
    assert len(world.pool.outbox) == fits


def test_every_namespace_gets_a_job_of_its_own(world):
    ids = {world.worker(namespace=namespace) for namespace in ("", "blue", "green")}
    world.worker(namespace="green")
    assert world.pool.launch(ordered(), 0.0) == 3
    jobs = [message.availability.job for _, message in world.pool.outbox]
    assert [job.namespace for job in jobs] == ["", "blue", "green"]
    assert len({job.id for job in jobs}) == 3
    assert len(ids & {worker for worker, _ in world.pool.outbox}) >= 2


def test_the_choice_is_weighted_by_what_is_left_of_each():
    chosen = Counter()
    world = World()
    loads = {world.worker(load=load): load for load in (0.1, 0.5, 0.9)}
    for _ in range(3000):
        world.pool.launch(ordered(), 0.0)
        worker, job = world.asked()
        chosen[loads[worker]] += 1
        world.say(worker, availability=agent.AvailabilityResponse(job_id=job.id, terminate=True))
    assert chosen[0.1] == pytest.approx(1800, rel=0.1)
    assert chosen[0.5] == pytest.approx(1000, rel=0.1)
    assert chosen[0.9] == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize("status", [{"status": FULL, "load": 0.0}, {"status": AVAILABLE, "load": 1.0}, {"load": 7.0}])
def test_a_full_worker_gets_nothing(world, status):
    id = world.worker()
    world.say(id, update_worker=agent.UpdateWorkerStatus(**status))
    world.pool.launch(ordered(), 0.0)
    assert not world.pool.outbox
    assert world.pool.counters["agents.no_worker"] == 1
    world.say(id, update_worker=agent.UpdateWorkerStatus(status=AVAILABLE, load=0.2))
    world.pool.launch(ordered(), 0.0)
    assert world.asked()[0] == id


@given(st.lists(st.floats(width=32), min_size=1, max_size=4))
def test_no_load_that_a_worker_may_name_breaks_the_choice(loads):
    world = World()
    for load in loads:
        world.worker(load=load)
    world.pool.launch(ordered(), 0.0)


def test_refused_then_silent_then_gone_the_next_one_is_asked(world):
    ids = {world.worker() for _ in range(4)}
    world.pool.launch(ordered(), 0.0)
    first, job = world.asked()
    world.answer(first, job, available=False)
    second, again = world.asked()
    assert again.id == job.id
    assert world.pool.next_timeout() == ASSIGN_TIMEOUT
    world.later(ASSIGN_TIMEOUT)
    third, _ = world.asked()
    world.pool.disconnect(third, world.now)
    fourth, _ = world.asked()
    assert {first, second, third, fourth} == ids
    world.answer(fourth, job, available=False)
    assert not world.pool.outbox
    assert world.pool.next_timeout() is None
    world.answer(second, job)  # Too late.
    assert world.pool.counters["agents.answer_to_nothing"] == 1
    assert world.events() == []


def test_a_worker_that_declines_for_all_ends_the_job(world):
    world.worker()
    world.worker()
    world.pool.launch(ordered(), 0.0)
    worker, job = world.asked()
    world.answer(worker, job, available=False, terminate=True)
    assert not world.pool.outbox
    (event,) = world.events()
    assert event.job.state.status == SUCCESS


def test_what_a_worker_reports_of_its_job_is_told_once_it_has_ended_no_more(world):
    world.worker()
    worker, job = world.run_job()
    world.say(worker, update_job=agent.UpdateJobStatus(job_id=job.id, status=RUNNING))
    world.say(worker, update_job=agent.UpdateJobStatus(job_id=job.id, status=FAILED, error="broken"))
    world.say(worker, update_job=agent.UpdateJobStatus(job_id=job.id, status=SUCCESS))
    running, failed = world.events()
    assert running.job.state.status == RUNNING
    assert (failed.job.state.status, failed.job.state.error, failed.lost) == (FAILED, "broken", False)
    assert failed.job.state.ended_at == 1_000_000_000_000
    assert world.pool.counters["agents.update_of_unknown_job"] == 1


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [
        (JobReason.TERMINATION_REQUESTED, SUCCESS, ""),
        (JobReason.AGENT_LEFT_ROOM, FAILED, "agent worker left the room"),
    ],
)
def test_termination(world, reason, status, error):
    world.worker()
    worker, job = world.run_job()
    ended = world.pool.terminate(job.id, reason)
    assert (ended.state.status, ended.state.error) == (status, error)
    (message,) = world.sent(worker)
    assert message.termination.job_id == job.id
    assert [event.job.state.status for event in world.events()] == [status]
    assert world.pool.terminate(job.id, reason) is None


def test_an_offer_that_is_terminated_is_nobodys_any_more(world):
    world.worker()
    world.pool.launch(ordered(), 0.0)
    worker, job = world.asked()
    world.pool.terminate(job.id, JobReason.TERMINATION_REQUESTED)
    world.answer(worker, job, participant_identity="bot")
    assert not world.pool.outbox
    assert world.events() == []


def test_a_lost_worker_comes_back_and_takes_its_job_a_stranger_does_not(world):
    world.worker("helper")
    worker, job = world.run_job("helper")
    world.pool.disconnect(worker, world.now)
    (lost,) = world.events()
    assert (lost.lost, lost.job.id) == (True, job.id)
    take = agent.MigrateJobRequest(job_ids=[job.id, "AJ_nonsense"])
    world.say(world.worker("else"), migrate_job=take)
    assert world.events() == []
    back = world.worker("helper")
    world.say(back, migrate_job=take)
    (event,) = world.events()
    assert (event.lost, event.job.id, event.job.state.worker_id) == (False, job.id, back)
    assert world.pool.counters["agents.migrate_unknown_job"] == 3
    world.pool.terminate(job.id, JobReason.TERMINATION_REQUESTED)
    (message,) = world.sent(back)
    assert message.termination.job_id == job.id


def test_lost_jobs_are_kept_up_to_a_bound(world):
    for _ in range(MAX_LOST + 5):
        world.worker()
        worker, _ = world.run_job()
        world.pool.disconnect(worker, world.now)
        world.events()
    assert len(world.pool._lost) == MAX_LOST


def test_a_worker_may_ask_for_a_job_itself_and_for_so_many_only(world):
    world.worker()
    id = world.worker()
    world.say(id, simulate_job=agent.SimulateJobRequest(type=ROOM, room=models.Room(name="studio")))
    worker, job = world.asked()
    assert (worker, job.type, job.room.name) == (id, ROOM, "studio")
    world.answer(id, job, participant_identity="bot")
    assert world.sent(id)[0].HasField("assignment")
    assert world.events() == []  # It belongs to no room's dispatch.
    for _ in range(MAX_OFFERS_PER_WORKER + 3):
        world.say(id, simulate_job=agent.SimulateJobRequest(room=models.Room(name="studio")))
    assert len(world.sent(id)) == MAX_OFFERS_PER_WORKER
    assert world.pool.counters["agents.too_many_offers"] == 3


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_whatever_parses_never_raises(datas):
    world = World()
    id = world.worker()
    for data in datas:
        try:
            message = agent.WorkerMessage.FromString(data)
        except DecodeError:
            continue
        world.pool.receive(id, message, 0.0)
    assert all(isinstance(event, JobChanged | WorkerClosed) for event in world.events())
