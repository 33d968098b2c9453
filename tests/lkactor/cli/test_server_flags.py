"""What decides a server's configuration, through `check` and `ports`: nothing is started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from lkactor.cli.main import main
from lkactor.config import Config
from lkactor.config_schema import APPLIED, EXTRA, WITHOUT_EFFECT, Schema, fields_of, schema_of

BASE = ("--keys", "key1: a-secret-that-nobody-sees")


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[str, str]]:
    """(value, what set it) by key."""
    assert main(["check", "--json", *BASE, *words]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {row["key"]: (row["value"], row["from"]) for row in answer["values"]}


def ports(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert main(["ports", "--json", *words]) == 0
    return {row["use"].split(",")[0]: row["port"] for row in json.loads(capsys.readouterr().out)}


def test_the_flags_of_livekits_server(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "bind": ("bind_addresses", "127.0.0.1"),
        "region": ("region", "here"),
        "node-ip": ("rtc.node_ip", "192.0.2.1"),
        "udp-port": ("rtc.udp_port", "7000-7003"),
        "turn-cert": ("turn.cert_file", "cert.pem"),
        "turn-key": ("turn.key_file", "key.pem"),
    }
    found = checked(capsys, *(word for flag, (_, value) in flags.items() for word in (f"--{flag}", value)))
    for flag, (key, value) in flags.items():
        assert found[key] == (value, f"flag --{flag}")


def test_every_key_is_a_flag(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_RTC_TCP_PORT", "1")
    monkeypatch.setenv("LIVEKIT_LOGGING_LEVEL", "warn")
    body = "rtc: {tcp_port: 2}\nroom: {auto_create: true, max_participants: 3}"
    words = ("--rtc.tcp_port", "7001", "--rtc.use_ice_lite", "--room.auto_create=false", "--rtc.stun_servers", "a,b")
    found = checked(capsys, "--config-body", body, *words)
    assert found["rtc.tcp_port"] == ("7001", "flag --rtc.tcp_port")
    assert found["rtc.use_ice_lite"] == ("True", "flag --rtc.use_ice_lite")
    assert found["room.auto_create"] == ("False", "flag --room.auto_create")
    assert found["room.max_participants"] == ("3", "--config-body line 2")
    assert found["logging.level"] == ("warn", "env LIVEKIT_LOGGING_LEVEL")
    assert found["rtc.stun_servers"][0] == "a, b"


def test_a_flag_is_checked_as_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *BASE, "--rtc.tcp_port", "many"]) == 1
    assert "rtc.tcp_port: expected a whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["check", *BASE, "--rtc.tcp_prot", "1"])
    assert ended.value.code == 2


def test_keys_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    body = "fnord: 1\nrtc: {tcp_port: 5, tcp_prot: [6]}"
    assert main(["check", *BASE, "--config-body", body]) == 1
    assert "line 1: unknown key fnord" in capsys.readouterr().err
    assert main(["check", "--json", *BASE, "--disable-strict-config", "--config-body", body]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["without_effect"] == ["fnord", "rtc.tcp_prot"]


def test_what_must_be_open(capsys: pytest.CaptureFixture[str]) -> None:
    assert ports(capsys)["media"] == "50000-60000"
    assert ports(capsys, "--dev")["media"] == "7882"
    assert ports(capsys, "--udp-port", "7000-7003")["media"] == "7000-7003"
    both = "rtc: {port_range_start: 50000, port_range_end: 60000, udp_port: 1}"
    assert ports(capsys, "--config-body", both)["media"] == "50000-60000", "as the server: the range wins"
    assert "media" not in ports(capsys, "--udp-port", "0")


def test_a_file_that_is_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"port: 1\n\xff\xfe")
    path.chmod(0o600)
    for words in (("serve", "--config"), ("check", "--config"), ("ports", "--config"), ("serve", "--key-file")):
        assert main([*words, str(path)]) == 1
        assert capsys.readouterr().err == f"lkactor: {path} is not UTF-8 text (octet 9)\n"


def test_every_key_without_effect_is_in_the_docs() -> None:
    named = re.findall(r"`([\w.*]+)`", (Path(__file__).parents[3] / "docs" / "configuration.md").read_text())
    for path in without_effect(schema_of(Config, EXTRA)):
        *parents, last = path.split(".")
        prefixes = [".".join(parents[:count]) for count in range(1, len(parents) + 1)]
        whole = {path, last, *prefixes, *parents[1:]}
        assert any(fnmatch(name, pattern) for name in whole for pattern in named), path


def without_effect(schema: Schema, prefix: str = "") -> Iterator[str]:
    for name, below in schema.items():
        path = prefix + name
        if isinstance(below, dict):
            yield from without_effect(below, f"{path}.")
            continue
        listed = any(path == inert or path.startswith(f"{inert}.") for inert in WITHOUT_EFFECT)
        if listed or (path not in fields_of(Config) and path not in APPLIED):
            yield path


def test_values_read_as_they_were_meant(capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "limit: {max_metadata_size: 0}\nroom: {enabled_codecs: [{mime: video/vp8}]}\n"
        "rtc: {turn_servers: [{host: t.example, port: 443, protocol: tls, secret: unseen, credential: unseen}]}"
    )
    found = checked(capsys, "--config-body", body)
    assert found["limit.max_metadata_size"][0] == "no limit"
    assert found["room.enabled_codecs"][0] == "mime=video/vp8"
    assert found["rtc.turn_servers"][0].startswith("host=t.example port=443 protocol=tls")
    assert "unseen" not in str(found)
