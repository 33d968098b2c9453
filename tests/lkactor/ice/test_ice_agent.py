"""Two agents over a virtual wire: every role, both kinds, restarts, silence."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.ice import Candidate, IceAgent, IceState, host_candidates
from lkactor.wire import stun
from lkactor.wire.address import Address

SERVER, CLIENT = Address("udp", "10.0.0.1", 7882), Address("udp", "10.0.0.2", 5000)


class Wire:
    """Moves datagrams between two agents in virtual time, with loss."""

    def __init__(self, a, b, loss=0.0, seed=1):
        self.a, self.b, self.now, self.loss, self.rng = a, b, 0.0, loss, random.Random(seed)
        self.from_a, self.from_b = SERVER, CLIENT
        self.cut = False

    def step(self):
        moved = True
        while moved:
            moved = False
            for source, sink, origin in ((self.a, self.b, self.from_a), (self.b, self.a, self.from_b)):
                for data, _ in source.datagrams_to_send(self.now):
                    moved = True
                    if not self.cut and self.rng.random() >= self.loss:
                        sink.receive_datagram(data, origin, self.now)

    def run(self, seconds):
        end = self.now + seconds
        while True:
            self.step()
            nexts = [t for t in (self.a.next_timeout(), self.b.next_timeout()) if t is not None]
            at = min(nexts, default=end)
            if at >= end:
                self.now = end
                return
            self.now = max(at, self.now + 1e-6)
            self.a.handle_timeout(self.now)
            self.b.handle_timeout(self.now)


def pair(seed=1, *, server_lite=False, server_controlling=False, client_controlling=None):
    rng = random.Random(seed)
    a = IceAgent(rng=rng, local_candidates=host_candidates(["10.0.0.1"], 7882, None), lite=server_lite,
                 controlling=server_controlling)  # fmt: skip
    if client_controlling is None:
        client_controlling = not server_controlling
    b = IceAgent(rng=rng, local_candidates=host_candidates(["10.0.0.2"], 5000, None), controlling=client_controlling)
    return a, b


def introduce(a, b, now=0.0):
    a.set_remote_credentials(b.local_ufrag, b.local_pwd, lite=b.lite, now=now)
    b.set_remote_credentials(a.local_ufrag, a.local_pwd, lite=a.lite, now=now)
    for candidate in a.local_candidates:
        b.add_remote_candidate(candidate, now)


@pytest.mark.parametrize("lite", [True, False])
@pytest.mark.parametrize("controlling", [True, False])
def test_connects(lite, controlling):
    if lite and controlling:
        pytest.skip("a lite agent never controls")
    a, b = pair(server_lite=lite, server_controlling=controlling)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    assert a.state is IceState.CONNECTED and b.state is IceState.CONNECTED
    assert a.selected == CLIENT and b.selected == SERVER


@pytest.mark.parametrize("both", [True, False])
def test_role_conflict_is_settled(both):
    a, b = pair(server_controlling=both, client_controlling=both)
    introduce(a, b)
    for candidate in b.local_candidates:
        a.add_remote_candidate(candidate, 0.0)
    wire = Wire(a, b)
    wire.run(3.0)
    assert a.controlling != b.controlling
    assert a.state is b.state is IceState.CONNECTED


@pytest.mark.parametrize("seed", range(10))
def test_connects_under_loss(seed):
    a, b = pair(seed, server_controlling=bool(seed % 2))
    introduce(a, b)
    wire = Wire(a, b, loss=0.3, seed=seed)
    wire.run(15.0)
    assert a.state is b.state is IceState.CONNECTED


def test_checks_before_remote_credentials_are_answered_and_triggered_later():
    a, b = pair()
    b.set_remote_credentials(a.local_ufrag, a.local_pwd, lite=False, now=0.0)
    b.add_remote_candidate(a.local_candidates[0], 0.0)
    wire = Wire(a, b)
    wire.run(0.5)
    assert a.selected is None
    a.set_remote_credentials(b.local_ufrag, b.local_pwd, lite=False, now=wire.now)
    wire.run(3.0)
    assert a.selected == CLIENT


@pytest.mark.parametrize("lite", [True, False])
def test_client_restart_keeps_the_path_until_the_new_one(lite):
    a, b = pair(server_lite=lite)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    old = a.local_ufrag
    a.restart(wire.now)
    b.restart(wire.now)
    assert a.selected == CLIENT and a.local_ufrag != old
    introduce(a, b, wire.now)
    wire.from_b = Address("udp", "10.0.0.9", 6000)
    wire.run(3.0)
    assert a.selected == wire.from_b
    assert a.state is IceState.CONNECTED


def test_server_restart_when_controlling():
    a, b = pair(server_controlling=True)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    a.restart(wire.now)
    b.restart(wire.now)
    introduce(a, b, wire.now)
    wire.run(3.0)
    assert a.state is b.state is IceState.CONNECTED
    assert a.settled


def test_nat_rebinding_moves_the_path_of_a_lite_agent():
    a, b = pair(server_lite=True)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    message = stun.build(
        stun.BINDING_REQUEST, b"t" * 12,
        [(stun.USERNAME, f"{a.local_ufrag}:{b.local_ufrag}".encode()), (stun.ICE_CONTROLLING, bytes(8)),
         (stun.USE_CANDIDATE, b"")], a.local_pwd,
    )  # fmt: skip
    moved = Address("udp", "10.0.0.2", 5999)
    a.receive_datagram(message, moved, wire.now)
    assert a.selected == moved


def test_a_client_behind_a_new_address_keeps_its_session():
    """It nominates anew, as browsers do; from its old address nothing comes any more."""
    a, b = pair()
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    moved = wire.from_b = Address("udp", "10.0.0.2", 5999)
    check = stun.build(
        stun.BINDING_REQUEST, b"n" * 12,
        [(stun.USERNAME, f"{a.local_ufrag}:{b.local_ufrag}".encode()), (stun.ICE_CONTROLLING, b"\xff" * 8),
         (stun.USE_CANDIDATE, b"")], a.local_pwd,
    )  # fmt: skip
    a.receive_datagram(check, moved, wire.now)
    assert a.selected == CLIENT, "not before a check of ours has come back from there"
    wire.run(5.0)
    a.receive_datagram(check, moved, wire.now)
    assert a.selected == moved
    assert a.state is IceState.CONNECTED


def test_silence_disconnects_then_fails_and_comes_back():
    a, b = pair()
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    wire.cut = True
    wire.run(12.0)
    assert a.state is IceState.DISCONNECTED
    wire.cut = False
    wire.run(2.5)
    assert a.state is IceState.CONNECTED
    wire.cut = True
    wire.run(16.0)
    assert a.state is IceState.FAILED


@pytest.mark.parametrize("lite", [True, False])
def test_checks_of_a_path_that_works_change_nothing(lite):
    """What the caller may skip then is everything but the answers: no event, no deadline that came nearer."""
    a, b = pair(server_lite=lite)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    while a.next_event() is not None or b.next_event() is not None:
        pass
    quiet = 0
    for _ in range(400):
        wire.now += 0.05
        for source, sink, origin in ((a, b, SERVER), (b, a, CLIENT), (a, b, SERVER)):
            source.handle_timeout(wire.now)
            for data, _ in source.datagrams_to_send(wire.now):
                before = sink.next_timeout()
                told = sink.receive_datagram(data, origin, wire.now)
                assert told, stun.parse(data)
                assert sink.next_event() is None
                assert (sink.next_timeout() or 1e9) >= (before or 1e9)
                quiet += 1
    assert quiet >= (9 * 2 if lite else 9 * 4)
    assert a.state is b.state is IceState.CONNECTED


def test_consent_is_asked_for_once_on_a_live_path_and_again_on_a_silent_one():
    a, b = pair(server_controlling=True)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    checks: list[float] = []
    while wire.now < 9.9:
        wire.now += 0.05
        a.handle_timeout(wire.now)
        checks += [wire.now for data, _ in a.datagrams_to_send(wire.now) if data[0] == 0]
    intervals = [later - earlier for earlier, later in pairwise(checks)]
    assert intervals[0] > 1.9  # The first went unanswered, but a moment ago the peer was there.
    assert min(intervals) < 0.3  # Nothing has been heard for long.


def test_a_live_path_that_is_used_is_asked_about_less_often():
    a, b = pair(server_controlling=True)
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    checks: list[float] = []
    while wire.now < 40.0:
        wire.now += 0.05
        if wire.now < 20.0:
            a.used_at = wire.now
        for source, sink, origin in ((b, a, CLIENT), (a, b, SERVER), (b, a, CLIENT)):
            source.handle_timeout(wire.now)
            for data, _ in source.datagrams_to_send(wire.now):
                if source is a and data[0] == 0:
                    checks.append(wire.now)
                sink.receive_datagram(data, origin, wire.now)
    busy = [later - earlier for earlier, later in pairwise(checks) if 4.0 < earlier < 15.0]
    idle = [later - earlier for earlier, later in pairwise(checks) if earlier > 25.0]
    assert min(busy) > 4.9 and max(busy) < 5.2
    assert min(idle) > 1.9 and max(idle) < 2.2


def test_checks_of_a_restart_are_not_quiet():
    a, b = pair()
    introduce(a, b)
    wire = Wire(a, b)
    wire.run(1.0)
    b.restart(wire.now)
    a.set_remote_credentials(b.local_ufrag, b.local_pwd, lite=False, now=wire.now)
    a.restart(wire.now)
    b.set_remote_credentials(a.local_ufrag, a.local_pwd, lite=False, now=wire.now)
    for candidate in a.local_candidates:
        b.add_remote_candidate(candidate, wire.now)
    wire.now += 0.1
    b.handle_timeout(wire.now)
    told = [a.receive_datagram(data, CLIENT, wire.now) for data, _ in b.datagrams_to_send(wire.now)]
    assert told and not any(told)
    wire.run(3.0)
    assert a.state is b.state is IceState.CONNECTED


def test_tcp_is_passive():
    a, b = pair(server_lite=False)
    a.set_remote_credentials(b.local_ufrag, b.local_pwd, lite=False, now=0)
    a.add_remote_candidate(Candidate.parse("candidate:1 1 tcp 1 10.0.0.2 9 typ host tcptype active"), 0.0)
    assert not a.datagrams_to_send(0.0)
    introduce(a, b)
    wire = Wire(a, b)
    wire.from_b = Address("tcp", "10.0.0.2", 40000)
    wire.run(2.0)
    assert a.selected == wire.from_b


@pytest.mark.parametrize(("udp_after", "chosen"), [(0.3, "udp"), (0.6, "tcp"), (None, "tcp")])
def test_controlling_agent_gives_udp_time_to_come_after_tcp(udp_after, chosen):
    """A browser's connection may be there before its candidates are."""
    a, b = pair(server_controlling=True)
    introduce(a, b)
    wire = Wire(a, b)
    wire.from_b = Address("tcp", "10.0.0.2", 40000)
    wire.run(udp_after or 0.49)
    assert a.path_is_valid(wire.from_b) and (a.selected is not None) == (udp_after == 0.6)
    if udp_after is not None:
        wire.from_b = CLIENT
        a.add_remote_candidate(b.local_candidates[0], wire.now)
    wire.run(0.2)
    assert a.selected.transport == chosen


def test_controlling_agent_that_wants_tcp_does_not_wait():
    a, b = pair(server_controlling=True)
    a.uses_udp = False
    introduce(a, b)
    wire = Wire(a, b)
    wire.from_b = Address("tcp", "10.0.0.2", 40000)
    wire.run(0.1)
    assert a.settled


def test_wrong_password_is_refused_and_counted():
    a, _ = pair()
    message = stun.build(stun.BINDING_REQUEST, b"t" * 12, [(stun.USERNAME, f"{a.local_ufrag}:x".encode())], "wrong")
    a.receive_datagram(message, CLIENT, 0.0)
    assert a.counters["stun.unauthenticated"] == 1
    assert stun.parse(a.datagrams_to_send(0.0)[0][0]).error_code == 401
    assert not a.path_is_valid(CLIENT)


def test_unknown_required_attribute_is_420():
    a, _ = pair()
    message = stun.build(
        stun.BINDING_REQUEST, b"t" * 12, [(stun.USERNAME, f"{a.local_ufrag}:x".encode()), (0x7777, b"")], a.local_pwd
    )
    a.receive_datagram(message, CLIENT, 0.0)
    assert stun.parse(a.datagrams_to_send(0.0)[0][0]).error_code == 420


def test_bounds():
    a, _ = pair()
    a.set_remote_credentials("abcd", "p" * 22, lite=False, now=0.0)
    for port in range(1000, 1500):
        a.add_remote_candidate(Candidate.parse(f"candidate:1 1 udp 1 10.0.0.3 {port} typ host"), 0.0)
    assert a.counters["ice.too_many_candidates"] == 436


@pytest.mark.parametrize(
    "text",
    ["", "candidate:", "candidate:1 1 udp 1 abc.local 5 typ host", "candidate:1 1 udp x 1.2.3.4 5 typ host",
     "candidate:1 1 sctp 1 1.2.3.4 5 typ host", "candidate:1 1 udp 1 1.2.3.4 99999 typ host",
     "candidate:1 1 udp 1 1.2.3.4 5 typ odd"],
)  # fmt: skip
def test_bad_candidates(text):
    with pytest.raises(ProtocolViolation):
        Candidate.parse(text)


def test_candidate_round_trip():
    for candidate in host_candidates(["10.0.0.1", "2001:db8::1"], 7882, 7881):
        assert Candidate.parse(candidate.to_sdp()) == candidate
    parsed = Candidate.parse("a=candidate:842163049 1 UDP 1677729535 203.0.113.7 4242 typ srflx raddr 0.0.0.0 rport 0 "
                             "generation 0 ufrag x network-cost 999")  # fmt: skip
    assert (parsed.ip, parsed.port, parsed.type, parsed.transport) == ("203.0.113.7", 4242, "srflx", "udp")


# RFC 5769 sections 2.1 to 2.3
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b15126"
    "3b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599fd9e"
    "90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2"
    "b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


def test_rfc5769_vectors():
    request = stun.parse(REQUEST)
    assert request.username == "evtj:h6vY" and request.check_integrity("VOkJxbRl1RmTxUk/WvJxBt")
    assert not request.check_integrity("x")
    assert stun.stun_ufrag(REQUEST) == "evtj"
    four, six = stun.parse(RESPONSE4), stun.parse(RESPONSE6)
    assert four.mapped_address == ("192.0.2.1", 32853) and four.check_integrity("VOkJxbRl1RmTxUk/WvJxBt")
    assert six.mapped_address == (["2001:db8:1234:5678:11:2233:4455:6677", " 32853"][0], 32853)
    assert six.check_integrity("VOkJxbRl1RmTxUk/WvJxBt")
    assert stun.xor_address("192.0.2.1", 32853, four.transaction) == four.attributes[stun.XOR_MAPPED_ADDRESS]


@pytest.mark.parametrize("vector", [REQUEST, RESPONSE4, RESPONSE6])
def test_truncation_and_bit_flips_never_raise_past_the_agent(vector):
    a, _ = pair()
    for end in range(len(vector)):
        a.receive_datagram(vector[:end], CLIENT, 0.0)
    for index in range(len(vector)):
        flipped = bytearray(vector)
        flipped[index] ^= 0x55
        a.receive_datagram(bytes(flipped), CLIENT, 0.0)
        stun.stun_ufrag(bytes(flipped))
    assert a.selected is None


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes(data, prefixed):
    a, _ = pair()
    if prefixed:
        data = b"\x00\x01" + len(data).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"t" * 12 + data
    a.receive_datagram(data, CLIENT, 0.0)
    stun.stun_ufrag(data)


@pytest.mark.parametrize("restarted", [True, False])
def test_silent_path_is_given_up_when_a_restart_had_its_time(restarted):
    """Lost at 1 s, disconnected from 11 s on, to fail at 16 s; restarted at 15 s, with 5 s to find another path."""
    a, b = pair()
    introduce(a, b)
    Wire(a, b).run(1.0)
    heard = a._last_heard
    a.check_timeout = 5.0
    a.handle_timeout(heard + 10.1)
    assert a.state is IceState.DISCONNECTED
    if restarted:
        a.restart(heard + 14.9)
    for now, failed in ((heard + 15.1, not restarted), (heard + 19.8, not restarted), (heard + 20.0, True)):
        a.handle_timeout(now)
        assert (a.state is IceState.FAILED) is failed
