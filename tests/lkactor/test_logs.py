"""The server's log: which entries become lines, with which fields, and at which level."""

import io
import json

import pytest

from lkactor.cli.logs import ServerLog
from lkactor.config_sections import LoggingConfig
from lkactor.eventlog import EventLog
from lkactor.verdict import JoinBook


def lines(*entries, level="info", as_json=True):
    stream, log, book = io.StringIO(), EventLog(0.0), JoinBook()
    log.listen(book.observe)
    log.listen(ServerLog(LoggingConfig(json=as_json, level=level), book, "ND_x", stream).observe)
    for at, who, event, detail in entries:
        log.record(at, "demo", who, event, detail)
    text = stream.getvalue()
    return [json.loads(line) for line in text.splitlines()] if as_json else text


MEETING = (
    (1.0, "", "room.started", "RM_x"),
    (2.0, "ann", "participant.joined", "PA_x"),
    (2.01, "ann", "publisher.connecting", ""),
    (2.04, "ann", "publisher.connected", "ice 15.0 ms over udp 192.0.2.1:5000, dtls 30.0 ms"),
    (2.06, "ann", "active", ""),
    (2.5, "ann", "track.published", "TR_x"),
    (9.0, "ann", "left", "CLIENT_INITIATED"),
    (9.0, "ann", "participant.left", "CLIENT_INITIATED"),
    (30.0, "", "room.finished", ""),
)


def test_a_meeting_is_four_lines():
    told = lines(*MEETING)
    assert [line["msg"] for line in told] == [
        "starting room", "participant active", "participant closing", "closing room",
    ]  # fmt: skip
    assert all(line["level"] == "info" and line["nodeID"] == "ND_x" and line["room"] == "demo" for line in told)
    active, closing = told[1], told[2]
    assert (active["participant"], active["pID"], active["connectMs"], active["iceMs"]) == ("ann", "PA_x", 60.0, 25.0)
    assert active["path"] == "over udp 192.0.2.1:5000"
    assert (closing["reason"], closing["durationMs"], closing["outcome"]) == ("CLIENT_INITIATED", 7000, "joined")


def test_short_secrets_are_named_by_their_keys():
    (line,) = lines((1.0, "", "config.weak_secret", "key1, key2"), level="warn")
    assert (line["level"], line["apiKeys"]) == ("warn", "key1, key2")
    assert "generate-keys" in line["msg"]


def test_debug_tells_everything():
    assert len(lines(*MEETING, level="debug")) == len(MEETING)


@pytest.mark.parametrize(
    ("entry", "level"),
    [
        ((1.0, "ann", "join.refused", "401 token has expired"), "warn"),
        ((1.0, "/rooms/x", "actor.crash", "ValueError()"), "error"),
    ],
)
def test_what_went_wrong_is_told_at_every_level_that_asks(entry, level):
    (line,) = lines(entry, level="warn")
    assert line["level"] == level


def test_a_failed_join_warns_with_its_cause():
    joined = (1.0, "ann", "participant.joined", "PA_x")
    told = lines(joined, (61.0, "ann", "left", "JOIN_FAILURE"), (61.0, "ann", "participant.left", "JOIN_FAILURE"))
    assert told[-1]["level"] == "warn" and told[-1]["cause"].startswith("offer: no description came")


def test_for_people_it_is_text():
    text = lines(*MEETING, as_json=False)
    assert "participant active" in text and "connectMs=60.0" in text and "\x1b[" not in text
