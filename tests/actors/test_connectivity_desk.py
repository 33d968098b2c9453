"""How a participant's client is steered: what its transports and its signalling do, and what it is told then."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from livekit.protocol import models, rtc

from actors.connectivity import RESUME_WINDOW, ConnectivityDesk
from actors.messages.participant import PathMoved, Role, TransportStateChanged
from actors.messages.transport import UseCandidates
from lkactor.config import Config
from lkactor.ice import PathKind, PreferenceMemory, host_candidates
from lkactor.peer import PeerState
from lkactor.signal.join import JoinParameters

KEYS = "keys: {devkey: a-secret-for-tests-of-32-bytes-or-more}\n"
TLS = "turn: {enabled: true, domain: turn.test, tls_port: 5349, cert_file: a, key_file: b}\n"
REASON = models.ReconnectReason
ENABLED = models.ClientConfigSetting.ENABLED


@dataclass
class FakeParticipant:
    """What of a participant actor the desk uses."""

    services: Any
    identity: str = "ann"
    sid: str = "PA_ann"
    has_signal: bool = True
    left: bool = False
    log_lines: list[str] = field(default_factory=list)
    told: list[UseCandidates] = field(default_factory=list)

    def log(self, event: str, detail: str = "") -> None:
        self.log_lines.append(detail)

    def tell_transports(self, message: UseCandidates) -> None:
        self.told.append(message)


class World:
    def __init__(self, text: str = KEYS + TLS, *, sdk: Any = models.ClientInfo.SDK.JS, version: str = "") -> None:
        self.services = SimpleNamespace(
            config=Config.load(text),
            ice_memory=PreferenceMemory(),
            candidates=tuple(host_candidates(["192.0.2.1"], 7882, 7881)),
            unix=lambda: 1e9,
        )
        self.parameters = JoinParameters(client=models.ClientInfo(sdk=sdk, version=version))
        self.join()

    def join(self) -> None:
        self.participant = FakeParticipant(self.services)
        self.desk = ConnectivityDesk(self.participant, "r", self.parameters, "devkey")  # type: ignore[arg-type]

    def change(
        self, state: PeerState, *, role: Role = "publisher", path: PathKind = PathKind.UDP, up: float | None = 0.0
    ) -> bool:
        """`up`: seconds for which the connection was there, None: never."""
        since = None if up is None else trio.current_time() - up
        return self.desk.transport_changed(TransportStateChanged(role, state, "", path, since))

    def fail(self, **details: Any) -> bool:
        return self.change(PeerState.FAILED, **details)

    @property
    def moves(self) -> list[str]:
        return self.participant.log_lines

    def tcp_only(self) -> bool:
        """What the transports were told last."""
        return self.participant.told[-1].tcp_only

    def forced(self) -> bool:
        configuration = self.desk.configuration()
        return configuration is not None and configuration.force_relay == ENABLED


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """On a clock that jumps over every wait."""

    def run() -> None:
        trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@virtual
async def test_from_udp_to_tcp_to_tls() -> None:
    world = World()
    assert world.desk.candidates() == UseCandidates(False, None)
    assert world.fail(up=30.0)
    assert world.moves == ["tcp: udp failed"] and world.tcp_only()
    assert world.desk.fallen_back and not world.forced()
    world.desk.resumed(0)
    world.change(PeerState.CONNECTED, path=PathKind.TCP)
    await trio.sleep(RESUME_WINDOW + 1)
    assert world.fail(path=PathKind.TCP, up=6.0)
    assert world.moves[-1] == "tls: tcp failed" and not world.tcp_only()
    assert world.forced()
    assert all(url.startswith("turns:") for server in world.desk.ice_servers() for url in server.urls)


@virtual
async def test_remembered_for_the_next_session_and_for_five_minutes() -> None:
    world = World()
    world.fail(up=10.0)
    world.join()
    assert world.desk.fallen_back and world.desk.candidates().tcp_only
    await trio.sleep(301)
    world.join()
    assert not world.desk.fallen_back


@virtual
async def test_switched_off() -> None:
    world = World(KEYS + "rtc: {allow_tcp_fallback: false}")
    assert world.fail(up=10.0)
    assert world.moves == []


@virtual
async def test_tcp_that_never_connects_is_a_failure_at_once() -> None:
    world = World()
    world.fail(up=10.0)
    world.desk.resumed(0)
    world.change(PeerState.CONNECTING, up=None)
    await trio.sleep(12)
    world.desk.heard(rtc.SignalRequest(ping=1))
    assert world.fail(up=None)
    assert world.moves[-1] == "tls: udp failed"


@virtual
async def test_second_connection_of_the_same_outage() -> None:
    """It fails before the resume, or after it but before its ICE restart: no new failure, and no news to the client."""
    world = World()
    for role in ("publisher", "subscriber"):
        world.change(PeerState.CONNECTED, role=role)
        world.change(PeerState.DISCONNECTED, role=role)
    assert world.fail(role="subscriber", up=20.0)
    world.desk.resumed(0)
    assert not world.fail(role="publisher", up=20.0)
    assert world.moves == ["tcp: udp failed"]


@virtual
async def test_long_connections_have_two_tries() -> None:
    world = World()
    world.change(PeerState.CONNECTED)
    await trio.sleep(100)
    world.desk.heard(rtc.SignalRequest(ping=1))
    assert world.fail(up=100.0)
    assert world.moves == []
    assert world.fail(role="subscriber", up=100.0)
    assert world.moves == ["tcp: udp failed"]


@pytest.mark.parametrize("how", ["silent", "closed"])
def test_dead_signalling_means_a_dead_network(how: str) -> None:
    @virtual
    async def test() -> None:
        world = World()
        if how == "silent":
            await trio.sleep(16)
        world.participant.has_signal = how != "closed"
        assert world.fail(up=20.0)
        assert world.moves == []

    test()


@pytest.mark.parametrize(
    ("reason", "moves"),
    [
        (REASON.RR_PUBLISHER_FAILED, ["tcp: udp failed"]),
        (REASON.RR_SUBSCRIBER_FAILED, []),
        (REASON.RR_SIGNAL_DISCONNECTED, []),
        (REASON.RR_UNKNOWN, []),
        (77, []),
    ],
)
def test_client_that_noticed_first(reason: int, moves: list[str]) -> None:
    @virtual
    async def test() -> None:
        world = World()
        world.change(PeerState.CONNECTED)
        await trio.sleep(8)
        world.desk.resumed(reason)
        assert world.moves == moves
        world.desk.resumed(reason)
        assert world.moves == moves, "the same failure, told twice"

    test()


@virtual
async def test_client_and_server_notice_one_failure() -> None:
    world = World()
    world.change(PeerState.CONNECTED)
    world.fail(up=15.0)
    world.desk.resumed(REASON.RR_PUBLISHER_FAILED)
    assert world.moves == ["tcp: udp failed"]


@pytest.mark.parametrize(
    ("other", "move"),
    [(PeerState.DISCONNECTED, "tls: tcp failed"), (PeerState.CONNECTED, "tcp: udp failed")],
)
def test_worst_path_of_the_connections_that_are_ill_counts(other: PeerState, move: str) -> None:
    @virtual
    async def test() -> None:
        world = World()
        world.change(PeerState.CONNECTED, role="subscriber", path=PathKind.TCP)
        world.change(other, role="subscriber", path=PathKind.TCP)
        world.fail(role="publisher", path=PathKind.UDP, up=10.0)
        assert world.moves == [move]

    test()


@virtual
async def test_path_that_moved_counts_as_what_it_is_now() -> None:
    world = World()
    world.desk.path_moved(PathMoved("publisher", PathKind.TCP, ""))
    world.change(PeerState.CONNECTED)
    world.desk.path_moved(PathMoved("publisher", PathKind.TCP, ""))
    await trio.sleep(8)
    world.desk.resumed(REASON.RR_PUBLISHER_FAILED)
    assert world.moves == ["tls: tcp failed"]


@pytest.mark.parametrize(
    ("sdk", "version", "moves"),
    [
        (models.ClientInfo.SDK.JS, "2.15.0", "tcp"),
        (models.ClientInfo.SDK.GO, "2.4.0", "tls"),
        (models.ClientInfo.SDK.SWIFT, "1.0.4", "tls"),
        (models.ClientInfo.SDK.SWIFT, "1.0.5", "tcp"),
        (models.ClientInfo.SDK.SWIFT, "2.0", "tcp"),
        (models.ClientInfo.SDK.SWIFT, "", "tls"),
    ],
)
def test_who_speaks_ice_tcp(sdk: Any, version: str, moves: str) -> None:
    @virtual
    async def test() -> None:
        world = World(sdk=sdk, version=version)
        world.fail(up=10.0)
        assert world.moves == [f"{moves}: udp failed"]

    test()


@pytest.mark.parametrize(("rtt", "moves"), [(99, "tcp"), (100, "tls")])
def test_signal_path_too_slow_for_tcp(rtt: int, moves: str) -> None:
    @virtual
    async def test() -> None:
        world = World(KEYS + TLS + "rtc: {tcp_fallback_rtt_threshold: 100}")
        world.desk.heard(rtc.SignalRequest(ping_req=rtc.Ping(rtt=rtt)))
        world.fail(up=10.0)
        assert world.moves == [f"{moves}: udp failed"]

    test()


@virtual
async def test_time_for_tcp_follows_the_signal_path() -> None:
    world = World()
    world.desk.switch(rtc.CandidateProtocol.TCP)
    assert world.desk.candidates() == UseCandidates(True, 12.0)
    for rtt, timeout in ((800, 6.4), (2**40, None), (-5, 5.0)):
        world.desk.heard(rtc.SignalRequest(ping_req=rtc.Ping(rtt=rtt)))
        assert world.desk.candidates() == UseCandidates(True, timeout)


@virtual
async def test_scenario_sets_and_takes_back() -> None:
    world = World()
    for protocol, name in ((2, "tls"), (1, "tcp"), (0, "any")):
        world.desk.switch(protocol)
        assert world.moves[-1] == f"{name}: asked for"
        assert (world.forced(), world.desk.candidates().tcp_only) == (name == "tls", name == "tcp")
    assert len(world.services.ice_memory) == 0


@virtual
async def test_who_has_no_signalling_is_left_alone() -> None:
    world = World()
    world.parameters = JoinParameters(client=models.ClientInfo(), server_offers="first")
    world.join()
    world.fail(up=10.0)
    assert world.moves == []
