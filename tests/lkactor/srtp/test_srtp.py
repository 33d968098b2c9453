"""All profiles both ways, tampering, replay, wrap-around, and a second implementation to compare with.

RFC 7714's packets are given for session keys, which libsrtp derives itself and does not take. So the second
implementation, made of `cryptography`'s primitives, is held to the vectors of RFC 3711 B.3 and RFC 7714 16.1.1, and
what we send is held to it.
"""

import hashlib
import hmac
import importlib.util
import struct
import sys
from random import Random

import pylibsrtp
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.errors import ProtocolViolation
from lkactor.sfu.leg import HISTORY
from lkactor.srtp import PacketBuffer, SrtpKeys, SrtpProfile, SrtpSender, libsrtp
from lkactor.srtp import session as session_module
from lkactor.wire.rtcp import Pli, build_rtcp
from lkactor.wire.rtp import build_rtp


def keys(profile, client=True):
    material = bytes(range(profile.exported_size))
    return SrtpKeys.from_exported(profile, material, client=client)


def rtp(sequence=1, size=100):
    return build_rtp(payload_type=96, sequence=sequence, timestamp=7, ssrc=9, payload=bytes(size))


@pytest.fixture(params=list(SrtpProfile), ids=lambda profile: profile.name)
def profile(request):
    return request.param


class Maker:
    """Of one implementation."""

    def __init__(self, name, make):
        self.name, self._make = name, make

    def __repr__(self):
        return self.name

    def sender(self, key_set):
        return self._make(key_set)[0]

    def receiver(self, key_set):
        return self._make(key_set)[1]


MAKERS = [Maker("libsrtp", libsrtp)]
try:
    from lkactor.plane.sealing import OpeningReceiver, SealingSender, srtp_of
except ImportError:
    srtp_of = None
else:
    MAKERS.append(Maker("kernel", srtp_of))


@pytest.fixture(params=MAKERS, ids=repr)
def made(request):
    return request.param


def test_round_trip(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    packet, report = rtp(), build_rtcp([Pli(1, 2)])
    protected = sender.protect_rtp(packet)
    assert protected != packet and receiver.unprotect_rtp(protected) == packet
    assert receiver.unprotect_rtcp(sender.protect_rtcp(report)) == report


def test_in_place_is_the_same(profile, made):
    one, two = made.sender(keys(profile)), made.sender(keys(profile))
    buffer = PacketBuffer(4, 1536)
    for slot, size in enumerate((0, 1, 500, 1200)):
        packet = rtp(slot, size)
        start = slot * 1536
        buffer.view[start : start + len(packet)] = packet
        length = one.protect_rtp_into(buffer, start, len(packet))
        assert bytes(buffer.view[start : start + length]) == two.protect_rtp(packet)


def test_tampered_and_replayed(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    protected = sender.protect_rtp(rtp())
    for index in (1, 20, len(protected) - 1):
        broken = bytearray(protected)
        broken[index] ^= 1
        with pytest.raises(ProtocolViolation):
            receiver.unprotect_rtp(bytes(broken))
    receiver.unprotect_rtp(protected)
    with pytest.raises(ProtocolViolation, match=r"srtp\.replay"):
        receiver.unprotect_rtp(protected)


def test_roll_over(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    for number in range(65500, 65600):
        packet = rtp(number & 0xFFFF)
        assert receiver.unprotect_rtp(sender.protect_rtp(packet)) == packet


def test_truncated_at_every_length(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    protected, report = sender.protect_rtp(rtp(size=20)), sender.protect_rtcp(build_rtcp([Pli(1, 2)]))
    for data, verb in ((protected, receiver.unprotect_rtp), (report, receiver.unprotect_rtcp)):
        for end in range(len(data)):
            with pytest.raises(ProtocolViolation):
                verb(data[:end])


def test_oversize_is_the_peers_fault(profile, made):
    with pytest.raises(ProtocolViolation, match="too_long"):
        made.receiver(keys(profile)).unprotect_rtp(b"\x80" + bytes(4000))


def test_keys_do_not_fit_the_other_direction(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile))
    with pytest.raises(ProtocolViolation, match=r"srtp\.auth"):
        receiver.unprotect_rtp(sender.protect_rtp(rtp()))


# -- the second implementation ---------------------------------------------------------------------------------------


def counter_mode(key, iv, data):
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def derived(key, salt, label, size):
    """RFC 3711 section 4.3, key derivation rate 0. A 12-byte salt is padded on the right (RFC 7714 section 11)."""
    salt = salt.ljust(14, b"\0")
    block = xor(salt, bytes(7) + bytes([label]) + bytes(6))
    return counter_mode(key, block + bytes(2), bytes(size))


def gcm_packet(key, salt, packet, roll_over):
    """RFC 7714 section 8.1, session keys."""
    iv = xor(bytes(2) + packet[8:12] + roll_over.to_bytes(4, "big") + packet[2:4], salt)
    return packet[:12] + AESGCM(key).encrypt(iv, packet[12:], packet[:12])


def cm_packet(key, salt, auth, packet, roll_over):
    """RFC 3711 sections 4.1.1 and 4.2, session keys."""
    index = roll_over.to_bytes(4, "big") + packet[2:4]
    iv = xor(salt + bytes(2), bytes(4) + packet[8:12] + index + bytes(2))
    out = packet[:12] + counter_mode(key, iv, packet[12:])
    return out + hmac.new(auth, out + roll_over.to_bytes(4, "big"), hashlib.sha1).digest()[:10]


def expected(key_set, packet, roll_over):
    profile, key, salt = key_set.profile, key_set.local_key, key_set.local_salt
    session_key = derived(key, salt, 0, profile.key_size)
    session_salt = derived(key, salt, 2, profile.salt_size)
    if profile is SrtpProfile.AES128_CM_SHA1_80:
        return cm_packet(session_key, session_salt, derived(key, salt, 1, 20), packet, roll_over)
    return gcm_packet(session_key, session_salt, packet, roll_over)


def test_key_derivation_of_rfc_3711_b_3():
    key = bytes.fromhex("e1f97a0d3e018be0d64fa32c06de4139")
    salt = bytes.fromhex("0ec675ad498afeebb6960b3aabe6")
    assert derived(key, salt, 0, 16).hex() == "c61e7a93744f39ee10734afe3ff7a087"
    assert derived(key, salt, 2, 14).hex() == "30cbbc08863d8c85d49db34a9ae1"
    assert derived(key, salt, 1, 20).hex() == "cebe321f6ff7716b6fd4ab49af256a156d38baa4"


def test_packet_of_rfc_7714_16_1_1():
    packet = bytes.fromhex("8040f17b8041f8d35501a0b2") + b"Gallia est omnis divisa in partes tres"
    protected = gcm_packet(bytes(range(16)), bytes.fromhex("517569642070726f2071756f"), packet, 0)
    assert protected.hex() == (
        "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27"
        "beb16a9152cf765ee4390cce"
    )


def test_what_we_send_is_what_the_rfcs_say(profile, made):
    """In place and through the public call, across the roll-over."""
    one, two, buffer = made.sender(keys(profile)), made.sender(keys(profile)), PacketBuffer(1)
    for number in (0xFFFE, 0xFFFF, 0x10000, 0x10001):
        packet = build_rtp(payload_type=96, sequence=number & 0xFFFF, timestamp=7, ssrc=9, payload=bytes(range(99)))
        buffer.view[: len(packet)] = packet
        length = one.protect_rtp_into(buffer, 0, len(packet))
        wanted = expected(keys(profile), packet, number >> 16)
        assert bytes(buffer.view[:length]) == wanted
        assert two.protect_rtp(packet) == wanted


def test_we_open_what_the_rfcs_say(profile, made):
    receiver = made.receiver(keys(profile, client=False))
    for number in (0xFFFF, 0x10000, 0xFFFE):
        packet = rtp(number & 0xFFFF)
        assert receiver.unprotect_rtp(expected(keys(profile), packet, number >> 16)) == packet


# -- edges -----------------------------------------------------------------------------------------------------------


def test_late_packets_within_the_window(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    late = sender.protect_rtp(rtp(1000))
    sender.protect_rtp(rtp(1000 + HISTORY - 1))
    assert sender.protect_rtp(rtp(1000)) == late  # A retransmission is the same packet, bit by bit.
    receiver.unprotect_rtp(sender.protect_rtp(rtp(1000 + 1023)))
    assert receiver.unprotect_rtp(late) == rtp(1000)
    too_late = expected(keys(profile), rtp(1000 + 1023 - 1024), 0)
    with pytest.raises(ProtocolViolation, match=r"srtp\.old"):
        receiver.unprotect_rtp(too_late)


def test_rtcp_tampered_and_replayed(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    protected = sender.protect_rtcp(build_rtcp([Pli(1, 2)]))
    for index in range(len(protected)):
        broken = bytearray(protected)
        broken[index] ^= 1
        with pytest.raises(ProtocolViolation, match=r"srtcp\."):
            receiver.unprotect_rtcp(bytes(broken))
    receiver.unprotect_rtcp(protected)
    with pytest.raises(ProtocolViolation, match=r"srtcp\.replay"):
        receiver.unprotect_rtcp(protected)


def test_a_forged_packet_does_not_move_the_window(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    receiver.unprotect_rtp(sender.protect_rtp(rtp(1)))
    forged = bytearray(sender.protect_rtp(rtp(30000)))
    forged[-1] ^= 1
    with pytest.raises(ProtocolViolation, match=r"srtp\.auth"):
        receiver.unprotect_rtp(bytes(forged))
    assert receiver.unprotect_rtp(expected(keys(profile), rtp(2), 0)) == rtp(2)


def test_streams_of_one_session_are_apart(profile, made):
    sender, receiver = made.sender(keys(profile)), made.receiver(keys(profile, client=False))
    for number in range(3):
        for ssrc in (1, 2**32 - 1):
            packet = build_rtp(payload_type=96, sequence=number, timestamp=7, ssrc=ssrc, payload=b"x")
            assert receiver.unprotect_rtp(sender.protect_rtp(packet)) == packet


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAKERS), st.sampled_from(list(SrtpProfile)), st.binary(max_size=1600))
def test_random_bytes(made, profile, data):
    receiver = made.receiver(keys(profile))
    for verb in (receiver.unprotect_rtp, receiver.unprotect_rtcp):
        with pytest.raises(ProtocolViolation):
            verb(data)


def test_without_the_private_binding_the_public_call_serves(profile, monkeypatch):
    """A copy of the module, imported as if pylibsrtp had no `_binding` to offer."""
    monkeypatch.setitem(sys.modules, "pylibsrtp._binding", None)
    spec = importlib.util.find_spec(session_module.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert session_module.IN_PLACE and not module.IN_PLACE
    sender, buffer = module.SrtpSender(keys(profile)), module.PacketBuffer(2)
    packet = rtp(5)
    buffer.view[1536 : 1536 + len(packet)] = packet
    length = sender.protect_rtp_into(buffer, 1536, len(packet))
    assert bytes(buffer.view[1536 : 1536 + length]) == expected(keys(profile), packet, 0)
    assert bytes(buffer.view[:1536]) == bytes(1536)


# -- the kernel's own ------------------------------------------------------------------------------------------------

kernel = pytest.mark.skipif(srtp_of is None, reason="the C kernel was not built")
GCM = [SrtpProfile.AEAD_AES_128_GCM, SrtpProfile.AEAD_AES_256_GCM]


def any_packet(random, sequence):
    """With contributing sources, a header extension, neither or both."""
    sources, words = random.choice([0, 0, 3, 15]), random.choice([None, None, 0, 2])
    first = 0x80 | (0x10 if words is not None else 0) | sources
    extension = b"" if words is None else b"\xbe\xde" + words.to_bytes(2, "big") + random.randbytes(4 * words)
    head = struct.pack("!BBHII", first, 96, sequence, 7, random.randrange(3)) + random.randbytes(4 * sources)
    return head + extension + random.randbytes(random.choice([0, 1, 16, 50, 300]))


def outcome(verb, data):
    """None: it was refused. (Of several reasons libsrtp may name another one.)"""
    try:
        return verb(data)
    except (RuntimeError, ProtocolViolation, pylibsrtp.Error):
        return None


@kernel
@pytest.mark.parametrize("seed", range(100))
def test_it_does_what_libsrtp_does(seed):
    """Any packets of some streams, in any order, twice, late or broken: the same octets and the same refusals."""
    random = Random(seed)
    profile = random.choice(GCM)
    ours, theirs = MAKERS[1], MAKERS[0]
    senders = [made.sender(keys(profile)) for made in (ours, theirs)]
    receivers = [made.receiver(keys(profile, client=False)) for made in (ours, theirs)]
    assert isinstance(senders[0], SealingSender) and isinstance(receivers[0], OpeningReceiver)
    sequence, sent = 65000, []
    for _ in range(random.randrange(60)):
        sequence += random.choice([1, 1, 1, random.randrange(-600, 600), random.randrange(-600, 40000)])
        packet = any_packet(random, sequence & 0xFFFF)
        one, two = (outcome(sender.protect_rtp, packet) for sender in senders)
        assert one == two
        if one is not None:
            sent.append(one)
            if random.random() < 0.3:
                broken = bytearray(one)
                broken[random.randrange(len(broken))] ^= 1 << random.randrange(8)
                sent.append(bytes(broken))
    random.shuffle(sent)
    for data in sent + sent[:5]:
        one, two = (outcome(receiver.unprotect_rtp, data) for receiver in receivers)
        assert one == two


@kernel
@pytest.mark.parametrize("profile", GCM, ids=lambda profile: profile.name)
def test_every_size(profile):
    """Whole blocks, parts of blocks, and more and less than are worked on side by side."""
    sender, receiver = srtp_of(keys(profile))[0], srtp_of(keys(profile, client=False))[1]
    for size in range(600):
        packet = rtp(size, size)
        protected = sender.protect_rtp(packet)
        assert protected == expected(keys(profile), packet, 0)
        assert receiver.unprotect_rtp(protected) == packet


@kernel
def test_a_peer_can_begin_a_bounded_number_of_streams():
    profile = SrtpProfile.AEAD_AES_128_GCM
    sender, receiver = SrtpSender(keys(profile)), MAKERS[1].receiver(keys(profile, client=False))
    for ssrc in range(8192):
        packet = build_rtp(payload_type=96, sequence=1, timestamp=7, ssrc=ssrc, payload=b"")
        assert receiver.unprotect_rtp(expected(keys(profile), packet, 0)) == packet
    one_more = build_rtp(payload_type=96, sequence=1, timestamp=7, ssrc=8192, payload=b"")
    with pytest.raises(ProtocolViolation, match=r"srtp\.invalid"):
        receiver.unprotect_rtp(sender.protect_rtp(one_more))
