"""`lkactor doctor` against broken set-ups: it names the hop."""

import json
import socket
from pathlib import Path

import pytest
from support.certificates import certificate, free_port
from support.interop import MARKS

from lkactor.cli.common import Server
from lkactor.cli.doctor import Check, examine
from lkactor.testing import LkServer

pytestmark = MARKS


def bad(checks: list[Check]) -> list[str]:
    assert all(check.fix for check in checks if not check.ok)
    return [check.hop for check in checks if not check.ok]


def visit(server: LkServer, *, secret: str = "", ca: str | None = None) -> list[Check]:
    return examine(Server(server.url, server.api_key, secret or server.api_secret), ca=ca).checks


def test_all_is_well(lk_server: LkServer) -> None:
    checks = visit(lk_server)
    assert bad(checks) == []
    assert {"http", "clock", "keys", "websocket", "udp media", "tcp media"} <= {check.hop for check in checks}


def test_wrong_secret(lk_server: LkServer) -> None:
    assert bad(visit(lk_server, secret="another-secret-of-32-bytes-or-more!")) == ["keys"]


def test_no_server() -> None:
    assert bad(examine(Server(f"ws://127.0.0.1:{free_port()}", "k", "s" * 32)).checks) == ["http"]


def test_room_missing() -> None:
    with LkServer("room: {auto_create: false}") as server:
        assert bad(visit(server)) == ["room"]


def test_wrong_node_ip() -> None:
    with LkServer("rtc: {node_ip: 127.77.0.1, udp_port: 0, tcp_port: 0}") as server:
        assert bad(visit(server)) == ["udp media", "tcp media"]


@pytest.mark.parametrize(
    ("name", "allow", "trusted", "expected"),
    [
        ("localhost", ["127.0.0.0/8"], True, set()),
        ("localhost", ["127.0.0.0/8"], False, {"turn tls"}),
        ("other.example", ["127.0.0.0/8"], True, {"turn tls"}),
        ("localhost", [], True, {"turn", "turn tls"}),
    ],
    ids=["fine", "authority", "name", "peer"],
)
def test_turn(tmp_path: Path, name: str, allow: list[str], trusted: bool, expected: set[str]) -> None:
    cert, key = certificate(tmp_path, name)
    tls = free_port()
    turn = {
        "enabled": True, "udp_port": free_port(socket.SOCK_DGRAM), "tls_port": tls, "domain": "localhost",
        "cert_file": str(cert), "key_file": str(key), "bind_addresses": ["127.0.0.1"],
        "allow_restricted_peer_cidrs": allow,
    }  # fmt: skip
    with LkServer(json.dumps({"turn": turn})) as server:
        checks = visit(server, ca=str(cert) if trusted else None)
    assert set(bad(checks)) == expected
