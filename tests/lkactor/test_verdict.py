"""Join verdicts: what is made of the record of events, for joins that succeed and for those that fail."""

import pytest

from lkactor.eventlog import EventLog
from lkactor.verdict import JoinBook


def told(*entries):
    """(seconds, event, detail) of ann in demo -> her only verdict."""
    log, book = EventLog(0.0), JoinBook()
    log.listen(book.observe)
    for at, event, detail in entries:
        log.record(at, "demo", "ann", event, detail)
    (verdict,) = book.of(room="demo", identity="ann")
    return verdict


JOINED = (1.0, "participant.joined", "PA_x")
OFFERED = (1.010, "publisher.connecting", "")
CONNECTED = (1.040, "publisher.connected", "ice 15.0 ms over udp 192.0.2.1:5000, dtls 30.0 ms")
SILENT = "ice: no pair answered; tried udp 10.0.0.1:9 silent"


def test_a_good_join_has_every_step_with_its_time():
    verdict = told(JOINED, OFFERED, CONNECTED, (1.060, "active", ""), (1.200, "subscribed", "TR_x"))
    assert (verdict.outcome, verdict.cause, verdict.sid) == ("joined", "", "PA_x")
    assert [(s.name, s.status, s.ms) for s in verdict.steps.values()] == [
        ("token", "ok", 0.0),
        ("signal", "ok", 0.0),
        ("offer", "ok", 10.0),
        ("ice", "ok", 25.0),
        ("dtls", "ok", 40.0),
        ("data", "ok", 60.0),
        ("media", "ok", 200.0),
    ]
    assert "udp 192.0.2.1:5000" in verdict.steps["ice"].detail
    assert "ann in demo: joined" in str(verdict)


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ([(1.0, "join.refused", "401 token has expired")], "token: 401 token has expired"),
        ([(1.0, "join.refused", "404 requested room does not exist")], "signal: 404 requested room does not exist"),
        ([JOINED, (61.0, "left", "JOIN_FAILURE")], "offer: no description came"),
        ([JOINED, OFFERED, (30.0, "publisher.failed", SILENT)], "ice: ice: no pair answered; tried udp 10.0.0.1:9"),
        ([JOINED, OFFERED, (30.0, "publisher.failed", "dtls: fingerprint mismatch")], "dtls: dtls: fingerprint"),
        ([JOINED, OFFERED, CONNECTED, (61.0, "left", "JOIN_FAILURE")], "data: the data channels did not open"),
        ([JOINED, (1.1, "negotiation.failed", "publisher: sdp.no_media")], "offer: publisher: sdp.no_media"),
    ],
)
def test_a_failure_names_its_step(entries, cause):
    verdict = told(*entries)
    assert verdict.outcome == "failed"
    assert verdict.cause.startswith(cause)


def test_a_client_that_leaves_early_has_not_failed():
    verdict = told(JOINED, OFFERED, (2.0, "left", "CLIENT_INITIATED"), (2.0, "participant.left", "CLIENT_INITIATED"))
    assert (verdict.outcome, verdict.cause) == ("left early", "the client left while ice was awaited")


def test_what_happens_after_a_join_does_not_change_its_verdict():
    gone = [(99.0, "publisher.failed", "ice: gone"), (99.0, "left", "CONNECTION_TIMEOUT")]
    assert told(JOINED, OFFERED, CONNECTED, (1.1, "active", ""), *gone).outcome == "joined"


def test_attempts_are_bounded_and_can_be_picked():
    log, book = EventLog(0.0), JoinBook(capacity=10)
    log.listen(book.observe)
    for number in range(30):
        log.record(number, "demo", f"p{number}", "participant.joined", "PA")
        log.record(number, "demo", f"p{number}", "participant.left", "")
    assert [v.identity for v in book.of()] == [f"p{n}" for n in range(20, 30)]
    assert book.of(identity="p25") and not book.of(identity="p1") and not book.of(room="other")
    assert book.latest("demo", "p29") is None


def test_two_attempts_of_one_identity_are_two():
    log, book = EventLog(0.0), JoinBook()
    log.listen(book.observe)
    log.record(0.0, "demo", "ann", "participant.joined", "PA_1")
    log.record(1.0, "demo", "ann", "active", "")
    log.record(2.0, "demo", "ann", "participant.joined", "PA_2")
    assert [(v.sid, v.outcome) for v in book.of(identity="ann")] == [("PA_1", "joined"), ("PA_2", "under way")]


def test_times_rise_when_the_offer_was_recorded_late():
    """The transport had begun 5 ms before the record says so; its own times count from its own beginning."""
    late = (1.050, "publisher.connected", "ice 42.0 ms over udp 192.0.2.1:5000, dtls 45.0 ms")
    verdict = told(JOINED, OFFERED, late, (1.052, "active", ""))
    times = [step.ms for step in verdict.steps.values()][:6]
    assert times == [0.0, 0.0, 10.0, 47.0, 50.0, 52.0]
