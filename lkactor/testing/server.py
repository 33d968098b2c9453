"""`LkServer`: start, stop, look inside. See `lkactor.testing`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import trio
import yaml
from livekit.protocol import models

from actors.front.connections import GENERAL
from actors.impairment import Firewall, Impairment, NetworkConditions
from actors.kernel import ActorDead, ActorInfo, FaultPlan
from actors.messages.room import CloseRoom
from actors.messages.rooms import FindRoom, ListRooms
from actors.node import Node, run_node
from lkactor.auth import issue_token
from lkactor.config import Config
from lkactor.eventlog import LogEntry

API_KEY, API_SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"
START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0
NOT_RUNNING = "the server is not running: call start() or use it in a with statement"
DEFAULTS: dict[str, object] = {
    "port": 0,
    "bind_addresses": ["127.0.0.1"],
    "keys": {API_KEY: API_SECRET},
    "rtc.udp_port": 0,
    "rtc.tcp_port": 0,
}
LISTENING = (
    "actors.front.connections.Connections._accept",
    "actors.front.connections.Connections._sweep",
    "hypercorn.utils.raise_shutdown",
    "trio._highlevel_serve_listeners._serve_one_listener",
    "trio.serve_listeners",
    "<TrioToken.run_sync_soon",
)
"""There as long as the server; hypercorn, where Prometheus asks, may start its own after the banner."""
SCRAPED = "trio._highlevel_serve_listeners._run_handler"
PLAIN, IDLE = "actors.front.connections.Connections._serve", "hypercorn.trio.tcp_server.TCPServer._idle_timeout"
"""Between two requests a connection waits some seconds for the next: that is no leak."""
T = TypeVar("T")


def _defaults_beside(config: str) -> dict[str, object]:
    """What of DEFAULTS the configuration leaves open. Text that is no mapping is for `Config.load` to refuse."""
    try:
        tree = yaml.safe_load(config)
    except yaml.YAMLError:
        tree = None

    def given(path: str) -> bool:
        node: object = tree
        for key in path.split("."):
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return True

    return {path: value for path, value in DEFAULTS.items() if not given(path)}


class LeakError(AssertionError):
    """Something of a closed room or a stopped server is still there."""


class LkServer:
    """A LiveKit server on loopback. Use as a context manager, or call `start` and `stop`.

    `loss`, `delay`, `jitter`, `reorder` and `duplicate` impair all media datagrams, both ways, by `seed`; `faults` are
    the actor kernel's. `config` is LiveKit YAML on top of the defaults.
    """

    api_key = API_KEY
    api_secret = API_SECRET

    def __init__(
        self,
        config: str = "",
        *,
        seed: int | None = None,
        faults: FaultPlan | None = None,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
        dev: bool = False,
    ) -> None:
        self._config = Config.load(config, overrides=_defaults_beside(config), dev=dev)
        self._seed = seed
        self._faults = faults
        conditions = NetworkConditions(loss, duplicate, reorder, delay, jitter)
        self._network = conditions if conditions != NetworkConditions() else None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._node: Node | None = None
        self._trio: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self) -> LkServer:
        """Returns when clients can connect. Raises what kept the server from starting."""
        self._thread = threading.Thread(target=self._run, name="lkactor", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT):
            raise TimeoutError("the server did not start")
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Everyone is told to leave, then all ends. Raises LeakError if the thread does not end."""
        if self._trio is not None and self._stop is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(self._stop.set)
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)
            if self._thread.is_alive():
                raise LeakError("the server's thread did not end")
        if self._error is not None:
            raise self._error

    def __enter__(self) -> LkServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that started us
            self._error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._trio = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with run_node(self._config, seed=self._seed, faults=self._faults, network=self._network) as node:
            self._node = node
            self._ready.set()
            await self._stop.wait()
            await node.drain()

    # -- for clients ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """ws://127.0.0.1:port"""
        return f"ws://{self._host}:{self.node.port}"

    @property
    def http_url(self) -> str:
        return f"http://{self._host}:{self.node.port}"

    @property
    def _host(self) -> str:
        address = self._config.bind_addresses[0]
        return f"[{address}]" if ":" in address else address

    def token(self, identity: str = "", room: str = "", *, name: str = "", metadata: str = "",
              attributes: dict[str, str] | None = None, ttl: float = 3600.0, **grants: object) -> str:  # fmt: skip
        """An access token. `room` implies the right to join it; grants by name: `hidden=True`, `room_admin=True`."""
        video: dict[str, object] = {"room": room, "room_join": True} if room else {}
        video.update(grants)
        return issue_token(
            self.api_key,
            self.api_secret,
            identity=identity,
            name=name,
            metadata=metadata,
            attributes=attributes,
            video=video,
            ttl=ttl,
            now_unix=time.time(),
        )

    # -- for looking inside -----------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        if self._node is None:
            raise RuntimeError(NOT_RUNNING)
        return self._node

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` on the server's loop and return what it returns. Blocks, in an async test, too."""
        return self._across(lambda token: trio.from_thread.run_sync(fn, *args, trio_token=token))

    def _across(self, work: Callable[[trio.lowlevel.TrioToken], T]) -> T:
        """Trio lets no loop of its own wait for another thread's; a test's may well wait for the server's."""
        if self._trio is None:
            raise RuntimeError(NOT_RUNNING)
        if not trio.lowlevel.in_trio_run():
            return work(self._trio)
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(work, self._trio).result()

    def events(self, room: str | None = None) -> list[LogEntry]:
        """What happened, in all or in one room. Can be read after the end, too."""
        entries = self.node.services.events.entries
        try:
            return self.call(entries, room)
        except trio.RunFinishedError:
            return entries(room)

    def counters(self) -> dict[str, int]:
        """Dropped and refused input by reason, of the sockets and the front."""
        return self.call(lambda: dict(self.node.services.ports.counters))

    def actors(self) -> list[ActorInfo]:
        """The actor tree as it is now."""
        return self.call(self.node.system.tree)

    def kill(self, path: str) -> None:
        """Kill the actor at `path` (see `actors`), as a crash of the machine would: no farewell."""

        def kill() -> None:
            ref = self.node.system.find(path)
            if ref is None:
                raise LookupError(f"no actor at {path}")
            ref.kill()

        self.call(kill)

    def block(self, *, udp: bool = False, tcp: bool = False) -> None:
        """A firewall from now on between the clients and the media ports, or none any more.

        TURN is not affected: datagrams from its relay ports pass. Keep these apart from the ports of clients.
        """

        def block() -> None:
            services = self.node.services
            ports, turn = services.ports, services.config.turn
            if ports.impairment is None:
                ports.impairment = Impairment(NetworkConditions(), 0)
            end = turn.relay_range_end + 1 if turn.enabled else turn.relay_range_start
            ports.impairment.firewall = Firewall(udp, tcp, range(turn.relay_range_start, end))

        self.call(block)

    def crash(self, path: str) -> None:
        """Make the actor at `path` (`*` and `?` match) fail at its next message, as a bug would."""
        from actors.kernel import FailNext

        if not any(fnmatchcase(info.path, path) for info in self.actors()):
            raise LookupError(f"no actor at {path}")
        self.call(self.node.system.inject, FailNext(path, RuntimeError("crash asked for by a test")))

    def wait_for(self, condition: Callable[[LkServer], bool], timeout: float = 10.0) -> None:
        """Poll `condition(self)`. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError("the condition did not come true")
            time.sleep(0.02)

    def tasks(self) -> list[str]:
        """Names of the server's tasks: actors, their helpers, timers; sorted.

        Left out are hypercorn's own: a WebSocket that has ended keeps its connection for one ping interval, 10 s.
        """
        return self.call(_task_names)

    def rooms(self) -> list[str]:
        """Names of the rooms there are."""

        async def names() -> list[str]:
            rooms = await self.node.rooms.ask(ListRooms(()), timeout=STOP_TIMEOUT)
            return [room.info.name for room in rooms]

        return self._across(lambda token: trio.from_thread.run(names, trio_token=token))

    def close_room(self, name: str) -> None:
        """As DeleteRoom, for whoever is still inside; returns when the room has ended. Nothing happens without one."""

        async def close() -> None:
            room = await self.node.rooms.ask(FindRoom(name), timeout=STOP_TIMEOUT)
            if room is not None:
                with contextlib.suppress(ActorDead), trio.fail_after(STOP_TIMEOUT):
                    room.tell(CloseRoom(models.DisconnectReason.ROOM_DELETED))
                    await room.wait_closed()

        self._across(lambda token: trio.from_thread.run(close, trio_token=token))

    def check_no_leaks(self, timeout: float = 5.0, *, tasks: Sequence[str] | None = None) -> None:
        """After all clients have left: no participant, transport or track may remain, nor any task beyond `tasks`.

        Raises LeakError, which names them.
        """

        def left() -> list[str]:
            actors = [info.path for info in self.actors() if "/PA_" in info.path]
            if actors or tasks is None:
                return actors
            return list((Counter(self.tasks()) - Counter(tasks)).elements())

        try:
            self.wait_for(lambda _: not left(), timeout)
        except TimeoutError:
            raise LeakError(f"still running: {', '.join(left())}") from None


def _task_names() -> list[str]:
    """Every task of this loop, from the root down."""
    names, waiting = [], [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            if not task.name.startswith(LISTENING):
                names.append(task.name)
            waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    idle = names.count(IDLE)
    waiting_ones = Counter({PLAIN: names.count(PLAIN), GENERAL: idle, SCRAPED: idle, IDLE: idle})
    return sorted((Counter(names) - waiting_ones).elements())
