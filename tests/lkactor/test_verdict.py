"""Join verdicts: what is made of the record of events, for joins that succeed and for those that fail."""

import pytest

from lkactor.eventlog import EventLog
from lkactor.remedies import remedy
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
    assert verdict.fix.startswith("if it waited long: open the media ports")


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


ACTIVE = (1.060, "active", "")
PUBLISHED = (1.1, "track.published", "TR_x video/VP8 mid 2")


def test_media_is_what_flows_not_what_is_announced():
    verdict = told(JOINED, OFFERED, CONNECTED, ACTIVE, PUBLISHED)
    media = verdict.steps["media"]
    assert (media.status, media.detail) == ("pending", "TR_x is published, no packet of it came")
    assert (verdict.outcome, verdict.cause) == ("joined", "")
    flowing = told(JOINED, OFFERED, CONNECTED, ACTIVE, PUBLISHED, (1.2, "track.flows", "mid 2 layer 0"))
    assert (flowing.steps["media"].status, flowing.steps["media"].ms) == ("ok", 200.0)


def test_a_track_without_packets_is_named_when_its_session_ends():
    verdict = told(JOINED, OFFERED, CONNECTED, ACTIVE, PUBLISHED, (9.0, "left", "CLIENT_INITIATED"))
    assert (verdict.outcome, verdict.cause) == ("joined", "media: TR_x is published, no packet of it came")
    assert verdict.steps["media"].status == "failed" and "sends nothing" in verdict.fix


def test_who_publishes_nothing_has_no_cause():
    verdict = told(JOINED, OFFERED, CONNECTED, ACTIVE, (9.0, "left", "CLIENT_INITIATED"))
    assert (verdict.outcome, verdict.cause, verdict.fix) == ("joined", "", "")


@pytest.mark.parametrize(
    ("step", "cause", "fix"),
    [
        ("token", "401 invalid API key: other (/rtc from 1.2.3.4)", "does not have this key"),
        ("token", "401 token signature is invalid: signature is invalid", "is not the server's"),
        ("token", "401 token has invalid claims: token is expired (600 s ago)", "NTP"),
        ("token", "401 token has invalid claims: token is not valid yet (for another 600 s)", "ahead of the server's"),
        ("token", "401 permissions denied", "video.roomJoin"),
        ("token", "401 no permissions to access the room", "video.roomJoin"),
        ("token", "401 token is malformed: could not JSON decode claim: video", "damaged"),
        ("signal", "404 requested room does not exist", "auto_create"),
        ("signal", "503 server is draining: no new rooms here", "undrain"),
        ("signal", "400 identity cannot be empty", "identity"),
        ("ice", SILENT, "media ports"),
        ("dtls", "dtls: fingerprint mismatch", "changes descriptions"),
        ("dtls", "dtls: no handshake over udp", "MTU"),
        ("data", "the data channels did not open", "_reliable"),
    ],
)
def test_every_cause_has_its_fix(step, cause, fix):
    assert fix in remedy(step, cause)


def test_the_fix_is_part_of_the_verdict():
    verdict = told((1.0, "join.refused", "404 requested room does not exist"))
    assert "auto_create" in verdict.fix
    assert "to do: create the room" in str(verdict)
    assert verdict.as_dict()["fix"] == verdict.fix
