"""All profiles both ways, tampering, replay, wrap-around, and RFC 7714's packet."""

import pytest

from lkactor.errors import ProtocolViolation
from lkactor.srtp import SendBuffer, SrtpKeys, SrtpProfile, SrtpReceiver, SrtpSender
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


def test_round_trip(profile):
    sender, receiver = SrtpSender(keys(profile)), SrtpReceiver(keys(profile, client=False))
    packet, report = rtp(), build_rtcp([Pli(1, 2)])
    protected = sender.protect_rtp(packet)
    assert protected != packet and receiver.unprotect_rtp(protected) == packet
    assert receiver.unprotect_rtcp(sender.protect_rtcp(report)) == report


def test_in_place_is_the_same(profile):
    one, two = SrtpSender(keys(profile)), SrtpSender(keys(profile))
    buffer = SendBuffer(4, 1536)
    for slot, size in enumerate((0, 1, 500, 1200)):
        packet = rtp(slot, size)
        start = slot * 1536
        buffer.view[start : start + len(packet)] = packet
        length = one.protect_rtp_into(buffer, start, len(packet))
        assert bytes(buffer.view[start : start + length]) == two.protect_rtp(packet)


def test_tampered_and_replayed(profile):
    sender, receiver = SrtpSender(keys(profile)), SrtpReceiver(keys(profile, client=False))
    protected = sender.protect_rtp(rtp())
    for index in (1, 20, len(protected) - 1):
        broken = bytearray(protected)
        broken[index] ^= 1
        with pytest.raises(ProtocolViolation):
            receiver.unprotect_rtp(bytes(broken))
    receiver.unprotect_rtp(protected)
    with pytest.raises(ProtocolViolation, match=r"srtp\.replay"):
        receiver.unprotect_rtp(protected)


def test_roll_over(profile):
    sender, receiver = SrtpSender(keys(profile)), SrtpReceiver(keys(profile, client=False))
    for number in range(65500, 65600):
        packet = rtp(number & 0xFFFF)
        assert receiver.unprotect_rtp(sender.protect_rtp(packet)) == packet


def test_truncated_at_every_length(profile):
    sender, receiver = SrtpSender(keys(profile)), SrtpReceiver(keys(profile, client=False))
    protected, report = sender.protect_rtp(rtp(size=20)), sender.protect_rtcp(build_rtcp([Pli(1, 2)]))
    for data, verb in ((protected, receiver.unprotect_rtp), (report, receiver.unprotect_rtcp)):
        for end in range(len(data)):
            with pytest.raises(ProtocolViolation):
                verb(data[:end])


def test_oversize_is_the_peers_fault(profile):
    with pytest.raises(ProtocolViolation, match="too_long"):
        SrtpReceiver(keys(profile)).unprotect_rtp(b"\x80" + bytes(4000))


def test_keys_do_not_fit_the_other_direction(profile):
    sender, receiver = SrtpSender(keys(profile)), SrtpReceiver(keys(profile))
    with pytest.raises(ProtocolViolation, match=r"srtp\.auth"):
        receiver.unprotect_rtp(sender.protect_rtp(rtp()))
