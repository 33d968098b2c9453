"""`LkServer`: start, stop, look inside. See `lkactor.testing`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from actors.impairment import NetworkConditions
from actors.kernel import ActorInfo, FaultPlan
from actors.node import Node, run_node
from lkactor.auth import issue_token
from lkactor.config import Config
from lkactor.eventlog import LogEntry

API_KEY, API_SECRET = "devkey", "a-secret-for-tests-of-32-bytes-or-more"
START_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0
DEFAULTS: dict[str, object] = {
    "port": 0,
    "bind_addresses": ["127.0.0.1"],
    "keys": {API_KEY: API_SECRET},
    "rtc.udp_port": 0,
    "rtc.tcp_port": 0,
}
T = TypeVar("T")


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
        self._config = Config.load(config, overrides=DEFAULTS, dev=dev)
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
        return f"ws://127.0.0.1:{self.node.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.node.port}"

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
            raise RuntimeError("the server is not running: call start() or use it in a with statement")
        return self._node

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` on the server's loop and return what it returns."""
        assert self._trio is not None
        return trio.from_thread.run_sync(fn, *args, trio_token=self._trio)

    def events(self, room: str | None = None) -> list[LogEntry]:
        """What happened, in all or in one room."""
        return self.call(self.node.services.events.entries, room)

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

    def crash(self, path: str) -> None:
        """Make the actor at `path` fail at its next message, as a bug would."""
        from actors.kernel import FailNext

        self.call(self.node.system.inject, FailNext(path, RuntimeError("crash asked for by a test")))

    def wait_for(self, condition: Callable[[LkServer], bool], timeout: float = 10.0) -> None:
        """Poll `condition(self)`. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError("the condition did not come true")
            time.sleep(0.02)

    def check_no_leaks(self, timeout: float = 5.0) -> None:
        """After all clients have left: no participant, transport or track may remain. Raises LeakError."""

        def left() -> list[str]:
            return [info.path for info in self.actors() if "/PA_" in info.path]

        try:
            self.wait_for(lambda _: not left(), timeout)
        except TimeoutError:
            raise LeakError(f"still running: {', '.join(left())}") from None
