"""An ICE agent (RFC 8445), lite or full, for one component on sockets that it shares with all other agents.

Because one socket serves everyone, a pair is named by the remote address alone. What the RFC asks of each side:

| role              | checks                        | who nominates                                             |
|-------------------|-------------------------------|-----------------------------------------------------------|
| lite (controlled) | none of its own               | the peer: any authenticated USE-CANDIDATE selects (8.2)     |
| full, controlled  | ordinary and triggered         | the peer: USE-CANDIDATE on a valid pair, the better priority |
| full, controlling | ordinary and triggered         | we: the best valid pair, with one more check (regular, 8.1.1) |

| state        | leaves it                                                                     |
|--------------|-------------------------------------------------------------------------------|
| NEW          | the first check in either direction: CHECKING                                  |
| CHECKING     | a selected pair: CONNECTED; none within `check_timeout`: FAILED                 |
| CONNECTED    | no authenticated STUN on the path for `disconnected_after`: DISCONNECTED         |
| DISCONNECTED | any: CONNECTED; `failed_after` more, and no restart's checks under way: FAILED   |
| FAILED       | a restart: CHECKING                                                            |

Consent (RFC 7675): the keepalive check of every `keepalive` seconds is the consent check, with LiveKit's timers
(livekit-media 1.2): 2 s, 10 s, 5 s. While the path is alive it is sent once (RFC 7675 section 5.1), for the next one
follows soon, or in `consent` seconds where the peer hears from us anyway; on a path that has fallen silent it is
repeated as any other check.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from lkactor.counters import Counters
from lkactor.errors import ProtocolViolation
from lkactor.ice.candidate import Candidate, priority
from lkactor.wire import stun
from lkactor.wire.address import Address

MAX_REMOTE_CANDIDATES = 64
MAX_DESCRIBED = 8
MAX_PAIRS = 128
ALPHABET = string.ascii_letters + string.digits
_LETTERS = bytes(ord(ALPHABET[n % len(ALPHABET)]) for n in range(256))
UFRAG_SIZE, PWD_SIZE = 16, 32


@dataclass(frozen=True, slots=True)
class IceTiming:
    """Seconds."""

    pace: float = 0.05
    rto: float = 0.2
    retransmissions: int = 7
    keepalive: float = 2.0
    consent: float = 5.0
    """Instead, on a live path that carries media down: the peer hears enough (RFC 7675 section 5.1)."""
    disconnected_after: float = 10.0
    failed_after: float = 5.0
    check_timeout: float = 30.0
    nomination_wait: float = 0.02
    """A better pair may still become valid; LAN checks are done by then."""
    tcp_nomination_wait: float = 0.5
    """Likewise of UDP after TCP, whose check may arrive before the peer has even said where its UDP is. (pion: 1 s)"""


class IceState(Enum):
    NEW = auto()
    CHECKING = auto()
    CONNECTED = auto()
    DISCONNECTED = auto()
    FAILED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class IceStateChanged:
    state: IceState


@dataclass(frozen=True, slots=True)
class PathSelected:
    address: Address


@dataclass(frozen=True, slots=True)
class PathValidated:
    """An authenticated check came from, or was answered by, this address."""

    address: Address


IceEvent = IceStateChanged | PathSelected | PathValidated


class Consent(NamedTuple):
    """What the peer's checks look like while its path works and no other is being looked for. Who knows this may answer
    them, and tell the agent with `path_heard`."""

    address: Address
    user: bytes
    """USERNAME, "ours:theirs"."""
    password: bytes
    controlling: bool
    """We are."""
    nominated: bool
    """USE-CANDIDATE tells nothing new."""


@dataclass(slots=True)
class _Generation:
    """One set of credentials: a restart makes a new one, the old one is honoured until the new path is selected."""

    local_ufrag: str
    local_pwd: str
    remote_ufrag: str | None = None
    remote_pwd: str | None = None


@dataclass(slots=True)
class _Pair:
    """One remote address. `priority` is the remote candidate's."""

    address: Address
    priority: int
    generation: _Generation
    valid: bool = False
    nominated: bool = False
    """The controlling side has chosen it."""
    transaction: bytes = b""
    sent: int = 0
    next_at: float | None = None
    use_candidate: bool = False
    answered_at: float = float("-inf")


class IceAgent:
    """Verbs as in docs/architecture.md; `datagrams_to_send` yields (datagram, address)."""

    def __init__(
        self,
        *,
        rng: random.Random,
        local_candidates: Sequence[Candidate],
        controlling: bool = False,
        lite: bool = False,
        timing: IceTiming | None = None,
    ) -> None:
        self._rng = rng
        self._timing = timing or IceTiming()
        self.check_timeout = self._timing.check_timeout
        """Of the next checks, from the first credentials or a restart on."""
        self.local_candidates = tuple(local_candidates)
        self.lite = lite
        self.controlling = controlling and not lite
        self._tie_breaker = rng.getrandbits(64)
        self._current = self._new_generation()
        self._previous: _Generation | None = None
        self._remote_lite = False
        self._candidates = 0
        self.remote_candidates: list[Candidate] = []
        """Of this generation, as they came."""
        self.uses_udp = True
        """False: the peer's UDP candidates are not for us. It opens TCP; or the caller does, and calls `add_path`."""
        self._pairs: dict[Address, _Pair] = {}
        self.selected: Address | None = None
        self.state = IceState.NEW
        self.counters = Counters()
        self._events: list[IceEvent] = []
        self._out: list[tuple[bytes, Address]] = []
        self._last_heard = 0.0
        self._keepalive_at: float | None = None
        self.used_at = float("-inf")
        """When the caller last knew of packets that went to the selected address."""
        self._check_deadline: float | None = None
        self._next_check = 0.0
        self._nominate_at: float | None = None
        self._early: set[Address] = set()

    # -- set-up -----------------------------------------------------------------------------------------------------

    @property
    def local_ufrag(self) -> str:
        return self._current.local_ufrag

    @property
    def local_pwd(self) -> str:
        return self._current.local_pwd

    @property
    def remote_ufrag(self) -> str | None:
        """Of the latest generation; after a restart of ours the old one until the peer's new one is known."""
        remote = self._current.remote_ufrag
        return remote if remote is not None or self._previous is None else self._previous.remote_ufrag

    @property
    def remote_pwd(self) -> str | None:
        remote = self._current.remote_pwd
        return remote if remote is not None or self._previous is None else self._previous.remote_pwd

    def set_remote_credentials(self, ufrag: str, pwd: str, *, lite: bool, now: float) -> None:
        """The peer's half of the current generation."""
        self._current.remote_ufrag, self._current.remote_pwd = ufrag, pwd
        self._remote_lite = lite
        if lite and not self.lite:
            self.controlling = True
        if self._check_deadline is None:
            self._check_deadline = now + self.check_timeout
        if not self.lite:
            early, self._early = self._early, set()
            for address in early:
                self._check(address, self._prflx_priority(address), now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Checks it, unless we are lite. TCP is the peer's to open (we are passive), so it waits for that."""
        if self._candidates >= MAX_REMOTE_CANDIDATES:
            self.counters.count("ice.too_many_candidates")
            return
        self._candidates += 1
        self.remote_candidates.append(candidate)
        if candidate.transport == "tcp" or candidate.component != 1 or candidate.port == 0:
            return
        if not self.lite and self.uses_udp:
            self._check(Address("udp", candidate.ip, candidate.port), candidate.priority, now)

    def add_path(self, address: Address, candidate_priority: int, now: float) -> None:
        """Check a path that the caller has opened: a connection to a TCP candidate (RFC 6544), or a relay of ours."""
        self._check(address, candidate_priority, now)

    def restart(self, now: float) -> None:
        """New local credentials. The selected path works on until a new one is nominated."""
        if self._current.remote_ufrag is not None or self._previous is None:
            self._previous = self._current
        self._current = self._new_generation()
        self._candidates = 0
        self.remote_candidates = []
        self._nominate_at = None
        self._check_deadline = now + self.check_timeout
        for pair in self._pairs.values():
            pair.nominated = False
            pair.next_at = None
        if self.state is IceState.FAILED:
            self._set_state(IceState.CHECKING)

    def path_is_valid(self, address: Address) -> bool:
        """DTLS may be exchanged with it, before nomination as well."""
        pair = self._pairs.get(address)
        return pair is not None and pair.valid

    @property
    def consent(self) -> Consent | None:
        """None: every check is to be seen here."""
        pair = self._selected_pair
        if pair is None or not self._rests_on(pair):
            return None
        generation = self._current
        user = f"{generation.local_ufrag}:{generation.remote_ufrag}".encode()
        nominated = self.lite or pair.nominated or self.controlling
        return Consent(pair.address, user, generation.local_pwd.encode(), self.controlling, nominated)

    def path_heard(self, at: float) -> None:
        """Checks as in `consent` came until then, and were answered."""
        if self.state is IceState.CONNECTED:
            self._last_heard = max(self._last_heard, at)

    # -- verbs ------------------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> bool:
        """True: the peer is there, as before; there may be an answer to send, and nothing else is new."""
        try:
            message = stun.parse(data)
        except ProtocolViolation as violation:
            self.counters.count(violation.reason)
            return False
        quiet = False
        match message.kind:
            case stun.BINDING_REQUEST:
                quiet = self._on_request(message, addr, now)
            case stun.BINDING_SUCCESS | stun.BINDING_ERROR:
                quiet = self._on_response(message, addr, now)
            case stun.BINDING_INDICATION:
                pass
            case _:
                self.counters.count("stun.method")
        return quiet

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        out, self._out = self._out, []
        return out

    def next_timeout(self) -> float | None:
        deadlines = [pair.next_at for pair in self._pairs.values()]
        deadlines += [self._keepalive_at, self._nominate_at]
        if self.state in (IceState.NEW, IceState.CHECKING):
            deadlines.append(self._check_deadline)
        elif self.state is IceState.CONNECTED:
            deadlines.append(self._last_heard + self._timing.disconnected_after)
        elif self.state is IceState.DISCONNECTED:
            deadlines.append(self._failure_due())
        return min((at for at in deadlines if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        for pair in list(self._pairs.values()):
            if pair.next_at is not None and pair.next_at <= now:
                self._send_check(pair, now)
        if self._nominate_at is not None and self._nominate_at <= now:
            self._nominate(now)
        if self._keepalive_at is not None and self._keepalive_at <= now:
            self._keep_alive(now)
        self._watch_consent(now)

    def next_event(self) -> IceEvent | None:
        return self._events.pop(0) if self._events else None

    def describe_pairs(self) -> str:
        """Every remote address that was tried and what came of it, for people."""
        told = [
            f"{pair.address.transport} {pair.address.ip}:{pair.address.port} {'answered' if pair.valid else 'silent'}"
            for pair in list(self._pairs.values())[:MAX_DESCRIBED]
        ]
        more = len(self._pairs) - len(told)
        if more > 0:
            told.append(f"{more} more")
        return ", ".join(told) or "no candidate of the client arrived"

    # -- the peer's checks ------------------------------------------------------------------------------------------

    def _on_request(self, message: stun.Message, addr: Address, now: float) -> bool:
        """True: as of `receive_datagram`."""
        generation = self._authenticate(message, addr)
        if generation is None:
            return False
        if message.unknown_required:
            values = b"".join(kind.to_bytes(2, "big") for kind in message.unknown_required)
            attributes = [(stun.ERROR_CODE, stun.error_value(420, "Unknown Attribute"))]
            attributes.append((stun.UNKNOWN_ATTRIBUTES, values))
            self._respond(stun.BINDING_ERROR, message, attributes, generation, addr)
            return False
        if not self._settle_roles(message, generation, addr):
            return False
        mapped = stun.xor_address(addr.ip, addr.port, message.transaction)
        self._respond(stun.BINDING_SUCCESS, message, [(stun.XOR_MAPPED_ADDRESS, mapped)], generation, addr)
        pair = self._pair(addr, message.number(stun.PRIORITY) or self._prflx_priority(addr), generation)
        if pair is None:
            return False
        pair.answered_at = now
        nominated = stun.USE_CANDIDATE in message.attributes and not self.controlling
        if self._rests_on(pair) and (self.lite or pair.nominated or not nominated):
            self._last_heard = now
            return True
        if addr == self.selected:
            self._heard(now)
        if self.state is IceState.NEW:
            self._set_state(IceState.CHECKING)
        if self.lite:
            self._validate(pair)
            if nominated:
                self._select(pair, now)
            return False
        pair.nominated = pair.nominated or nominated
        if pair.valid and pair.generation is self._current:
            if nominated:
                self._maybe_select(pair, now)
        elif generation is self._current:
            self._trigger(pair, now)
        return False

    def _rests_on(self, pair: _Pair) -> bool:
        """It is the selected one, alive, and no other is being looked for."""
        return (
            pair.address == self.selected
            and pair.valid
            and self.state is IceState.CONNECTED
            and pair.generation is self._current
            and self._previous is None
            and self._nominate_at is None
        )

    def _authenticate(self, message: stun.Message, addr: Address) -> _Generation | None:
        """By the ufrag that is addressed; the old generation counts until the new one has a path."""
        ufrag = (message.username or "").partition(":")[0]
        for generation in (self._current, self._previous):
            if generation is not None and generation.local_ufrag == ufrag:
                if message.check_integrity(generation.local_pwd):
                    return generation
                break
        self.counters.count("stun.unauthenticated")
        error = [(stun.ERROR_CODE, stun.error_value(401, "Unauthorized"))]
        self._out.append((stun.build(stun.BINDING_ERROR, message.transaction, error, None), addr))
        return None

    def _settle_roles(self, message: stun.Message, generation: _Generation, addr: Address) -> bool:
        """RFC 8445 section 7.3.1.1. False: the peer was told to switch."""
        theirs = message.number(stun.ICE_CONTROLLING)
        if self.controlling and theirs is not None:
            if self._tie_breaker < theirs:
                self.controlling = False
                self._nominate_at = None
                return True
        elif not self.controlling and not self.lite and stun.ICE_CONTROLLED in message.attributes:
            theirs = message.number(stun.ICE_CONTROLLED) or 0
            if self._tie_breaker >= theirs:
                self.controlling = True
                return True
        else:
            return True
        self.counters.count("ice.role_conflict")
        error = [(stun.ERROR_CODE, stun.error_value(487, "Role Conflict"))]
        self._respond(stun.BINDING_ERROR, message, error, generation, addr)
        return False

    def _respond(
        self,
        kind: int,
        request: stun.Message,
        attributes: list[tuple[int, bytes]],
        generation: _Generation,
        to: Address,
    ) -> None:
        self._out.append((stun.build(kind, request.transaction, attributes, generation.local_pwd), to))

    # -- our checks -------------------------------------------------------------------------------------------------

    def _check(self, address: Address, candidate_priority: int, now: float) -> None:
        """Queue an ordinary check, paced."""
        pair = self._pair(address, candidate_priority, self._current)
        if pair is None or (pair.next_at is not None and pair.generation is self._current):
            return
        self._next_check = max(now, self._next_check)
        self._arm(pair, self._next_check)
        self._next_check += self._timing.pace
        if self.state is IceState.NEW:
            self._set_state(IceState.CHECKING)

    def _trigger(self, pair: _Pair, now: float) -> None:
        """A triggered check goes first (RFC 8445 section 7.3.1.4)."""
        if self._current.remote_pwd is None:
            if len(self._early) < MAX_REMOTE_CANDIDATES:
                self._early.add(pair.address)
            return
        if pair.generation is not self._current or pair.next_at is None or pair.sent == 0:
            self._arm(pair, now)
            self._send_check(pair, now)

    def _arm(self, pair: _Pair, at: float) -> None:
        if pair.generation is not self._current:
            pair.valid = False
        pair.generation = self._current
        pair.transaction = self._rng.randbytes(12)
        pair.sent = 0
        pair.next_at = at

    def _send_check(self, pair: _Pair, now: float) -> None:
        generation = pair.generation
        if generation.remote_ufrag is None or generation.remote_pwd is None:
            pair.next_at = None
            self._early.add(pair.address)
            return
        if pair.sent > self._timing.retransmissions:
            pair.next_at = None
            pair.use_candidate = False
            return
        role = stun.ICE_CONTROLLING if self.controlling else stun.ICE_CONTROLLED
        attributes = [
            (stun.USERNAME, f"{generation.remote_ufrag}:{generation.local_ufrag}".encode()),
            (stun.PRIORITY, self._prflx_priority(pair.address).to_bytes(4, "big")),
            (role, self._tie_breaker.to_bytes(8, "big")),
        ]
        if pair.use_candidate:
            attributes.append((stun.USE_CANDIDATE, b""))
        request = stun.build(stun.BINDING_REQUEST, pair.transaction, attributes, generation.remote_pwd)
        self._out.append((request, pair.address))
        pair.next_at = now + self._timing.rto * (1 << min(pair.sent, 3))
        pair.sent += 1

    def _on_response(self, message: stun.Message, addr: Address, now: float) -> bool:
        """True: as of `receive_datagram`."""
        pair = self._pairs.get(addr)
        if pair is None or not pair.transaction or message.transaction != pair.transaction:
            # Not symmetric, late, or never asked for (RFC 8445 section 7.2.5.2.1).
            self.counters.count("stun.unexpected_response")
            return False
        if message.kind == stun.BINDING_ERROR and message.error_code == 487:
            self.controlling = not self.controlling
            self.counters.count("ice.role_conflict")
            self._arm(pair, now)
            self._send_check(pair, now)
            return False
        if not message.check_integrity(pair.generation.remote_pwd or ""):
            self.counters.count("stun.unauthenticated")
            return False
        if message.kind == stun.BINDING_ERROR:
            pair.next_at = None
            self.counters.count("stun.error_response")
            return False
        pair.next_at, pair.transaction = None, b""
        pair.answered_at = now
        if self._rests_on(pair) and pair.nominated and not pair.use_candidate:
            self._last_heard = now
            return True
        if addr == self.selected:
            self._heard(now)
        self._validate(pair)
        if pair.use_candidate:
            pair.use_candidate, pair.nominated = False, True
            self._select(pair, now)
        elif pair.nominated and not self.controlling:
            self._maybe_select(pair, now)
        elif self.controlling and not self.settled:
            self._await_better(pair, now)
        return False

    # -- selection --------------------------------------------------------------------------------------------------

    @property
    def _selected_pair(self) -> _Pair | None:
        return self._pairs.get(self.selected) if self.selected is not None else None

    @property
    def settled(self) -> bool:
        """The current generation has its path."""
        selected = self._selected_pair
        return selected is not None and selected.nominated and selected.generation is self._current

    def _await_better(self, pair: _Pair, now: float) -> None:
        """Before `pair` is nominated."""
        hurried = pair.address.transport == "udp" or not self.uses_udp
        at = now + (self._timing.nomination_wait if hurried else self._timing.tcp_nomination_wait)
        self._nominate_at = at if self._nominate_at is None else min(at, self._nominate_at)

    def _nominate(self, now: float) -> None:
        self._nominate_at = None
        if not self.controlling or self.settled:
            return
        valid = [pair for pair in self._pairs.values() if pair.valid and pair.generation is self._current]
        if valid:
            best = max(valid, key=lambda pair: pair.priority)
            best.use_candidate = True
            self._arm(best, now)
            self._send_check(best, now)

    def _maybe_select(self, pair: _Pair, now: float) -> None:
        """Controlled: the nominated pair, unless a better one of this generation was nominated and is alive."""
        selected = self._selected_pair
        if (
            selected is not None
            and selected is not pair
            and selected.nominated
            and selected.generation is self._current
            and selected.priority > pair.priority
            and now - self._last_heard < self._timing.keepalive * 1.5
        ):
            return
        self._select(pair, now)

    def _select(self, pair: _Pair, now: float) -> None:
        if pair.generation is self._current and self._previous is not None and self._current.remote_ufrag:
            self._previous = None
        self._heard(now)
        self._check_deadline = None
        if self.selected != pair.address:
            self.selected = pair.address
            self._events.append(PathSelected(pair.address))
        if not self.lite and self._keepalive_at is None:
            self._keepalive_at = now + self._timing.keepalive
        self._set_state(IceState.CONNECTED)

    def _validate(self, pair: _Pair) -> None:
        if not pair.valid:
            pair.valid = True
            self._events.append(PathValidated(pair.address))

    def _pair(self, address: Address, candidate_priority: int, generation: _Generation) -> _Pair | None:
        pair = self._pairs.get(address)
        if pair is None:
            if len(self._pairs) >= MAX_PAIRS:
                self.counters.count("ice.too_many_pairs")
                return None
            pair = self._pairs[address] = _Pair(address, candidate_priority, generation)
        elif self.lite and pair.generation is not generation:
            pair.generation = generation
        return pair

    # -- consent ----------------------------------------------------------------------------------------------------

    def _heard(self, now: float) -> None:
        self._last_heard = now
        if self.state is IceState.DISCONNECTED:
            self._set_state(IceState.CONNECTED)

    def _keep_alive(self, now: float) -> None:
        timing = self._timing
        alive = now - self._last_heard < 1.5 * timing.keepalive
        used = now - self.used_at < timing.keepalive
        self._keepalive_at = now + (timing.consent if alive and used else timing.keepalive)
        pair = self._selected_pair
        if pair is not None and pair.next_at is None:
            pair.transaction = self._rng.randbytes(12)
            pair.sent = 0
            self._send_check(pair, now)
            if alive:
                pair.next_at = None

    def _watch_consent(self, now: float) -> None:
        timing = self._timing
        silence = now - self._last_heard
        if self.state is IceState.CONNECTED and silence >= timing.disconnected_after:
            self._set_state(IceState.DISCONNECTED)
        elif self.state is IceState.DISCONNECTED and now >= self._failure_due():
            self._set_state(IceState.FAILED)
            self._keepalive_at = self._check_deadline = None
        elif (
            self.state in (IceState.NEW, IceState.CHECKING)
            and self._check_deadline is not None
            and now >= self._check_deadline
        ):
            self._check_deadline = None
            self._set_state(IceState.FAILED)

    def _failure_due(self) -> float:
        """Of a silent path. A restart has its own time to find another one."""
        due = self._last_heard + self._timing.disconnected_after + self._timing.failed_after
        return due if self._check_deadline is None else max(due, self._check_deadline)

    # -- small things -----------------------------------------------------------------------------------------------

    def _new_generation(self) -> _Generation:
        """Of 96 and 190 bits (RFC 8445 section 5.3 asks for 24 and 128), in one draw: each may cost a system call."""
        drawn = self._rng.randbytes(UFRAG_SIZE + PWD_SIZE).translate(_LETTERS).decode()
        return _Generation(drawn[:UFRAG_SIZE], drawn[UFRAG_SIZE:])

    def _prflx_priority(self, address: Address) -> int:
        return priority("prflx", 65535 if address.transport == "udp" else 8191)

    def _set_state(self, state: IceState) -> None:
        if self.state is not state:
            self.state = state
            self._events.append(IceStateChanged(state))
