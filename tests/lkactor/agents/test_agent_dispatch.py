"""What a room dispatches, and what becomes of a job that fails."""

import random

import pytest
from livekit.protocol import agent, agent_dispatch, models

from lkactor.agents import Dispatches
from lkactor.agents.dispatch import MAX_JOBS, MAX_RESTARTS

ROOM, PUBLISHER = agent.JobType.JT_ROOM, agent.JobType.JT_PUBLISHER
RUNNING, SUCCESS, FAILED = agent.JobStatus.JS_RUNNING, agent.JobStatus.JS_SUCCESS, agent.JobStatus.JS_FAILED
NEVER = agent_dispatch.JobRestartPolicy.JRP_NEVER
ANN = models.ParticipantInfo(sid="PA_1", identity="ann")
HERE = {"ann": ANN}
BOT = {"bot": models.ParticipantInfo(identity="bot")}


@pytest.fixture
def room():
    info = models.Room(sid="RM_1", name="studio")
    return Dispatches(owner="RM_1", room=lambda: info, rng=random.Random(1), unix=lambda: 5.0)


def made(room, **fields):
    return room.create(agent_dispatch.AgentDispatch(**fields))


def job(dispatch, id="AJ_1", *, status=RUNNING, identity="bot", participant=None):
    state = agent.JobState(status=status, participant_identity=identity)
    kind = PUBLISHER if participant else ROOM
    return agent.Job(id=id, dispatch_id=dispatch.id, type=kind, state=state, participant=participant)


def test_a_room_that_names_nobody_gets_any_worker_without_a_name(room):
    room.open([])
    (dispatch,) = room.listed()
    assert (dispatch.agent_name, dispatch.room, dispatch.state.created_at) == ("", "studio", 5_000_000_000)
    (order,) = room.orders(ROOM)
    assert (order.owner, order.dispatch_id, order.agent_name, order.room.name) == ("RM_1", dispatch.id, "", "studio")


def test_a_room_that_names_agents_gets_these_with_what_is_said_of_them(room):
    wanted = agent_dispatch.RoomAgentDispatch(
        agent_name="a", metadata="m", deployment="blue", restart_policy=NEVER, attributes={"k": "v"}
    )
    room.open([wanted, agent_dispatch.RoomAgentDispatch(agent_name="bad", deployment="no_good")])
    (dispatch,) = room.listed()
    assert dispatch.restart_policy == NEVER
    (order,) = room.orders(PUBLISHER, ANN)
    assert (order.agent_name, order.metadata, order.deployment) == ("a", "m", "blue")
    assert (dict(order.attributes), order.participant.identity) == ({"k": "v"}, "ann")


def test_dispatches_are_listed_and_deleted_by_id(room):
    first, second = made(room, agent_name="a"), made(room, agent_name="b")
    assert room.listed() == (first, second)
    assert room.listed(second.id) == (second,)
    assert room.listed("AD_unknown") == ()
    assert [order.agent_name for order in room.orders(ROOM, only=second.id)] == ["b"]
    assert room.delete(first.id) is first
    assert room.delete(first.id) is None
    assert room.changed(job(first), False, HERE) is None


def test_jobs_are_shown_as_they_change(room):
    dispatch = made(room)
    room.changed(job(dispatch), False, HERE)
    room.changed(job(dispatch, "AJ_2"), False, HERE)
    room.changed(job(dispatch, status=SUCCESS), False, HERE)
    assert [(known.id, known.state.status) for known in dispatch.state.jobs] == [("AJ_1", SUCCESS), ("AJ_2", RUNNING)]
    assert [known.id for known in room.running(dispatch)] == ["AJ_2"]
    assert room.job_of("bot") == "AJ_1"
    assert room.job_of("ann") == ""


def test_a_job_that_failed_is_launched_again_later_and_later_and_not_forever(room):
    dispatch = made(room, agent_name="a")
    launches = [room.changed(job(dispatch, f"AJ_{n}", status=FAILED), False, HERE) for n in range(MAX_RESTARTS + 2)]
    assert [launch and launch.delay for launch in launches] == [1.0, 2.0, 4.0, None, None]
    assert launches[0].order.dispatch_id == dispatch.id


@pytest.mark.parametrize("status", [RUNNING, SUCCESS])
def test_what_did_not_fail_is_not_launched_again(room, status):
    assert room.changed(job(made(room), status=status), False, HERE) is None


def test_never_means_never(room):
    dispatch = made(room, restart_policy=NEVER)
    assert room.changed(job(dispatch, status=FAILED), False, HERE) is None


def test_what_we_ended_ourselves_is_not_launched_again(room):
    dispatch = made(room)
    room.changed(job(dispatch), False, HERE)
    room.finish("AJ_1")
    assert room.changed(job(dispatch, status=FAILED), False, HERE) is None


def test_a_publishers_job_is_launched_again_only_while_the_publisher_is_here(room):
    dispatch = made(room)
    assert room.changed(job(dispatch, status=FAILED, participant=ANN), False, {}) is None
    launch = room.changed(job(dispatch, status=FAILED, participant=ANN), False, HERE)
    assert (launch.order.type, launch.order.participant.identity) == (PUBLISHER, "ann")


def test_a_lost_worker_whose_agent_goes_on_alone_is_no_failure_until_that_leaves(room):
    dispatch = made(room)
    room.changed(job(dispatch), False, BOT)
    assert room.changed(job(dispatch), True, BOT) is None
    assert room.lost_for_good("AJ_1", BOT) is None
    ended, launch = room.agent_left("bot", {})
    assert (ended, launch.delay) == ("", 1.0)
    assert dispatch.state.jobs[0].state.status == FAILED
    assert room.agent_left("bot", {}) == ("", None)


def test_a_lost_worker_whose_agent_is_not_here_has_failed_after_a_while(room):
    dispatch = made(room)
    room.changed(job(dispatch), True, HERE)
    launch = room.lost_for_good("AJ_1", HERE)
    assert launch.order.dispatch_id == dispatch.id
    assert room.lost_for_good("AJ_1", HERE) is None


def test_a_worker_that_came_back_in_time_has_lost_nothing(room):
    dispatch = made(room)
    room.changed(job(dispatch), True, HERE)
    room.changed(job(dispatch), False, HERE)
    assert room.lost_for_good("AJ_1", HERE) is None
    assert room.running(dispatch)


def test_an_agent_that_leaves_ends_its_job(room):
    dispatch = made(room)
    room.changed(job(dispatch), False, HERE)
    assert room.agent_left("bot", HERE) == ("AJ_1", None)
    assert room.agent_left("ann", {}) == ("", None)


def test_jobs_are_kept_up_to_a_bound_and_what_runs_stays(room):
    dispatch = made(room)
    room.changed(job(dispatch, "AJ_first"), False, HERE)
    for n in range(MAX_JOBS + 5):
        room.changed(job(dispatch, f"AJ_{n}", status=SUCCESS), False, HERE)
    assert len(dispatch.state.jobs) == MAX_JOBS
    assert dispatch.state.jobs[0].id == "AJ_first"
