"""What a reload takes over, what it leaves for a restart, and what it says about both."""

import pytest

from lkactor.config import Config
from lkactor.config_reload import RELOADED, reload
from lkactor.config_schema import fields_of
from lkactor.turn import Authenticator, issue_credentials

SECRETS = ("first-secret", "second-secret", "third-secret")


def config(text="", **keys):
    return Config.load(text, overrides={"keys": keys or {"key": SECRETS[0]}})


def test_nothing_changes():
    result = reload(config(), config())
    assert (result.applied, result.restart, result.without_effect) == ((), (), ())
    assert result.config == config()


def test_keys_are_named_and_their_secrets_are_not():
    old = config(stays="a-secret", rotated=SECRETS[0], gone=SECRETS[1])
    result = reload(old, config(stays="a-secret", rotated=SECRETS[2], new=SECRETS[1]))
    assert result.applied == ("keys: added: new; removed: gone; with a new secret: rotated",)
    assert result.config.keys == {"stays": "a-secret", "rotated": SECRETS[2], "new": SECRETS[1]}
    assert not any(secret in text for secret in SECRETS for text in result.applied)


def test_many_keys_are_counted():
    new = {f"key{n:02}": "s" for n in range(30)}
    assert reload(config(key00="s"), config(**new)).applied[0].endswith("key20 and 9 more")


def test_numbers_are_shown_and_texts_are_not():
    old = config("{webhook: {api_key: key, urls: ['http://a/?token=hidden1']}, logging: {level: warn}}")
    new = config(
        "{webhook: {api_key: key, urls: ['http://b/?token=hidden2']}, limit: {max_metadata_size: 7},"
        " room: {auto_create: false}, logging: {level: debug}, rtc: {stun_servers: ['stun.example:3478']}}"
    )
    assert set(reload(old, new).applied) == {
        "webhook.urls",
        "limit.max_metadata_size: 7, was 524288",
        "room.auto_create: False, was True",
        "logging.level: 'debug', was 'warn'",
        "rtc.stun_servers",
    }


def test_what_needs_a_restart_is_named_and_stays():
    result = reload(
        config("rtc: {udp_port: 7}"),
        config("{port: 1234, rtc: {udp_port: 5}, logging: {json: true}, room: {empty_timeout: 5}}"),
    )
    assert set(result.restart) == {"port", "rtc.udp_port", "logging.json"}
    assert (result.config.port, result.config.rtc.udp_port, result.config.logging.json) == (7880, 7, False)
    assert result.config.room.empty_timeout == 5
    again = reload(result.config, config("{port: 12, rtc: {udp_port: 7}, room: {empty_timeout: 5}}"))
    assert (again.applied, again.restart) == ((), ("port",)), "said again until the restart"


def test_what_has_no_effect_is_named_once():
    new = config("{room: {create_room_attempts: 2}, psrpc: {timeout: 3s}}")
    result = reload(config(), new)
    assert set(result.without_effect) == {"room.create_room_attempts", "psrpc.timeout"}
    assert reload(result.config, new).without_effect == ()


def test_every_path_that_is_reloaded_exists():
    paths = list(fields_of(Config))
    for prefix in RELOADED:
        assert any(path == prefix or path.startswith(f"{prefix}.") for path in paths), prefix


@pytest.mark.parametrize("keys", [{}, {"key": "another"}])
def test_what_is_relayed_goes_on_without_its_key(keys):
    """New allocations need a key that is there; refreshes and permissions of old ones do not."""
    now = {"key": "secret"}
    authenticate = Authenticator(lambda: now, lambda: 1000.0, "livekit")
    name, _ = issue_credentials("key", "secret", "PA_a", 1300)
    other, _ = issue_credentials("key", "secret", "PA_b", 1300)
    account = authenticate(name, True)
    assert account is not None
    now = keys
    assert authenticate(name, False) == account
    assert authenticate(other, False) != authenticate(name, False)
    fresh = authenticate(name, True)
    assert fresh is None if not keys else fresh is not None and fresh.key != account.key
