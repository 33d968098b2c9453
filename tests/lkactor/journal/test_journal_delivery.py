"""Delivery to one receiver: order per resource, retries, what is remembered over a restart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from lkactor.journal import Delivery, Outcome, ReceiverState, Record
from lkactor.journal.delivery import Policy
from lkactor.journal.webhook import outcome_of


def record(cursor: int, room: str = "r", name: str = "room_started") -> Record:
    return Record(cursor, WebhookEvent(event=name, id=f"EV_{cursor}", room=models.Room(name=room)))


def delivery(state: ReceiverState | None = None, policy: Policy | None = None) -> Delivery:
    return Delivery(state or ReceiverState(0), rng=random.Random(1), policy=policy)


def cursors(records: object) -> list[int]:
    return [entry.cursor for entry in records]  # type: ignore[attr-defined]


def test_one_post_at_a_time_per_room_and_rooms_side_by_side() -> None:
    plan = delivery()
    plan.offer([record(1, "a"), record(2, "a"), record(3, "b"), record(4, "a")])
    posts = plan.next_posts(0.0)
    assert cursors(posts) == [1, 3]
    assert plan.next_posts(0.0) == []
    plan.settle(posts[0], Outcome.ACCEPTED, 0.1)
    assert cursors(plan.next_posts(0.1)) == [2]
    assert plan.state == ReceiverState(4, (2, 3, 4))
    assert not plan.idle


def test_concurrency_is_bounded() -> None:
    plan = delivery(policy=Policy(concurrency=2))
    plan.offer([record(n, f"room{n}") for n in range(1, 6)])
    assert not plan.resting(0.0)
    posts = list(plan.next_posts(0.0))
    assert len(posts) == 2
    assert plan.next_timeout() is None
    assert not plan.resting(0.0)
    plan.settle(posts[0], Outcome.ACCEPTED, 0.0)
    assert len(plan.next_posts(0.0)) == 1


def test_a_receiver_that_is_down_is_probed_by_one_post_with_growing_waits() -> None:
    plan = delivery()
    plan.offer([record(n, f"room{n}") for n in range(1, 6)])
    posts = plan.next_posts(0.0)
    assert len(posts) == 5
    for post in posts:
        plan.settle(post, Outcome.UNREACHABLE, 0.5)
    waits, now = [], 0.5
    for _ in range(9):
        assert plan.next_posts(now) == ()
        deadline = plan.next_timeout()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
        probe = plan.next_posts(now)
        assert len(probe) == 1
        assert plan.next_timeout() is None
        plan.settle(probe[0], Outcome.UNREACHABLE, now)
    for number, wait in enumerate(waits):
        assert 0.75 * min(60, 2**number) <= wait <= 1.25 * min(60, 2**number)
    now = plan.next_timeout() or 0.0
    (probe_post,) = plan.next_posts(now)
    plan.settle(probe_post, Outcome.ACCEPTED, now)
    assert len(plan.next_posts(now)) == 4
    assert plan.state.pending == tuple(sorted({1, 2, 3, 4, 5} - {probe_post.cursor}))


def test_a_room_that_fails_does_not_hold_the_others_and_is_given_up_at_last() -> None:
    plan = delivery(policy=Policy(give_up=4))
    plan.offer([record(1, "bad"), record(2, "bad"), record(3, "good")])
    now, tries, sent = 0.0, 0, []
    for number in range(200):
        for post in plan.next_posts(now):
            if post.cursor == 1:
                tries += 1
                plan.settle(post, Outcome.FAILED, now)
            else:
                sent.append(post.cursor)
                plan.settle(post, Outcome.ACCEPTED, now)
        if plan.idle:
            break
        plan.offer([record(10 + number, "good")])
        now += 1.0
    assert tries == 4
    assert sent.index(3) < sent.index(2)
    assert plan.counters["webhook.given_up"] == 1


def test_while_nothing_gets_through_nothing_is_given_up() -> None:
    plan = delivery(policy=Policy(give_up=4))
    plan.offer([record(1)])
    now = 0.0
    for _ in range(50):
        (post,) = plan.next_posts(now)
        plan.settle(post, Outcome.FAILED, now)
        now = plan.next_timeout() or 0.0
    assert plan.state.pending == (1,)


def test_a_refusal_is_tried_five_times() -> None:
    plan = delivery()
    plan.offer([record(1), record(2)])
    now = 0.0
    for _ in range(5):
        (post,) = plan.next_posts(now)
        assert post.cursor == 1
        plan.settle(post, Outcome.REFUSED, now)
        assert plan.resting(now) == (plan.counters["webhook.refused"] < 5)
        now = plan.next_timeout() or 0.0
    assert cursors(plan.next_posts(now)) == [2]
    assert plan.counters["webhook.given_up"] == 1


def test_retry_after_makes_the_wait_longer_but_not_endless() -> None:
    for asked, low, high in ((30.0, 30.0, 30.0), (1e9, 60.0, 60.0), (0.1, 0.75, 1.25), (-5.0, 0.75, 1.25)):
        plan = delivery()
        plan.offer([record(1)])
        plan.settle(plan.next_posts(0.0)[0], Outcome.UNREACHABLE, 0.0, asked)
        assert low <= (plan.next_timeout() or 0.0) <= high


def test_filtered_events_are_settled_at_once() -> None:
    plan = Delivery(ReceiverState(0), rng=random.Random(1), allowed=lambda name: name == "room_finished")
    plan.offer([record(1), record(2, name="room_finished"), record(3)])
    assert plan.state == ReceiverState(3, (2,))


def test_after_a_restart_only_what_was_pending_is_posted_again() -> None:
    plan = delivery(ReceiverState(10, (3, 7)))
    assert ReceiverState(10, (3, 7)).start == 2
    plan.offer([record(n, f"room{n}") for n in range(3, 13)])
    assert sorted(cursors(plan.next_posts(0.0))) == [3, 7, 11, 12]
    assert plan.state == ReceiverState(12, (3, 7, 11, 12))


def test_what_was_removed_from_the_log_is_counted_and_not_waited_for() -> None:
    plan = delivery(ReceiverState(10, (3, 7)))
    plan.skipped(7)
    assert plan.state == ReceiverState(10, (7,))
    assert plan.counters["webhook.expired"] == 1
    plan.skipped(20)
    assert plan.state == ReceiverState(19)


def test_the_window_bounds_what_is_held() -> None:
    plan = delivery(policy=Policy(window=3))
    assert plan.space == 3
    plan.offer([record(1), record(2), record(3)])
    assert plan.space == 0
    plan.settle(plan.next_posts(0.0)[0], Outcome.ACCEPTED, 0.0)
    assert plan.space == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"\xff", b"[" * 9999,
        b'{"read": "1", "pending": []}', b'{"read": 1, "pending": [null]}', b'{"read": true, "pending": []}',
        b'{"read": 1, "pending": 2}', b'{"read": -1, "pending": []}',
    ],
)  # fmt: skip
def test_a_damaged_state_is_no_state(data: bytes) -> None:
    assert ReceiverState.decode(data) is None


@given(st.integers(0, 2**63), st.lists(st.integers(1, 2**63), max_size=20))
def test_a_state_survives(read: int, pending: list[int]) -> None:
    state = ReceiverState(read, tuple(pending))
    assert ReceiverState.decode(state.encode("host/path")) == state


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED), (204, Outcome.ACCEPTED), (301, Outcome.REFUSED), (308, Outcome.REFUSED),
        (400, Outcome.REFUSED), (401, Outcome.REFUSED), (404, Outcome.REFUSED), (408, Outcome.UNREACHABLE),
        (429, Outcome.UNREACHABLE), (500, Outcome.FAILED), (501, Outcome.REFUSED), (503, Outcome.UNREACHABLE),
        (520, Outcome.FAILED),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, outcome: Outcome) -> None:
    assert outcome_of(status) is outcome


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_history_delivers_everything_in_order_per_room_once_unless_killed_in_mid_post(data: st.DataObject) -> None:
    """A receiver that fails at will, and a process killed at will: order holds, nothing is missing."""
    rooms = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=25))
    log = [record(cursor, room) for cursor, room in enumerate(rooms, 1)]
    policy = Policy(concurrency=2, window=6, refusals=10**9, give_up=10**9)
    plan, next_index, now = delivery(policy=policy), 0, 0.0
    arrived: list[Record] = []
    kept = plan.state
    steps = data.draw(st.lists(st.sampled_from(["ok", "ok", "down", "fail", "refuse", "kill"]), max_size=60))
    for step in [*steps, *["ok"] * 200]:
        offered = log[next_index : next_index + plan.space]
        plan.offer(offered)
        next_index += len(offered)
        posts = list(plan.next_posts(now))
        if step == "kill":
            plan = delivery(kept, policy)
            next_index = kept.start
            continue
        for post in posts:
            if step == "ok":
                arrived.append(post)
            outcome = {"ok": Outcome.ACCEPTED, "down": Outcome.UNREACHABLE, "fail": Outcome.FAILED}
            plan.settle(post, outcome.get(step, Outcome.REFUSED), now)
        kept = plan.state
        assert len(kept.pending) <= policy.window
        now = max(now, plan.next_timeout() or now)
    for room in "abc":
        in_order = [r.cursor for r in arrived if r.key == room]
        assert in_order == sorted(set(in_order))
    assert sorted(r.cursor for r in arrived) == [r.cursor for r in log]
    assert plan.idle
