"""A participant as the others see it."""

import pytest
from livekit.protocol import models

from lkactor.auth import Claims, VideoGrant
from lkactor.config import LimitConfig
from lkactor.room.participant import LimitExceeded, ParticipantModel
from lkactor.signal.join import JoinParameters

State = models.ParticipantInfo.State


def made(parameters=None, limits=None, video=None, **claims):
    return ParticipantModel(
        sid="PA_1",
        identity="bob",
        claims=Claims(api_key="k", identity="bob", expires_at=0.0, video=video or VideoGrant(), **claims),
        parameters=parameters or JoinParameters(client=models.ClientInfo()),
        joined_at_ms=1_700_000_000_123,
        region="eu",
        limits=limits or LimitConfig(),
    )


def info(model):
    return model.info((), ())


def test_from_claims_and_parameters():
    client = models.ClientInfo(client_protocol=2)
    parameters = JoinParameters(client=client, metadata="mine", attributes={"b": "2"})
    found = info(made(parameters, name="Bob", kind="sip", metadata="theirs", attributes={"a": "1", "b": "1"}))
    assert (found.name, found.metadata, found.kind) == ("Bob", "mine", models.ParticipantInfo.Kind.SIP)
    assert dict(found.attributes) == {"a": "1", "b": "2"}
    assert (found.joined_at, found.joined_at_ms, found.region) == (1_700_000_000, 1_700_000_000_123, "eu")
    assert (found.client_protocol, found.state) == (2, State.JOINING)


@pytest.mark.parametrize("kind", ["standard", "nothing", ""])
def test_unknown_kinds_are_standard(kind):
    assert info(made(kind=kind)).kind == models.ParticipantInfo.Kind.STANDARD


def test_the_version_rises_with_what_is_read():
    model = made()
    assert (info(model).version, info(model).version) == (1, 1)
    model.touch()
    model.set_publisher()
    assert info(model).version == 2
    model.set_publisher()
    assert info(model).version == 2


def test_a_copy_stays_as_it_was():
    model = made()
    before = info(model)
    model.update("New", "m", {"a": "b"})
    assert (before.name, before.metadata, dict(before.attributes)) == ("", "", {})


def test_states_only_rise():
    model = made()
    assert model.set_state(State.ACTIVE)
    assert not model.set_state(State.JOINED)
    assert model.state == State.ACTIVE
    model.disconnect(models.DisconnectReason.ROOM_DELETED)
    assert info(model).disconnect_reason == models.DisconnectReason.ROOM_DELETED


@pytest.mark.parametrize(
    ("sources", "source", "may"),
    [((), 1, True), (("camera",), 1, True), (("camera",), 2, False), (("hologram",), 1, False)],
)
def test_what_may_be_published(sources, source, may):
    assert made(video=VideoGrant(can_publish_sources=sources)).may_publish(source) is may
    assert not made(video=VideoGrant(can_publish=False, can_publish_sources=sources)).may_publish(source)


@pytest.mark.parametrize(
    ("video", "kind", "dependent"),
    [
        ({"agent": True}, "", True),
        ({"recorder": True}, "", True),
        ({}, "agent", True),
        ({}, "egress", True),
        ({}, "sip", False),
        ({"hidden": True}, "", False),
    ],
)
def test_who_does_not_count(video, kind, dependent):
    assert made(video=VideoGrant(**video), kind=kind).dependent is dependent


def test_a_publishing_identity_receives_nothing():
    assert not made(JoinParameters(client=models.ClientInfo(), publish="x")).permission.can_subscribe


def test_updates_merge_and_delete():
    model = made(name="Bob", metadata="m", attributes={"a": "1", "b": "2"})
    model.update("", "", {"a": "", "c": "3"})
    found = info(model)
    assert (found.name, found.metadata, dict(found.attributes)) == ("Bob", "m", {"b": "2", "c": "3"})


@pytest.mark.parametrize(
    ("update", "fits"),
    [
        (("x" * 5, "", {}), True),
        (("é" * 3, "", {}), False),
        (("", "x" * 6, {}), False),
        (("", "", {"k": "é" * 2}), True),
        (("", "", {"k": "x" * 5}), False),
    ],
)
def test_limits_in_bytes_and_nothing_half_done(update, fits):
    limits = LimitConfig(max_participant_name_length=5, max_metadata_size=5, max_attributes_size=5)
    model = made(limits=limits)
    before = info(model)
    if fits:
        model.update(*update)
        return
    with pytest.raises(LimitExceeded):
        model.update(*update)
    assert info(model) == before
