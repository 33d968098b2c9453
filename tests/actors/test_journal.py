"""The event log as an actor, and its webhook receivers, in virtual time: order, retries, restarts, kills, bounds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from livekit.api import TokenVerifier, WebhookReceiver
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent
from support.actor_leaks import run_actors
from support.receivers import Answer, FakeInternet, FakeReceiver, Post, accept

from actors import journal as journal_module
from actors.filestore import FileStore
from actors.journal import JournalActor, JournalPort, SetReceivers, limits_of, receivers_of
from actors.kernel import ActorSystem, FaultPlan, Restart
from actors.webhooks import ReceiverSpec
from lkactor.config import Config, ConfigError
from lkactor.journal import Gap, Limits, MemoryStore, RoomNews, Store, StoreError

SECRET = "a-secret-for-tests-of-32-bytes-or-more"
KEYS = {"devkey": SECRET}
START = 1_700_000_000.0


def event(number: int, room: str = "demo") -> WebhookEvent:
    info = models.Room(sid=f"RM_{room}", name=room, num_participants=number)
    return WebhookEvent(event="track_unpublished", room=info)


RUNS = itertools.count()


def port_on(store: Store, **options: Any) -> JournalPort:
    return JournalPort(store, unix=lambda: START + trio.current_time(), rng=random.Random(next(RUNS)), **options)


def spec(url: str = "http://back/hook?key=1", **options: Any) -> ReceiverSpec:
    return ReceiverSpec(url=url, api_key="devkey", keys=lambda: KEYS, rng=random.Random(2), **options)


@asynccontextmanager
async def running(port: JournalPort, *specs: ReceiverSpec, faults: FaultPlan | None = None) -> Any:
    async with ActorSystem(seed=1, faults=faults) as system:
        await system.spawn(lambda: JournalActor(port, specs), "journal", restart=Restart.PERMANENT)
        yield system


def virtual(test: Callable[[], Awaitable[None]]) -> None:
    run_actors(test)


def numbers(receiver: FakeReceiver, room: str = "demo") -> list[int]:
    rooms = [post.event["room"] for post in receiver.accepted]
    return [entry.get("numParticipants", 0) for entry in rooms if entry["name"] == room]


# -- the log


def test_publish_stamps_and_readers_follow() -> None:
    async def test() -> None:
        port = port_on(MemoryStore())
        async with running(port):
            reader = port.reader(port.journal.position())
            port.publish([event(1), event(2)])
            records = await reader.next(10)
            assert [record.event.room.num_participants for record in records] == [1, 2]
            assert all(record.event.id.startswith("EV_") and len(record.event.id) == 15 for record in records)
            assert records[0].event.created_at == int(START)
            assert await reader.next(10, wait=False) == ()
            assert reader.at_end

    virtual(test)


def test_a_full_queue_drops_the_newest_counts_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_QUEUED", 5)
    said: list[str] = []

    async def test() -> None:
        port = port_on(MemoryStore(), log=lambda name, detail: said.append(name))
        port.publish(event(n) for n in range(9))
        assert port.counters["journal.overflow"] == 4
        assert said == ["journal.overflow"]
        async with running(port):
            reader = port.reader(port.journal.position(0))
            records = await reader.next(10)
            assert [record.event.room.num_participants for record in records] == [0, 1, 2, 3, 4]

    virtual(test)


class FullDisk(MemoryStore):
    full = False

    def append(self, name: str, data: bytes) -> None:
        if self.full:
            super().append(name, data[:5])
            raise StoreError("no space left on device")
        super().append(name, data)


def test_a_full_disk_stops_no_webhook() -> None:
    async def test() -> None:
        store = FullDisk()
        port = port_on(store)
        async with running(port):
            reader = port.reader(port.journal.position())
            for number, full in enumerate((False, True, True, False)):
                store.full = full
                port.publish([event(number)])
                records = await reader.next(10)
                assert [record.event.room.num_participants for record in records] == [number]
        assert port.counters["journal.write_failed"] == 2
        again = port_on(store)
        async with running(again):
            reader, seen = again.reader(again.journal.position(0)), []
            while records := await reader.next(10, wait=False):
                seen += [record.event.room.num_participants for record in records]
            assert seen == [0, 3]

    virtual(test)


class SlowPort(JournalPort):
    """On a disk that takes `delay` seconds for everything."""

    delay = 0.5

    async def call(self, function: Callable[..., Any], *args: object) -> Any:
        await trio.sleep(self.delay)
        return await super().call(function, *args)


def test_written_waits_for_the_disk_and_not_for_ever() -> None:
    async def test() -> None:
        port = SlowPort(MemoryStore(), unix=trio.current_time, rng=random.Random(1))
        async with running(port):
            await port.written()
            assert trio.current_time() == 0.0, "there was nothing"
            port.publish([event(1)])
            await port.written()
            assert trio.current_time() == 0.5
            assert port.journal.last
            before = port.journal.last
            port.publish([event(2)])
            await trio.sleep(0.1)
            port.publish([event(3)])  # Not in the batch that is being written.
            await port.written()
            assert trio.current_time() == 1.5
            port.delay = 10.0
            port.publish([event(4)])
            await port.written()
            assert trio.current_time() == 2.5
            assert port.journal.last > before
            port.delay = 0.0

    virtual(test)


def test_the_actor_restarts_and_loses_nothing() -> None:
    async def test() -> None:
        port = port_on(MemoryStore())
        async with running(port) as system:
            reader = port.reader(port.journal.position())
            port.publish([event(1)])
            await reader.next(10)
            system.find("/journal").kill()
            port.publish([event(2)])
            await trio.sleep(5)
            port.publish([event(3)])
            await trio.sleep(1)
            records = await reader.next(10)
            assert [record.event.room.num_participants for record in records] == [2, 3]
            assert system.find("/journal").incarnation == 2

    virtual(test)


def test_what_is_queued_at_the_end_is_written(tmp_path: Path) -> None:
    async def test() -> None:
        port = port_on(FileStore(tmp_path))
        async with running(port):
            port.publish([event(1), event(2)])
        port.close()
        again = port_on(FileStore(tmp_path))
        assert again.journal.last > 0
        again.close()

    virtual(test)


def test_a_killed_server_s_open_rooms_are_closed_at_the_next_start(tmp_path: Path) -> None:
    room = models.Room(sid="RM_1", name="demo")
    info = models.ParticipantInfo(sid="PA_1", identity="alice", state=models.ParticipantInfo.State.ACTIVE)

    async def first() -> None:
        port = port_on(FileStore(tmp_path))
        async with running(port):
            news = RoomNews()
            port.publish(news.started(room))
            port.publish(news.changed(info, room))
            await trio.sleep(1)
        port.close()

    async def second() -> None:
        port = port_on(FileStore(tmp_path))
        async with running(port):
            await trio.sleep(1)
            records = await port.reader(port.journal.position(0)).next(10)
            assert [record.event.event for record in records] == [
                "room_started",
                "participant_joined",
                "participant_left",
                "room_finished",
            ]
            assert records[2].event.participant.disconnect_reason == models.DisconnectReason.SERVER_SHUTDOWN
            assert records[3].event.id != records[0].event.id
        port.close()

    async def third() -> None:
        port = port_on(FileStore(tmp_path))
        assert port.journal.ledger.rooms == {}
        assert not port.queued
        port.close()

    for run in (first, second, third):
        virtual(run)


def test_a_room_that_died_without_a_word_is_closed() -> None:
    room = models.Room(sid="RM_1", name="demo")

    async def test() -> None:
        port = port_on(MemoryStore())
        async with running(port):
            news = RoomNews()
            port.publish(news.started(room))
            port.room_gone("RM_1")
            port.room_gone("RM_unknown")
            await trio.sleep(1)
            port.publish(news.started(models.Room(sid="RM_2", name="demo")))
            port.publish(news.finished(models.Room(sid="RM_2", name="demo"), 0))
            port.room_gone("RM_2")
            await trio.sleep(1)
            records = await port.reader(port.journal.position(0)).next(10)
            assert [(r.event.event, r.event.room.sid) for r in records] == [
                ("room_started", "RM_1"),
                ("room_finished", "RM_1"),
                ("room_started", "RM_2"),
                ("room_finished", "RM_2"),
            ]

    virtual(test)


def test_one_server_per_directory(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(StoreError, match="another server"):
        FileStore(tmp_path)
    store.close()
    FileStore(tmp_path).close()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        FileStore(tmp_path / "file")


# -- webhooks


def test_posts_are_what_livekit_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver()
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1), event(2)])
                await trio.sleep(1)
            first, second = back.posts
            assert first.target == "/hook?key=1"
            assert first.headers["content-type"] == "application/webhook+json"
            assert first.headers["host"] == "back"
            token = first.headers["authorization"]
            claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False})
            assert (claims["iss"], claims["exp"] - claims["nbf"]) == ("devkey", 300)
            official = WebhookReceiver(TokenVerifier("devkey", SECRET, leeway=timedelta(days=36500)))
            assert official.receive(first.body.decode(), token).id == first.event["id"]
            assert first.event["id"] != second.event["id"]
            assert back.connections == 1, "the connection is kept"

    virtual(test)


def test_order_per_room_and_rooms_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(post: Post) -> Answer | None:
        await trio.sleep(random.Random(len(post.body)).uniform(0.1, 2))
        return 204, [], b""

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(slow)
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish(event(n, room) for n in range(1, 11) for room in "abcdefghijkl")
                await trio.sleep(120)
            for room in "abcdefghijkl":
                assert numbers(back, room) == list(range(1, 11))
            assert 2 <= back.most_busy <= 8

    virtual(test)


def test_a_receiver_that_was_down_gets_everything_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(refusing=True)
            other = internet.hosts["other"] = FakeReceiver()
            port = port_on(MemoryStore(), limits=Limits(segment_bytes=2000, tail_records=10))
            async with running(port, spec(), spec("http://other/")):
                for number in range(1, 701):
                    port.publish([event(number, "abc"[number % 3])])
                    await trio.sleep(1)
                assert back.posts == []
                assert len(other.accepted) == 700, "one receiver does not hold another"
                down = {status.url: status for status in port.statuses()}
                assert down["http://back/hook"].down
                assert not down["http://other/"].down
                back.refusing = False
                await trio.sleep(120)
            assert len(set(back.ids())) == len(back.ids()) == 700
            for index, room in enumerate("abc"):
                assert numbers(back, room) == [n for n in range(1, 701) if n % 3 == index]

    virtual(test)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_errors_are_retried(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    answers = [status, status, 200]

    async def fail_twice(post: Post) -> Answer | None:
        return answers.pop(0) if answers else 200, [], b""

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(fail_twice)
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1), event(2)])
                await trio.sleep(30)
            assert numbers(back) == [1, 2]
            assert len(back.posts) == 4
            assert {post.event["id"] for post in back.posts[:3]} == {back.posts[0].event["id"]}, "a stable id"
            assert back.posts[1].at - back.posts[0].at >= 0.75

    virtual(test)


def test_retry_after_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(post: Post) -> Answer | None:
        return (503, [("Retry-After", "20")], b"") if trio.current_time() < 15 else (200, [], b"")

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(busy)
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1)])
                await trio.sleep(30)
            assert len(back.posts) == 2

    virtual(test)


def test_redirects_are_not_followed_and_refusals_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def elsewhere(post: Post) -> Answer | None:
        if post.event["room"]["name"] == "bad":
            return 302, [("Location", "http://other/")], b""
        return 200, [], b""

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(elsewhere)
            other = internet.hosts["other"] = FakeReceiver()
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1, "bad"), event(2, "bad"), event(3, "good")])
                await trio.sleep(200)
                (status,) = port.statuses()
                assert status.counters["webhook.given_up"] == 2
                assert status.pending == 0
            assert numbers(back, "good") == [3]
            assert len(back.posts) == 11
            assert other.posts == []

    virtual(test)


def test_silence_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(post: Post) -> Answer | None:
        await trio.sleep(60 if trio.current_time() < 5 else 0)
        return 200, [], b""

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(deaf)
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1)])
                await trio.sleep(9.9)
                (status,) = port.statuses()
                assert not status.down
                await trio.sleep(10)
                assert numbers(back) == [1]

    virtual(test)


def test_a_kept_connection_that_the_receiver_closed_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver()

            async def hang_up_on_the_second(post: Post) -> Answer | None:
                return None if len(back.posts) == 2 else (200, [], b"")

            back.behaviour = hang_up_on_the_second
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1)])
                await trio.sleep(1)
                port.publish([event(2)])
                await trio.sleep(0.1)
                (status,) = port.statuses()
                assert not status.down
            assert numbers(back) == [1, 2]
            assert back.connections == 2

    virtual(test)


def test_a_huge_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def verbose(post: Post) -> Answer | None:
        return 200, [], b"x" * 300_000

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(verbose)
            port = port_on(MemoryStore())
            async with running(port, spec()):
                port.publish([event(1), event(2)])
                await trio.sleep(2)
            assert numbers(back) == [1, 2]
            assert back.connections == 2, "a connection with a rest in it is not used again"

    virtual(test)


def test_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver()
            port = port_on(MemoryStore())
            async with running(port, spec(include=("room_finished",))):
                port.publish([event(1), WebhookEvent(event="room_finished", room=models.Room(name="demo"))])
                await trio.sleep(1)
                await port.settled(5)
                assert trio.current_time() < 2
            assert [post.event["event"] for post in back.posts] == ["room_finished"]

    virtual(test)


def test_a_key_that_was_taken_away_stops_the_posts_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, str] = {}

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver()
            port = port_on(MemoryStore())
            target = ReceiverSpec(url="http://back/", api_key="devkey", keys=lambda: keys, rng=random.Random(1))
            async with running(port, target):
                port.publish([event(1)])
                await trio.sleep(3)
                assert back.posts == []
                keys.update(KEYS)
                await trio.sleep(10)
            assert numbers(back) == [1]

    virtual(test)


# -- over restarts


def test_after_a_restart_a_receiver_gets_the_rest_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    back = FakeReceiver()

    async def meeting(first: int, refusing: bool) -> None:
        async with FakeInternet(monkeypatch) as internet:
            internet.hosts["back"] = back
            back.refusing = refusing
            port = port_on(FileStore(tmp_path))
            async with running(port, spec()):
                port.publish(event(n, "ab"[n % 2]) for n in range(first, first + 20))
                await trio.sleep(5 if refusing else 60)
            port.close()

    for run, refusing in enumerate((False, True, True, False)):
        virtual(lambda run=run, refusing=refusing: meeting(1 + 20 * run, refusing))
    assert len(back.ids()) == len(set(back.ids())) == 80
    assert numbers(back, "a") == list(range(2, 81, 2))
    assert numbers(back, "b") == list(range(1, 81, 2))


def test_a_receiver_actor_that_is_killed_again_and_again_delivers_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(post: Post) -> Answer | None:
        await trio.sleep(0.3)
        return 200, [], b""

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(slow)
            port = port_on(MemoryStore())
            async with running(port, spec()) as system:
                port.publish(event(n) for n in range(1, 31))
                for _ in range(8):
                    await trio.sleep(2.05)
                    ref = system.find("/journal/webhook-0")
                    if ref is not None:
                        ref.kill()
                await trio.sleep(200)
            seen = numbers(back)
            assert sorted(set(seen)) == list(range(1, 31))
            once = list(dict.fromkeys(seen))
            assert once == sorted(once), "what comes twice comes with the same id, and in order"
            assert len(set(back.ids())) == 30
            assert len(seen) <= 30 + 8

    virtual(test)


def test_a_url_that_is_new_gets_what_happens_from_now_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    back = FakeReceiver()

    async def without() -> None:
        port = port_on(FileStore(tmp_path))
        async with running(port):
            port.publish([event(1)])
            await trio.sleep(1)
        port.close()

    async def with_it() -> None:
        async with FakeInternet(monkeypatch) as internet:
            internet.hosts["back"] = back
            port = port_on(FileStore(tmp_path))
            async with running(port, spec()):
                await trio.sleep(1)
                port.publish([event(2)])
                await trio.sleep(1)
            port.close()

    virtual(without)
    virtual(with_it)
    assert numbers(back) == [2]


def test_a_damaged_state_means_twice_not_never(monkeypatch: pytest.MonkeyPatch) -> None:
    store, target = MemoryStore(), spec()

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver()
            for _ in range(2):
                port = port_on(store)
                async with running(port, target):
                    if not back.posts:
                        port.publish([event(1)])
                    await trio.sleep(1)
                store.replace(target.state_name, b"{")
            assert numbers(back) == [1, 1]
            assert len(set(back.ids())) == 1

    virtual(test)


def test_events_that_retention_took_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            back = internet.hosts["back"] = FakeReceiver(refusing=True)
            limits = Limits(segment_bytes=1000, total_bytes=5000, tail_records=5)
            port = port_on(MemoryStore(), limits=limits, log=lambda name, detail: said.append(name))
            async with running(port, spec()):
                for number in range(1, 1001):
                    port.publish([event(number)])
                    await trio.sleep(0.1)
                back.refusing = False
                await trio.sleep(120)
                (status,) = port.statuses()
                assert status.counters["webhook.expired"] == 1
            assert "webhook.expired" in said
            seen = numbers(back)
            assert seen == sorted(set(seen))
            assert seen[-1] == 1000
            assert 500 < len(seen) < 1000

    virtual(test)


def test_a_reader_of_a_log_that_is_not_there_any_more_is_told() -> None:
    async def test() -> None:
        port = port_on(MemoryStore())
        async with running(port):
            port.publish([event(1)])
            reader = port.reader(port.journal.position(17))
            assert isinstance(await reader.next(5), Gap)
            assert len(await reader.next(5)) == 1

    virtual(test)


def test_settled_waits_for_receivers_that_are_up_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(post: Post) -> Answer | None:
        await trio.sleep(0.5)
        return await accept(post)

    async def test() -> None:
        async with FakeInternet(monkeypatch) as internet:
            internet.hosts["back"] = FakeReceiver(slow)
            port = port_on(MemoryStore())
            async with running(port, spec(), spec("http://gone/")):
                port.publish([event(1), event(2)])
                before = trio.current_time()
                await port.settled(30)
                assert 1.0 <= trio.current_time() - before < 1.5
                assert port.queue_length == 2

    virtual(test)


def test_limits_by_configuration() -> None:
    for total in (0, 5000, 1 << 20, 1 << 28, 1 << 40):
        limits = limits_of(total, 3600.0)
        assert 4096 <= limits.segment_bytes <= 1 << 20
        assert (limits.total_bytes, limits.max_age, limits.segment_age) == (total, 3600.0, 450.0)
    assert limits_of(1, 0.0).segment_age == 60.0
    assert limits_of(1, 1e9).segment_age == 86400.0


def test_a_url_that_is_none_is_named_at_the_start() -> None:
    text = f"keys: {{devkey: {SECRET}}}\nwebhook: {{api_key: devkey, urls: ['ftp://back/']}}\n"
    with pytest.raises(ConfigError, match=r"webhook.urls.*http"):
        receivers_of(Config.load(text), lambda: KEYS, random.Random(1))


# -- other URLs while it runs


def test_urls_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        before = (spec("http://old/hook"), spec("http://stays/hook"))
        async with FakeInternet(monkeypatch) as internet, ActorSystem(seed=1) as system:
            old, new, stays = (internet.hosts.setdefault(name, FakeReceiver()) for name in ("old", "new", "stays"))
            port = port_on(MemoryStore())
            ref = await system.spawn(lambda: JournalActor(port, before), "journal", restart=Restart.PERMANENT)

            async def said(number: int) -> None:
                port.publish([event(number)])
                await trio.sleep(1)

            await said(1)
            await ref.ask(SetReceivers((spec("http://stays/hook"), spec("http://new/hook"))), timeout=5)
            await said(2)
            assert (numbers(old), numbers(stays), numbers(new)) == ([1], [1, 2], [2])
            assert stays.connections == 1, "it went on undisturbed"
            await ref.ask(SetReceivers(before), timeout=5)
            await said(3)
            assert numbers(old) == [1, 2, 3], "it goes on where it was"
            assert (numbers(stays), numbers(new)) == ([1, 2, 3], [2])
            await ref.ask(SetReceivers(()), timeout=5)
            assert port.receivers == {}

    virtual(test)
