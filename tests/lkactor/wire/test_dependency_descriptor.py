"""The dependency descriptor, bit by bit (RTP Payload Format For AV1, appendix A)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dependency import BitWriter, KeyedSvc

from lkactor.errors import ProtocolViolation
from lkactor.wire.dependency_descriptor import DISCARDABLE, NOT_PRESENT, REQUIRED, SWITCH, parse, with_active

# Structure 0 of one spatial and two temporal layers, as the specification's example L1T2 has it (appendix A.10.2.2):
# templates: key, T0, T1; two decode targets; one chain.
L1T2 = (
    BitWriter()
    .put(0b10, 2).put(0, 6).put(1, 16)
    .put(0b10000, 5)
    .put(0, 6).put(1, 5)
    .put(0, 2).put(1, 2).put(3, 2)  # layers: same, next temporal, no more
    .put(SWITCH, 2).put(SWITCH, 2).put(SWITCH, 2).put(REQUIRED, 2).put(NOT_PRESENT, 2).put(DISCARDABLE, 2)
    .put(0, 1).put(1, 1).put(1, 4).put(0, 1).put(1, 1).put(0, 4).put(0, 1)  # none; 2; 1
    .non_symmetric(1, 3).non_symmetric(0, 1).non_symmetric(0, 1)
    .put(0, 4).put(2, 4).put(1, 4)
    .put(1, 1).put(639, 16).put(359, 16)
    .to_bytes()
)  # fmt: skip


def key():
    return parse(L1T2, None)


def test_a_key_frame_names_the_structure():
    found = key()
    structure = found.structure
    assert (found.first, found.last, found.frame_number, found.attached) == (True, False, 1, True)
    assert structure.targets == ((0, 0), (0, 1))
    assert structure.protected_by == (0, 0)
    assert structure.resolutions == ((640, 360),)
    assert [(t.spatial, t.temporal, t.dtis, t.fdiffs, t.chain_diffs) for t in structure.templates] == [
        (0, 0, (SWITCH, SWITCH), (), (0,)),
        (0, 0, (SWITCH, REQUIRED), (2,), (2,)),
        (0, 1, (NOT_PRESENT, DISCARDABLE), (1,), (1,)),
    ]
    assert found.active == structure.all_active == 0b11
    assert found.frame is structure.templates[0]


def test_three_bytes_are_enough_for_a_frame_like_its_template():
    structure = key().structure
    found = parse(bytes((0b01000010, 0x12, 0x34)), structure)
    assert (found.first, found.last, found.frame_number) == (False, True, 0x1234)
    assert found.frame is structure.templates[2]
    assert (found.attached, found.active) == (False, None)


def test_a_frame_may_differ_from_its_template():
    structure = key().structure
    bits = BitWriter().put(0b11, 2).put(1, 6).put(9, 16).put(0b01111, 5).put(0b01, 2)
    bits.put(REQUIRED, 2).put(NOT_PRESENT, 2)
    bits.put(1, 2).put(3, 4).put(3, 2).put(0x123, 12).put(0, 2)
    bits.put(200, 8)
    found = parse(bits.to_bytes(), structure)
    assert found.active == 0b01
    assert found.frame.dtis == (REQUIRED, NOT_PRESENT)
    assert found.frame.fdiffs == (4, 0x124)
    assert found.frame.chain_diffs == (200,)


def test_template_numbers_wrap():
    encoder = KeyedSvc(structure_id=60)
    structure = None
    for data in (*encoder.picture(key=True), *encoder.picture(), *encoder.picture()):
        found = parse(data, structure)
        structure = found.structure
    assert (found.frame.spatial, found.frame.temporal) == (2, 1)


def test_layers_of_decode_targets():
    structure = parse(KeyedSvc().picture(key=True)[0], None).structure
    assert structure.targets == tuple((s, t) for s in range(3) for t in range(3))
    assert structure.protected_by == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert structure.resolutions == ((320, 180), (640, 360), (1280, 720))


@pytest.mark.parametrize(
    ("data", "structure", "reason"),
    [
        (b"", True, "truncated"),
        (b"\xc0\x00", True, "truncated"),
        (b"\xc0\x00\x01", False, "no_structure"),
        (b"\xff\x00\x01", True, "template"),
        (b"\xc0\x00\x01\x08", True, "truncated"),
        (b"\xc0\x00\x01\x40", False, "no_structure"),
    ],
)
def test_what_cannot_be_read(data, structure, reason):
    with pytest.raises(ProtocolViolation) as caught:
        parse(data, key().structure if structure else None)
    assert caught.value.reason == f"dependency_descriptor.{reason}"


def test_endless_lists_end():
    head = BitWriter().put(0b11, 2).put(0, 6).put(1, 16).put(0b10000, 5).put(0, 6).put(0, 5)
    head.text += "00" * 100
    with pytest.raises(ProtocolViolation) as caught:
        parse(head.to_bytes(), None)
    assert caught.value.reason == "dependency_descriptor.templates"
    layers = BitWriter().put(0b11, 2).put(0, 6).put(1, 16).put(0b10000, 5).put(0, 6).put(0, 5)
    layers.text += "10" * 10
    with pytest.raises(ProtocolViolation) as caught:
        parse(layers.to_bytes(), None)
    assert caught.value.reason == "dependency_descriptor.layers"
    diffs = BitWriter().put(0b11, 2).put(0, 6).put(1, 16).put(0b00010, 5)
    diffs.text += "010000" * 40
    with pytest.raises(ProtocolViolation) as caught:
        parse(diffs.to_bytes(), key().structure)
    assert caught.value.reason == "dependency_descriptor.fdiffs"


def test_truncation_at_every_length():
    for length in range(len(L1T2)):
        with pytest.raises(ProtocolViolation):
            parse(L1T2[:length], None)


@given(st.binary(max_size=80), st.booleans())
def test_random_bytes(data, structure):
    try:
        parse(data, key().structure if structure else None)
    except ProtocolViolation as violation:
        assert violation.reason.startswith("dependency_descriptor.")


@pytest.mark.parametrize(
    "data",
    [
        bytes((0b01000010, 0x12, 0x34)),
        BitWriter().put(0b11, 2).put(1, 6).put(9, 16).put(0b01000, 5).put(0b11, 2).to_bytes(),
        BitWriter()
        .put(0b11, 2)
        .put(1, 6)
        .put(9, 16)
        .put(0b00011, 5)
        .put(1, 2)
        .put(3, 4)
        .put(0, 2)
        .put(7, 8)
        .to_bytes(),
        BitWriter().put(0b11, 2).put(1, 6).put(9, 16).put(0b01001, 5).put(0b11, 2).put(255, 8).to_bytes(),
    ],
)
@pytest.mark.parametrize("active", [0b01, 0b11])
def test_the_set_of_active_targets_is_all_that_changes(data, active):
    structure = key().structure
    before = parse(data, structure)
    after = parse(with_active(data, before, active), structure)
    assert after.active == active
    assert (after.first, after.last, after.frame_number, after.frame) == (
        before.first,
        before.last,
        before.frame_number,
        before.frame,
    )


def test_a_packet_with_a_structure_stays_as_it_is():
    assert with_active(L1T2, key(), 0b01) == L1T2
