"""The thread that receives for the Python plane.

A loop that does a hundred things is slow to come round to a socket: at 200 packets a second its turn costs more than
the packet. So a thread of its own waits for the sockets. RTP of known peers goes through the plane there and then
(`lkactor.plane.intake`), under the plane's lock; whatever else comes waits for the UDP actor.
"""

from __future__ import annotations

import math
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lkactor.plane import DTLS_DATA, OPENED, RECORDS, RTCP, HandedUp, InlineIngress, InlineSocket, Intake
from lkactor.plane.consent import is_answer
from lkactor.srtp import PacketBuffer
from lkactor.wire.rtcp import Urgency, supersedes, urgency
from lkactor.wire.rtp import RTP_HEADER_SIZE, is_rtp
from lkactor.wire.stun import is_stun

TURN = 0.002
"""Seconds under the lock, about."""
FEWEST, MOST = 4, 64
"""Datagrams of a turn."""
AT_ONCE = 50e-6
"""Seconds for which nobody has waited who comes back from `poll` within them."""
MOST_WAITING = 2048
"""Datagrams for the UDP actor; more are dropped and counted."""
REPORTS_WAIT, HELD_FOR, MOST_HELD = 0.1, 1.0, 8
"""Seconds for which reports wait for others: who watches says several times a second how that goes, and to wake the
loop for each costs more than to read it. Seconds for which those that say nothing new wait for more of their peer, and
how many do."""
LOSSES_WAIT = 0.01
"""Likewise for what is missing: it is due to be asked for after 20 ms (`lkactor.sfu.nack`)."""
SWITCH_INTERVAL = 0.0005
"""Seconds for which one thread may keep the interpreter while another one waits for it."""
MAX_DATAGRAM = 2048


class Route(Protocol):
    """What is known of an address."""

    @property
    def ingress(self) -> InlineIngress | None: ...


class Source(NamedTuple):
    """A socket that is read."""

    sock: socket.socket
    cell: InlineSocket
    routes: Mapping[Any, Route]
    """By address; changed by others."""


class PlaneLock:
    """May be entered again by who is inside. `waiting`: how many are about to be: the thread gives way to them."""

    __slots__ = ("thread", "waiting")

    def __init__(self) -> None:
        self.thread = threading.RLock()
        """The lock itself, for the thread."""
        self.waiting = 0

    def __enter__(self) -> None:
        if not self.thread.acquire(blocking=False):
            self.waiting += 1
            self.thread.acquire()
            self.waiting -= 1

    def __exit__(self, *exception: object) -> None:
        self.thread.release()


class PythonPump:
    """Implements `lkactor.plane.Pump`."""

    def __init__(self, sources: Sequence[Source], intake: Intake, lock: PlaneLock, now: float) -> None:
        """`sources` are numbered from 0. `now`: of Trio's clock. Raises OSError."""
        self._intake, self._lock = intake, lock
        intake.taken = intake.put_up  # What another one had never will be.
        for ingress in intake.holding:
            ingress.held.clear()
        intake.holding.clear()
        self._offset = now - time.perf_counter()
        self._sources = tuple(sources)
        self._numbers = {source.sock.fileno(): number for number, source in enumerate(sources)}
        """By descriptor."""
        self._up: deque[HandedUp] = deque()
        self._told, self._sleeping = False, True
        self._urgent = False
        """Something has been put there that cannot wait."""
        self._reports_due = self._losses_due = math.inf
        """When the loop has to be told of reports that wait, and of packets that are missing."""
        self._cost, self._again_cost = TURN / MOST, TURN / FEWEST
        """Seconds a datagram, the averages of the last turns: of what comes, and of what had waited and goes on."""
        self._ended = 0.0
        """The last turn."""
        self.dropped = 0
        self._buffer = PacketBuffer(1, MAX_DATAGRAM)
        self._wake, self._ring = (end for end in socket.socketpair())
        self._halt, self._halted = (end for end in socket.socketpair())
        for end in (self._wake, self._ring):
            end.setblocking(False)
        self.fd = self._wake.fileno()
        self._thread = threading.Thread(target=self._run, name="lkactor-media", daemon=True)
        self._interval = sys.getswitchinterval()
        self.failed = False
        """The thread has ended, and nobody has told it to."""

    def start(self) -> None:
        """Raises OSError."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError("the receiving thread could not be started") from error

    def stop(self) -> None:
        """Returns when it has ended; before the sockets are closed."""
        if self._thread.is_alive():
            self._halt.send(b"\0")
            self._thread.join()
        sys.setswitchinterval(self._interval)
        for end in (self._wake, self._ring, self._halt, self._halted):
            end.close()

    # -- on the thread of the loop ----------------------------------------------------------------------------------

    def take(self, most: int) -> list[HandedUp]:
        """Raises RuntimeError once the thread has failed: whoever supervises the caller lets it begin anew."""
        if self.failed:
            raise RuntimeError("the receiving thread has failed")
        try:
            while self._wake.recv(64):
                pass
        except BlockingIOError:
            pass
        self._told, self._reports_due = False, math.inf
        up, clock, taken = self._up, time.perf_counter, list[HandedUp]()
        with self._lock:
            # To come by the lock takes longer than what most of them need; those that go to the legs go at its end.
            began, passed = clock(), 0
            room = most * RECORDS
            most_again = _allowance(self._again_cost)
            # One at least, however long it took to come here.
            while up and room > 0 and passed < most_again and (clock() - began < TURN or not (taken or passed)):
                left = self._take_again(up[0])
                self._take_off()
                if left is None:
                    passed += 1
                else:
                    taken.append(left)
                    self._note_taken(left)
                    room -= 1 if left[5] == RTCP or left[3][:1] == DTLS_DATA else RECORDS
            self._end_batch()  # Who takes looks for news after it.
            self._note_again_cost(clock() - began, passed)
        return taken

    @property
    def has_more(self) -> bool:
        return bool(self._up)

    def _note_taken(self, datagram: HandedUp) -> None:
        ingress = self._ingress_of(datagram)
        if ingress is not None:
            ingress.note_taken(datagram[3])

    # -- on either, with the lock in hand ---------------------------------------------------------------------------

    def _ingress_of(self, datagram: HandedUp) -> InlineIngress | None:
        """Of RTP that went up, opened."""
        number, _, sockaddr, _, _, opened = datagram
        route = self._sources[number].routes.get(sockaddr) if opened == OPENED else None
        return route.ingress if route is not None else None

    def _take_again(self, datagram: HandedUp) -> HandedUp | None:
        """The first of what waits for the loop. What followed a packet that the loop had to look at has waited only
        until that one was numbered. It goes to the legs now, by whoever comes first, loop or thread: otherwise a loop
        that was late once would stay so, with all packets of all streams behind it."""
        ingress = self._ingress_of(datagram)
        if ingress is None:
            return datagram
        number, _, sockaddr, data, arrival, _ = datagram
        rest = ingress.take_again(data, arrival)
        return (number, 0, sockaddr, data, arrival, rest) if rest else None

    def _take_off(self) -> None:
        self._up.popleft()
        self._intake.taken += 1

    def _note_again_cost(self, seconds: float, passed: int) -> None:
        if passed:
            self._again_cost += (seconds / passed - self._again_cost) / 4

    def _end_batch(self) -> bool:
        """What it brought goes to the legs. True: there is news, and nobody knows of it."""
        self._intake.flush(self._offset, time.perf_counter)
        if self._intake.has_losses and self._losses_due == math.inf:
            self._losses_due = time.perf_counter() + LOSSES_WAIT
        unknown = self._sleeping and bool(self._intake.news)
        self._sleeping = self._sleeping and not unknown
        return unknown

    def tell_news(self) -> bool:
        """Call `on_news` of every ingress that has something to tell. False: none had, and the next one will ring."""
        with self._lock:
            told = self._intake.tell_news()
            self._sleeping = not told
            self._losses_due = math.inf
        return told

    @property
    def has_losses(self) -> bool:
        return self._intake.has_losses

    @property
    def rings_with_news(self) -> bool:
        """The last `tell_news` found nothing, and nothing has come since."""
        return self._sleeping

    # -- on its own -------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        if not self._told:
            self._told = True
            try:
                self._ring.send(b"\0")
            except OSError:
                self._told = False

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # Signals are the main thread's.
        stopped = False
        try:
            self._read()
            stopped = True
        finally:
            self.failed = not stopped
            self._told = False
            self.ring()

    def _read(self) -> None:
        """Until it is told to stop."""
        poll = select.poll()
        for fd in (*self._numbers, self._halted.fileno()):
            poll.register(fd, select.POLLIN)
        lock, sources, numbers, clock = self._lock, self._sources, self._numbers, time.perf_counter
        while True:
            due = self._next_due()
            for fd, _ in poll.poll(None if due == math.inf else max(0.0, due - clock()) * 1000):
                if fd not in numbers:
                    return
                number = numbers[fd]
                if not self._pass_again():
                    self._turn(number, sources[number])
            self._ring_for_waiting()
            while lock.waiting:
                time.sleep(0)

    def _due(self) -> float:
        """When the loop has to be told. Where it looks for news it comes by itself, and takes reports along."""
        return min(self._losses_due, self._reports_due) if self._sleeping else self._losses_due

    def _next_due(self) -> float:
        """When there is something to do though nothing comes."""
        return min(self._due(), self._held_due())

    def _held_due(self) -> float:
        return next(iter(self._intake.holding.values()), math.inf)

    def _ring_for_waiting(self) -> None:
        now = time.perf_counter()
        if self._held_due() <= now:
            with self._lock.thread:
                while self._held_due() <= now + REPORTS_WAIT:  # Those that are due next need no wake of their own.
                    self._release(next(iter(self._intake.holding)))
        if now >= self._due():
            self._reports_due = self._losses_due = math.inf
            self.ring()

    def once(self) -> int:
        """What the thread does when something has come, for tests without it; datagrams read, or passed on at last."""
        count = self._pass_again() or sum(self._turn(number, source) for number, source in enumerate(self._sources))
        self._ring_for_waiting()
        return count

    def _pass_again(self) -> int:
        """What has waited goes before what is new: where the core is busy the loop comes seldom. How many went to the
        legs, if that was enough for a turn, else 0."""
        up, clock = self._up, time.perf_counter
        if not up or up[0][5] != OPENED:
            return 0
        with self._lock.thread:
            began, passed, most = clock(), 0, _allowance(self._again_cost)
            while passed < most and up and up[0][5] == OPENED:
                left = self._take_again(up[0])
                if left is not None:
                    up[0] = left
                    break
                self._take_off()
                passed += 1
            unknown = self._end_batch()
            self._note_again_cost(clock() - began, passed)
        if unknown:
            self.ring()
        return passed if passed == most else 0

    def _turn(self, number: int, source: Source) -> int:
        """How many datagrams there were."""
        clock = time.perf_counter
        began = clock()
        # Who had to wait for one has one: to look for a second costs as much as to be told of it.
        count = 1 if began - self._ended > AT_ONCE else _allowance(self._cost)
        with self._lock.thread:
            drained = self._drain(number, source, began + self._offset, count)
            if self._end_batch():
                self.ring()
        if self._urgent:
            self._urgent = False
            self.ring()
        self._ended = ended = clock()
        if drained:
            self._cost += ((ended - began) / drained - self._cost) / 4
        return drained

    def _drain(self, number: int, source: Source, now: float, count: int) -> int:
        """Up to `count` datagrams; how many there were."""
        receive, routes, cell = source.sock.recvfrom_into, source.routes, source.cell
        buffer, view = self._buffer, self._buffer.view
        packets = octets = errors = 0
        opened: tuple[bytes, int] | None
        for _ in range(count):
            try:
                size, sockaddr = receive(view)
            except BlockingIOError:
                break
            except OSError:
                errors += 1  # An ICMP error of an earlier send surfaces on the next receive.
                continue
            packets += 1
            octets += size
            route = routes.get(sockaddr)
            ingress = route.ingress if route is not None else None
            if ingress is None or cell.divert:
                opened = view[:size].tobytes(), 0
            elif ingress.ready and size >= RTP_HEADER_SIZE and is_rtp(view):
                opened = ingress.receive(buffer, size, now)
            else:
                self._take_other(number, source, ingress, view[:size].tobytes(), sockaddr, now)
                continue
            if opened is not None:
                self._put_up((number, 0, sockaddr, opened[0], now, opened[1]))
        before = cell.received
        cell.received = before[0] + packets, before[1] + octets, before[2] + errors
        return packets

    def _take_other(
        self, number: int, source: Source, ingress: InlineIngress, data: bytes, sockaddr: tuple[Any, ...], now: float
    ) -> None:
        """What a peer has sent and is no RTP: a check of its is answered, if that is all there is to do."""
        consent = ingress.consent_for(source.cell, sockaddr) if is_stun(data) else None
        answer = consent.answer_to(data) if consent is not None else None
        if answer is not None and _send(source, answer, sockaddr):
            ingress.heard = now
            return
        data, opened = ingress.open_other(data)
        datagram = number, 0, sockaddr, data, now, opened
        if opened == RTCP:
            self._take_rtcp(ingress, datagram)
        else:
            self._put_up(datagram, waits=consent is not None and is_answer(data))

    def _take_rtcp(self, ingress: InlineIngress, datagram: HandedUp) -> None:
        found, ingress.estimate = urgency(datagram[3], ingress.estimate)
        holds = found is Urgency.USUAL and not ingress.eager
        if holds:
            for place, held in enumerate(ingress.held):
                if supersedes(datagram[3], held[3]):
                    ingress.held[place] = datagram
                    return
        if not holds or len(ingress.held) == MOST_HELD:
            self._release(ingress)
        if not holds:
            self._put_up(datagram, waits=found is not Urgency.URGENT)
            return
        if not ingress.held:
            self._intake.holding[ingress] = time.perf_counter() + HELD_FOR
        ingress.held.append(datagram)

    def _release(self, ingress: InlineIngress) -> None:
        """Nothing of this peer waits for more of it any longer."""
        self._intake.holding.pop(ingress, None)
        held, ingress.held = ingress.held, []
        for datagram in held:
            self._put_up(datagram, waits=True)

    def _put_up(self, datagram: HandedUp, *, waits: bool = False) -> None:
        """For when the loop comes. `waits`: for others, too."""
        if len(self._up) >= MOST_WAITING:
            self.dropped += 1
            return
        self._up.append(datagram)
        self._intake.put_up += 1
        if not waits:
            self._urgent = True
        elif self._reports_due == math.inf:
            self._reports_due = time.perf_counter() + REPORTS_WAIT


def _send(source: Source, datagram: bytes, sockaddr: tuple[Any, ...]) -> bool:
    """False: of this socket others keep the counters."""
    sender = source.cell.sender
    if sender is None:
        return False
    try:
        source.sock.sendto(datagram, sockaddr)
    except OSError as error:
        sender.count(error.errno or 0, 1)
    else:
        sender.packets += 1
        sender.bytes += len(datagram)
    return True


def _allowance(cost: float) -> int:
    """Datagrams of one turn, where one takes `cost` seconds."""
    return max(FEWEST, min(MOST, int(TURN / cost)))
