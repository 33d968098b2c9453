"""Data packets are stamped, deduplicated and admitted (livekit-media 5.1)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol import models

from lkactor.room.data import MAX_NONCES, DataStamper


def stamper():
    return DataStamper(sid="PA_1", identity="bob")


def stamped(packet, by=None, reliable=True, hidden=False, agent=False):
    found = (by or stamper()).stamp(packet.SerializeToString(), reliable=reliable, hidden=hidden, agent=agent)
    return None if found is None else (found, models.DataPacket.FromString(found.payload))


def user(**fields):
    return models.DataPacket(user=models.UserPacket(payload=b"x", **fields))


@pytest.mark.parametrize("reliable", [True, False])
def test_the_server_says_who_it_was_and_by_which_channel(reliable):
    forged = user(participant_identity="eve", participant_sid="PA_2")
    forged.participant_identity, forged.participant_sid = "eve", "PA_2"
    forged.kind = models.DataPacket.Kind.LOSSY if reliable else models.DataPacket.Kind.RELIABLE
    found, packet = stamped(forged, reliable=reliable)
    assert found.reliable is reliable
    assert (packet.kind == models.DataPacket.Kind.RELIABLE) is reliable
    assert (packet.participant_identity, packet.participant_sid) == ("bob", "PA_1")
    assert (packet.user.participant_identity, packet.user.participant_sid) == ("bob", "PA_1")


def test_hidden_senders_have_no_name():
    _, packet = stamped(user(participant_identity="eve"), hidden=True)
    assert packet.participant_identity == packet.participant_sid == packet.user.participant_identity == ""


@pytest.mark.parametrize("outer", [True, False])
def test_destinations_are_the_same_in_both_places(outer):
    packet = user()
    (packet if outer else packet.user).destination_identities.extend(["a", "b"])
    packet.user.destination_sids.append("PA_9")
    found, packet = stamped(packet)
    assert found.destinations == {"a", "b"}
    assert found.destination_sids == {"PA_9"}
    assert list(packet.destination_identities) == list(packet.user.destination_identities) == ["a", "b"]


def test_reliable_sequences_rise():
    by = stamper()
    packets = [models.DataPacket(sequence=n, user=models.UserPacket()) for n in (1, 2, 2, 1, 5, 0, 0)]
    assert [stamped(packet, by) is not None for packet in packets] == [True, True, False, False, True, True, True]
    assert by.last_sequence == 5
    assert by.counters["data.duplicate_sequence"] == 2
    assert stamped(packets[0], by, reliable=False) is not None


def test_nonces_are_remembered_a_while():
    by = stamper()
    assert stamped(user(nonce=b"n" * 16), by) is not None
    assert stamped(user(nonce=b"n" * 16), by) is None
    assert stamped(user(nonce=b"n" * 5000), by) is not None
    assert stamped(user(nonce=b"n" * 5000), by) is None
    for n in range(MAX_NONCES):
        assert stamped(user(nonce=bytes([n])), by) is not None
    assert stamped(user(nonce=b"n" * 16), by) is not None
    assert stamped(user(), by) is not None and stamped(user(), by) is not None


def test_only_agents_transcribe_and_metrics_stay_here():
    words = models.DataPacket(transcription=models.Transcription())
    assert stamped(words) is None
    assert stamped(words, agent=True) is not None
    assert stamped(models.DataPacket(metrics={}), agent=True) is None


@pytest.mark.parametrize("agent", [True, False])
def test_agents_speak_for_others(agent):
    said = models.DataPacket(participant_identity="eve", chat_message=models.ChatMessage(message="hi"))
    _, packet = stamped(said, agent=agent)
    assert packet.participant_identity == ("eve" if agent else "bob")
    assert packet.participant_sid == "PA_1"
    assert packet.chat_message.generated is agent
    _, packet = stamped(models.DataPacket(participant_identity="eve", rpc_ack=models.RpcAck()), agent=agent)
    assert packet.participant_identity == "bob"


def test_unknown_fields_pass():
    raw = user().SerializeToString() + b"\xfa\x7f\x03new"
    found = stamper().stamp(raw, reliable=True, hidden=False, agent=False)
    assert b"\xfa\x7f\x03new" in found.payload


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_any_bytes(payload, reliable, agent):
    by = stamper()
    if by.stamp(payload, reliable=reliable, hidden=False, agent=agent) is None:
        assert sum(by.counters.values()) == 1
