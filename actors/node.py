"""The node: opens the ports, starts the tree, stops it. The root of everything that runs in this process."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import trio

from actors.addresses import plan_addresses
from actors.agents import AgentsActor
from actors.front.server import FrontActor, FrontSpec
from actors.gst.server import GstServerActor, node_spec
from actors.impairment import Impairment, NetworkConditions
from actors.journal import JournalActor, JournalPort, SetReceivers, open_journal, receivers_of
from actors.kernel import ActorRef, ActorSystem, FaultPlan, Restart
from actors.looptime import SharedLoopTime
from actors.messages.rooms import Drain, RoomsMessage
from actors.net import Ports, not_bound
from actors.rooms import RoomsActor
from actors.services import Services
from actors.tcp import TcpActor
from actors.turn import TurnActor, open_turn
from actors.udp import UdpActor
from actors.webhooks import ReceiverSpec
from lkactor.addressing import AddressPlan, tcp_port
from lkactor.addressing import udp_ports as wanted_ports
from lkactor.config import Config
from lkactor.config_reload import Reload, reload
from lkactor.dtls import Certificate
from lkactor.eventlog import EventLog
from lkactor.ice import host_candidates
from lkactor.metrics import Metrics
from lkactor.plane import choose
from lkactor.redaction import secrets_of
from lkactor.room.sids import new_sid
from lkactor.signal.responses import server_info
from lkactor.verdict import JoinBook

DRAIN_TIMEOUT = 3.0
RELOAD_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Node:
    """A running server."""

    services: Services
    system: ActorSystem
    rooms: ActorRef[RoomsMessage]
    journal: ActorRef[SetReceivers]
    port: int
    """HTTP and WebSocket."""
    udp_port: int
    tcp_port: int | None
    gst_port: int | None = None
    """GStreamer signalling; None: not configured."""
    udp_ports: tuple[int, ...] = ()
    """`udp_port` is the first of them."""

    @property
    def addresses(self) -> AddressPlan:
        """Which addresses clients are told, and why."""
        return self.services.addresses

    async def drain(self) -> None:
        """Everyone is told to leave; returns when they are gone, or after DRAIN_TIMEOUT."""
        rooms = await self.rooms.ask(Drain(), timeout=DRAIN_TIMEOUT)
        with trio.move_on_after(DRAIN_TIMEOUT):
            for room in rooms:
                await room.wait_closed()
        await self.services.journal.settled(DRAIN_TIMEOUT)

    async def reload(self, config: Config) -> Reload:
        """Go on with what of `config` can change while running. Raises ConfigError, and then nothing has changed."""
        services = self.services
        result = reload(services.config, config)
        receivers = _receivers(services, result.config)
        services.config = result.config
        # A log that is just restarting takes the message, or starts with the new ones.
        await self.journal.ask(SetReceivers(receivers), timeout=RELOAD_TIMEOUT)
        return result


@contextlib.asynccontextmanager
async def run_node(
    config: Config,
    *,
    seed: int | None = None,
    faults: FaultPlan | None = None,
    network: NetworkConditions | None = None,
) -> AsyncIterator[Node]:
    """Start everything; leaving the block stops it. Raises OSError when a port is taken, ConfigError.

    `seed` fixes the actors' randomness and the faults, never ICE credentials or keys.
    """
    rng = random.SystemRandom()
    with contextlib.ExitStack() as cleanup:
        doors = await _open(config, rng, cleanup)
        services = _services(config, doors, rng)
        cleanup.enter_context(services.loop.watching())
        if network is not None:
            doors.ports.impairment = Impairment(network, seed or 0)
        turn = open_turn(config, doors.announced, lambda: services.config.keys, doors.ports.counters, rng)
        if turn is not None:
            cleanup.callback(turn.close)

        def on_event(kind: str, path: str, detail: str) -> None:
            services.events.record(trio.current_time(), "", path, f"actor.{kind}", detail)

        # The Python plane receives on a thread that shares the interpreter.
        turns = services.loop if doors.ports.plane.name == "kernel" else SharedLoopTime(services.loop)
        async with ActorSystem(seed=seed, faults=faults, on_event=on_event, turns=turns) as system:
            log, rooms = await _start(system, services, doors)
            if turn is not None:
                await system.spawn(lambda: TurnActor(turn), "turn", restart=Restart.PERMANENT)
            gst = node_spec(services, rooms)
            if gst is not None:
                cleanup.callback(gst.close)
                await system.spawn(lambda: GstServerActor(gst), "gst", restart=Restart.PERMANENT)
            port, udp_ports = doors.listeners[0].getsockname()[1], doors.udp_ports
            gst_port = gst.port if gst is not None else None
            yield Node(services, system, rooms, log, port, udp_ports[0], doors.tcp_port, gst_port, udp_ports)


@dataclass(frozen=True, slots=True)
class _Doors:
    """What the outside reaches this process by, and what must be closed at the end."""

    ports: Ports
    addresses: AddressPlan
    udp_ports: tuple[int, ...]
    tcp_port: int | None
    listeners: list[socket.socket]
    scraped: list[socket.socket]
    events: EventLog
    journal: JournalPort

    @property
    def announced(self) -> list[str]:
        return [entry.ip for entry in self.addresses.announced]


async def _open(config: Config, rng: random.Random, cleanup: contextlib.ExitStack) -> _Doors:
    """Everything that can be taken or forbidden. Raises OSError, ConfigError."""
    ports = Ports(choose(config.forwarding_plane))
    listeners = _listen(config.bind_addresses, config.port)
    cleanup.callback(_close, listeners)
    scraped = _listen(config.bind_addresses, config.prometheus.port) if config.prometheus.port else []
    cleanup.callback(_close, scraped)
    cleanup.callback(ports.close)
    addresses = await plan_addresses(config)
    udp_ports, tcp_port = _open_media(config, addresses, ports)
    events = EventLog(trio.current_time())
    journal = open_journal(
        config, rng=rng, log=lambda event, detail: events.record(trio.current_time(), "", "", event, detail)
    )
    cleanup.callback(journal.close)
    return _Doors(ports, addresses, udp_ports, tcp_port, listeners, scraped, events, journal)


def _services(config: Config, doors: _Doors, rng: random.Random) -> Services:
    node_id = new_sid("ND_", rng)
    services = Services(
        config=config,
        ports=doors.ports,
        certificate=Certificate.generate(),
        addresses=doors.addresses,
        candidates=(
            *(candidate for port in doors.udp_ports for candidate in host_candidates(doors.announced, port, None)),
            *host_candidates(doors.announced, None, doors.tcp_port),
        ),
        server_info=server_info(node_id, config.region),
        events=doors.events,
        journal=doors.journal,
        metrics=Metrics(node_id),
        joins=JoinBook(),
        rng=rng,
    )
    doors.events.secrets = lambda: secrets_of(services.config)
    doors.events.listen(services.joins.observe)
    doors.events.listen(services.metrics.observe)
    return services


async def _start(
    system: ActorSystem, services: Services, doors: _Doors
) -> tuple[ActorRef[SetReceivers], ActorRef[RoomsMessage]]:
    """The tree; (the journal, the rooms)."""
    log = await system.spawn(
        lambda: JournalActor(doors.journal, _receivers(services, services.config)),
        "journal",
        restart=Restart.PERMANENT,
    )
    services.agents = await system.spawn(lambda: AgentsActor(services), "agents", restart=Restart.PERMANENT)
    rooms = await system.spawn(lambda: RoomsActor(services), "rooms", restart=Restart.PERMANENT)
    await system.spawn(lambda: UdpActor(doors.ports), "udp", restart=Restart.PERMANENT)
    await system.spawn(lambda: TcpActor(doors.ports), "tcp", restart=Restart.PERMANENT)
    front = FrontSpec(services, rooms, tuple(doors.listeners), tuple(doors.scraped), system.tree)
    await system.spawn(lambda: FrontActor(front), "front", restart=Restart.PERMANENT)
    return log, rooms


def _close(listeners: Sequence[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _receivers(services: Services, config: Config) -> tuple[ReceiverSpec, ...]:
    """Raises ConfigError for an address that is none."""
    return receivers_of(config, lambda: services.config.keys, services.rng)


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """The HTTP port on every bind address; port 0 picks one for all."""
    listeners: list[socket.socket] = []
    for address in addresses or ("0.0.0.0", "::"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # A machine without IPv6.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            listener.close()
            if address == "::1" or (address == "::" and not addresses):
                continue  # IPv6 switched off: the IPv4 address serves.
            for other in listeners:
                other.close()
            raise not_bound(error, f"TCP port {port} on {address}", "port") from None
        listener.listen(1024)
        listener.setblocking(False)
        listeners.append(listener)
        port = listener.getsockname()[1]
    return listeners


def _open_media(config: Config, addresses: AddressPlan, ports: Ports) -> tuple[tuple[int, ...], int | None]:
    """The UDP ports and the TCP port. Raises OSError that names the port that is taken."""
    span = wanted_ports(config.rtc, os.cpu_count() or 1)
    try:
        udp = ports.open_udp(addresses.udp_binds, span.first, span.last, span.count)
    except OSError as error:
        which = f"{span.first}" if span.first == span.last else f"{span.first}-{span.last}"
        raise not_bound(error, f"UDP port {which}", span.why) from None
    tcp = tcp_port(config.rtc)
    try:
        return udp, None if tcp is None else ports.open_tcp(addresses.tcp_binds, tcp)
    except OSError as error:
        raise not_bound(error, f"TCP port {tcp}", "rtc.tcp_port") from None
