"""Which tracks one participant receives."""

from dataclasses import dataclass

import pytest

from lkactor.room.subscriptions import MAX_REMEMBERED_WISHES, Subscriptions


@dataclass(frozen=True)
class Track:
    sid: str
    publisher_identity: str = "alice"
    allowed: frozenset[str] | None = None
    kind: str = "audio"


def made(auto=True, can=True, exempt=False):
    return Subscriptions(identity="bob", auto_subscribe=auto, can_subscribe=can, exempt=exempt)


def sids(subscriptions):
    return [track.sid for track in subscriptions.wanted()]


def test_beyond_a_limit_tracks_wait_until_one_goes():
    limits = {"audio": 2, "video": 0}
    subscriptions = Subscriptions(identity="bob", auto_subscribe=True, can_subscribe=True, exempt=False, limits=limits)
    subscriptions.publish([Track("a"), Track("b"), Track("v", kind="video"), Track("c"), Track("w", kind="video")])
    assert sids(subscriptions) == ["a", "b", "v", "w"]
    subscriptions.withdraw(["a"])
    assert sids(subscriptions) == ["b", "v", "c", "w"]
    subscriptions.wish(["b"], False)
    assert sids(subscriptions) == ["v", "c", "w"]


@pytest.mark.parametrize("auto", [True, False])
def test_wishes_win_over_the_default_and_may_come_first(auto):
    subscriptions = made(auto)
    subscriptions.wish(["b"], not auto)
    subscriptions.publish([Track("a"), Track("b")])
    assert sids(subscriptions) == (["a"] if auto else ["b"])
    subscriptions.wish(["a", "b"], True)
    assert sids(subscriptions) == ["a", "b"]


def test_what_ends_is_forgotten_with_its_wish():
    subscriptions = made()
    subscriptions.publish([Track("a")])
    subscriptions.wish(["a"], False)
    subscriptions.withdraw(["a", "never"])
    subscriptions.publish([Track("a")])
    assert sids(subscriptions) == ["a"]


@pytest.mark.parametrize(
    ("allowed", "exempt", "there"),
    [(None, False, True), ({"bob"}, False, True), ({"eve"}, False, False), ((), False, False), ((), True, True)],
)
def test_the_publisher_allows(allowed, exempt, there):
    subscriptions = made(exempt=exempt)
    subscriptions.publish([Track("a", allowed=None if allowed is None else frozenset(allowed))])
    assert sids(subscriptions) == (["a"] if there else [])


def test_without_the_permission_nothing_comes_until_it_does():
    subscriptions = made(can=False)
    subscriptions.publish([Track("a")])
    assert sids(subscriptions) == []
    subscriptions.can_subscribe = True
    assert sids(subscriptions) == ["a"]


def test_wishes_are_bounded_the_oldest_go():
    subscriptions = made()
    subscriptions.wish(["first"], False)
    subscriptions.wish((str(n) for n in range(MAX_REMEMBERED_WISHES)), False)
    subscriptions.publish([Track("first"), Track("5")])
    assert sids(subscriptions) == ["first"]
