"""What every actor of this process shares: configuration, ports, the certificate, the record of events."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from livekit.protocol import models

from actors.journal import JournalPort
from actors.kernel import ActorRef
from actors.looptime import LoopTime
from actors.messages.agents import AgentsMessage
from actors.messages.room import RoomMessage
from actors.net import Ports
from lkactor.addressing import AddressPlan
from lkactor.auth import TokenCache
from lkactor.config import Config
from lkactor.dtls import Certificate
from lkactor.eventlog import EventLog
from lkactor.ice import Candidate, PreferenceMemory
from lkactor.metrics import Metrics
from lkactor.node_load import NodeLoad
from lkactor.verdict import JoinBook


class Draining:
    """Whether this node makes room for its end: no new rooms, and at `until` (seconds, monotonic) everyone leaves."""

    def __init__(self) -> None:
        self.until: float | None = None

    @property
    def on(self) -> bool:
        return self.until is not None


class Directory:
    """The rooms by name. The rooms actor writes it; whoever only wants to know where a room is need not ask."""

    def __init__(self) -> None:
        self.rooms: dict[str, ActorRef[RoomMessage]] = {}

    def room(self, name: str) -> ActorRef[RoomMessage] | None:
        """None: there is none, or it is closing."""
        ref = self.rooms.get(name)
        return ref if ref is not None and ref.alive else None


@dataclass(slots=True)
class Services:
    """Created by the node. Nothing is ever replaced, except for `config` at a reload: ask for it each time."""

    config: Config
    ports: Ports
    certificate: Certificate
    candidates: tuple[Candidate, ...]
    server_info: models.ServerInfo
    events: EventLog
    journal: JournalPort
    """What webhooks and `/events` are fed from: `journal.publish(events)` returns at once."""
    metrics: Metrics
    joins: JoinBook
    """Every attempt to join, explained."""
    rng: random.Random
    """Identifiers and ICE credentials: a system source, or a seeded one in a replayed run."""
    unix: Callable[[], float] = field(default=time.time)
    draining: Draining = field(default_factory=Draining)
    directory: Directory = field(default_factory=Directory)
    addresses: AddressPlan = field(default_factory=lambda: AddressPlan((), (), (), ()))
    """Which addresses `candidates` name, and why."""
    ice_memory: PreferenceMemory = field(default_factory=PreferenceMemory)
    """What kind of path worked for whom."""

    agents: ActorRef[AgentsMessage] | None = None
    """Set once it runs, before any room."""
    tokens: TokenCache = field(default_factory=TokenCache)
    load: NodeLoad = field(default_factory=NodeLoad)
    loop: LoopTime = field(default_factory=LoopTime)

    @property
    def over_limit(self) -> bool:
        """This node carries all that it may: `limit.num_tracks`, `limit.bytes_per_sec`."""
        limit = self.config.limit
        if not (limit.num_tracks or limit.bytes_per_sec):
            return False
        media = self.metrics.media
        return self.load.reached(limit, media.published + media.subscribed)

    def unix_ms(self) -> int:
        return int(self.unix() * 1000)
