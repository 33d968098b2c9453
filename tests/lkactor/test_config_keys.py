"""Keys and secrets in the configuration: what YAML makes of odd ones, and that no message repeats them."""

import pytest

from lkactor.config import Config, ConfigError, parse_keys


def test_secrets_stay_text():
    assert parse_keys("a: 0123\nb: yes\n") == {"a": "0123", "b": "yes"}
    assert Config.load("keys:\n  a: 0123\n  b: no\n").keys == {"a": "0123", "b": "no"}


@pytest.mark.parametrize("text", ["keys:\n  a:\n", "keys:\n  a: ''\n", "keys:\n  a: [x]\n"])
def test_a_key_without_a_secret_is_refused(text):
    with pytest.raises(ConfigError, match="'a' has no secret"):
        Config.load(text)
    with pytest.raises(ConfigError):
        parse_keys("a:\n")


def test_no_message_repeats_a_secret():
    for text in ("keys: hunter2\n", "rtc:\n  turn_servers: hunter2\n", "port: hunter2\n", "keys: {a: [hunter2]}\n"):
        with pytest.raises(ConfigError) as refused:
            Config.load(text)
        assert "hunter2" not in str(refused.value)


def test_dev_fills_in_what_is_empty():
    config = Config.load("keys:\nbind_addresses: []\nrtc:\n", dev=True, overrides={"rtc.udp_port": 5})
    assert config.keys == {"devkey": "secret"}
    assert config.bind_addresses == ("127.0.0.1", "::1")
    assert config.rtc.udp_port == 5


def test_unknown_keys_name_line_and_neighbour():
    with pytest.raises(ConfigError, match=r"line 2: unknown key rtc\.udp_prt; did you mean rtc\.udp_port\?"):
        Config.load("rtc:\n  udp_prt: 1\n")


@pytest.mark.parametrize("text", ["port: 2026-99-99\n", "a: [", "- x\n", "port: true\n", "room: 5\n", "\t"])
def test_bad_input_is_a_config_error(text):
    with pytest.raises(ConfigError):
        Config.load(text)


def test_keys_without_effect_are_named():
    assert Config.load("redis:\n  address: x\nport: 1\n").inert_keys() == ["redis.address"]
