"""What looks like a secret leaves a text; what does not, stays."""

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkactor.config import Config
from lkactor.eventlog import EventLog
from lkactor.redaction import HIDDEN, MAX_TEXT, redacted, secrets_of

SECRET = "the-secret-of-an-operator"
TOKEN = jwt.encode({"iss": "devkey", "sub": "somebody", "video": {"roomJoin": True}}, SECRET * 2, "HS256")
PASSWORD = "aB3+/aB3aB3aB3aB3aB3aB3"


@pytest.mark.parametrize(
    ("before", "secret"),
    [
        ("join {0} refused", TOKEN),
        ("KeyError: '{0}'", TOKEN),
        ("GET /rtc?access_token={0}&protocol=16", TOKEN),
        ("GET /rtc?access_token={0}&protocol=16", "any-text"),
        ("Authorization: Bearer {0}", TOKEN),
        ("Authorization: Bearer {0}", "any-text"),
        ("{{'authorization': 'Bearer {0}', 'host': 'x'}}", "any-text"),
        ("a=ice-ufrag:abcd\r\na=ice-pwd:{0}\r\na=setup:actpass", PASSWORD),
        ("ValueError: 'a=ice-pwd:{0}\\r\\na=setup:actpass'", PASSWORD),
        ('urls: "turn:x" username: "u" credential: "{0}"', PASSWORD),
        ('{{"credential": "{0}", "n": 1}}', PASSWORD),
        ("LocalTransport(ufrag='a', pwd='{0}', lite=True)", PASSWORD),
        ("turn_password: {0}", PASSWORD),
        ("PASSWORD={0}", PASSWORD),
        ("-----BEGIN EC PRIVATE KEY-----\n{0}\n-----END EC PRIVATE KEY-----", "MHcCAQEEIabc"),
        ("-----BEGIN PRIVATE KEY-----\n{0}", "MHcCAQEEIabc"),
        ("invalid API key: {0}", SECRET),
    ],
)
def test_secrets_leave(before, secret):
    text = before.format(secret)
    after = redacted(text, [SECRET])
    assert secret not in after
    assert HIDDEN in after
    assert redacted(after, [SECRET]) == after


@pytest.mark.parametrize(
    "text",
    [
        "", "401 token has invalid claims: token is expired (by 5 s ago) (/rtc from 10.0.0.1)", "secret", "eyJ",
        "udp 192.0.2.2:41331", "a=ice-ufrag:abcd", "publisher.connected: over relay", "the password is wrong",
        "TR_AMabcdefghijkl audio/red mid 0", "RuntimeError: crash asked for by a test",
    ],
)  # fmt: skip
def test_what_explains_stays(text):
    assert redacted(text, [SECRET]) == text


def test_a_short_value_is_a_word():
    assert redacted("signal.secretive", ["secret", ""]) == "signal.secretive"


@given(st.text(), st.integers(0, 3 * MAX_TEXT), st.integers(0, 3 * MAX_TEXT))
def test_size_is_bounded_and_a_cut_token_is_one(text, before, behind):
    after = redacted("x" * before + f" {TOKEN} " + "y" * behind + text)
    assert len(after) < MAX_TEXT + 200
    for part in TOKEN.split("."):
        assert part not in after
        assert part[-20:] not in after


def test_the_operator_s_secrets():
    text = f"""
keys: {{devkey: {SECRET}}}
prometheus: {{port: 9, username: u, password: scraping}}
rtc: {{turn_servers: [{{host: h, port: 3478, credential: cred}}, {{host: h, port: 3479, secret: shared}}]}}
"""
    assert {SECRET, "scraping", "cred", "shared"} <= set(secrets_of(Config.load(text)))


def test_the_record_of_events_is_clean_and_bounded():
    log = EventLog(0.0)
    log.secrets = lambda: [SECRET]
    log.record(1.0, "r" * 99999, "p" * 99999, "actor.crash", f"{SECRET} {TOKEN} " + "z" * 999999)
    (entry,) = log.entries()
    assert SECRET not in str(entry)
    assert TOKEN[:40] not in str(entry)
    assert len(str(entry)) < MAX_TEXT + 4096
