"""What a client is told of relaying and codecs, and which ICE servers it gets (livekit-surface 2.10)."""

import base64
import hashlib
import hmac

import pytest
from livekit.protocol import models

from lkactor.config import Config
from lkactor.ice import host_candidates
from lkactor.signal.client_configuration import client_codecs, client_configuration, understands
from lkactor.signal.ice_servers import ice_servers, turn_over_tls
from lkactor.turn import Authenticator
from lkactor.turn.server import REALM

ENABLED, UNSET = models.ClientConfigSetting.ENABLED, models.ClientConfigSetting.UNSET
KEYS = "keys: {devkey: a-secret-for-tests-of-32-bytes-or-more}\n"
TURN = KEYS + "turn: {enabled: true, domain: turn.test, udp_port: 3478, tls_port: 5349, cert_file: a, key_file: b}\n"
CANDIDATES = host_candidates(["192.0.2.1"], 7882, 7881)


def test_nothing_to_say() -> None:
    assert client_configuration(models.ClientInfo(browser="chrome", os="linux"), force_relay=False) is None


def test_relay_is_forced_or_left_to_the_client() -> None:
    forced = client_configuration(models.ClientInfo(), force_relay=True)
    assert forced is not None and forced.force_relay == ENABLED
    safari = client_configuration(models.ClientInfo(browser="safari"), force_relay=False)
    assert safari is not None and safari.force_relay == UNSET


@pytest.mark.parametrize(
    ("client", "all_ways", "publish"),
    [
        (models.ClientInfo(browser="Safari", browser_version="17.4"), ["video/AV1"], []),
        (models.ClientInfo(browser="safari", browser_version="18.3.1"), ["video/AV1"], []),
        (models.ClientInfo(browser="safari", browser_version="18.4"), ["video/AV1"], ["video/VP9"]),
        (models.ClientInfo(browser="safari", browser_version="26.0"), ["video/AV1"], ["video/VP9"]),
        (models.ClientInfo(browser="safari", browser_version="x"), ["video/AV1"], []),
        (models.ClientInfo(browser="firefox", os="linux"), [], ["video/H264"]),
        (models.ClientInfo(browser="firefox mobile", os="android"), [], ["video/H264"]),
        (models.ClientInfo(device_model="Xiaomi 2201117TI", os="Android"), [], ["video/H264"]),
    ],
)
def test_codecs_that_a_platform_gets_wrong(client: models.ClientInfo, all_ways: list[str], publish: list[str]) -> None:
    configuration = client_configuration(client, force_relay=False)
    assert configuration is not None
    assert [codec.mime for codec in configuration.disabled_codecs.codecs] == all_ways
    assert [codec.mime for codec in configuration.disabled_codecs.publish] == publish


@pytest.mark.parametrize(
    ("client", "no_publish", "no_subscribe"),
    [
        (models.ClientInfo(browser="chrome", os="linux"), set(), set()),
        (models.ClientInfo(browser="firefox", os="linux"), {"video/H264"}, set()),
        (models.ClientInfo(browser="safari", browser_version="18.4"), {"video/AV1", "video/VP9"}, {"video/AV1"}),
    ],
)
def test_what_a_platform_gets_wrong_is_not_negotiated_with_it(
    client: models.ClientInfo, no_publish: set[str], no_subscribe: set[str]
) -> None:
    every = {"audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1"}
    codecs = client_codecs(client, [models.Codec(mime=mime) for mime in sorted(every)])
    assert {codec.mime for codec in codecs.publish} == every - no_publish
    assert {codec.mime for codec in codecs.subscribe} == every - no_subscribe


def test_built_in_turn() -> None:
    config = Config.load(TURN)
    (server,) = ice_servers(config, "PA_1", 1000.0, CANDIDATES)
    assert server.urls == [
        "turn:192.0.2.1:3478?transport=udp",
        "turns:turn.test:5349?transport=tcp",
        "turns:turn.test:443?transport=tcp",
    ]
    account = Authenticator(lambda: config.keys, lambda: 1000.0, REALM)(server.username, True)
    assert account is not None and account.user == "PA_1"
    (server,) = ice_servers(config, "PA_1", 1000.0, CANDIDATES, tls_only=True)
    assert all(url.startswith("turns:") for url in server.urls)


def test_tls_only_without_tls_is_what_there_is() -> None:
    config = Config.load(KEYS + "turn: {enabled: true, udp_port: 3478}")
    (server,) = ice_servers(config, "PA_1", 1000.0, CANDIDATES, tls_only=True)
    assert server.urls == ["turn:192.0.2.1:3478?transport=udp"]


EXTERNAL = """
rtc:
  stun_servers: ["stun.test:3478"]
  turn_servers:
    - {host: a.test, port: 443, protocol: tls, username: u, credential: c}
    - {host: b.test, port: 3478, protocol: udp, secret: shared, ttl: 60}
    - {host: c.test, port: 3479, protocol: tcp, username: u, credential: c}
"""


def test_external_servers() -> None:
    config = Config.load(KEYS + EXTERNAL)
    tls, udp, tcp, stun = ice_servers(config, "PA_1", 1000.0, CANDIDATES)
    assert list(tls.urls) == ["turns:a.test:443?transport=tcp"] and (tls.username, tls.credential) == ("u", "c")
    assert list(udp.urls) == ["turn:b.test:3478?transport=udp"] and udp.username == "1060:PA_1"
    assert udp.credential == base64.b64encode(hmac.digest(b"shared", b"1060:PA_1", hashlib.sha1)).decode()
    assert list(tcp.urls) == ["turn:c.test:3479?transport=tcp"]
    assert list(stun.urls) == ["stun:stun.test:3478"]


@pytest.mark.parametrize(("text", "there"), [(TURN, True), (KEYS + EXTERNAL, True), (KEYS, False)])
def test_whether_there_is_turn_over_tls(text: str, there: bool) -> None:
    assert turn_over_tls(Config.load(text)) is there


@pytest.mark.parametrize(
    ("sdk", "version", "protocol", "deaf"),
    [
        ("RUST", "", 9, {"request_response", "track_subscribed"}),
        ("RUST", "", 10, set()),
        ("JS", "1.6.2", 9, {"reconnect"}),
        ("JS", "", 16, {"reconnect"}),
        ("JS", "1.6.3", 9, set()),
        ("JS", "2.0", 9, set()),
        ("JS", "1.10.0", 9, set()),
        ("PYTHON", "", 0, set()),
        ("UNKNOWN", "", 0, set()),
    ],
)
def test_what_old_clients_are_not_told(sdk: str, version: str, protocol: int, deaf: set[str]) -> None:
    client = models.ClientInfo(sdk=sdk, version=version, protocol=protocol)
    kinds = ("join", "update", "reconnect", "request_response", "track_subscribed", "leave")
    assert {kind for kind in kinds if not understands(client, kind)} == deaf
