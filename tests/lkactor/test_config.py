"""The configuration: a LiveKit YAML works as it is, and what is wrong is said with line, key and remedy."""

import argparse
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lkactor.addressing import tcp_port, udp_ports
from lkactor.cli.serve import load
from lkactor.config import Config, ConfigError, environment_overrides, parse_keys
from lkactor.config_schema import EXTRA, WITHOUT_EFFECT, Listed, fields_of, schema_of

FULL = """
port: 7880
bind_addresses: ["0.0.0.0", "::"]
region: us-west-2
redis:
  address: redis.host:6379
  db: 0
  sentinel_addresses: [a:1, b:2]
  tls: {enabled: true, insecure: false, server_name: x}
rtc:
  port_range_start: 50000
  port_range_end: 60000
  tcp_port: 7881
  use_external_ip: true
  node_ip: 192.0.2.1,2001:db8::1
  udp_port: 7882-7892
  use_ice_lite: true
  stun_servers: [server1]
  turn_servers:
    - host: myhost.com
      port: 443
      protocol: tls
      secret: ""
      secret_file: /var/lib/coturn/secret
      ttl: 14400
      username: ""
      credential: ""
  congestion_control:
    enabled: true
    allow_pause: true
    send_side_bwe: {congestion_detector: {probe_signal: {weighted_loss: {base_pps: 30}}}}
    remote_bwe: {channel_observer_probe: {nack: {ratio_threshold: 0.04}}}
  allow_tcp_fallback: true
  packet_buffer_size_video: 400
  pli_throttle: {low_quality: 500ms, mid_quality: 1s, high_quality: 1m30.5s}
  enable_loopback_candidate: true
  interfaces: {includes: [en0], excludes: [docker0]}
  ips: {includes: [10.0.0.0/16], excludes: [192.168.1.0/24]}
  batch_io: {batch_size: 128, max_flush_interval: 2ms}
  strict_acks: true
prometheus_port: 6789
debug_handler: {port: 7070}
keys:
  key1: secret1
  key2: 0123
logging: {level: info, pion_level: error, json: false, sample: false, component_levels: {pion: debug}}
room:
  auto_create: false
  empty_timeout: 300
  departure_timeout: 20
  max_participants: 7
  enabled_codecs:
    - mime: audio/opus
    - {mime: video/vp8, fmtp_line: x=1}
  enable_remote_unmute: true
  playout_delay: {enabled: true, min: 100, max: 2000}
  sync_streams: true
  room_configurations:
    big: {name: "5", max_participants: 500, sync_streams: true, metadata: no-number}
webhook:
  api_key: key1
  urls: [https://your-host.com/handler]
  resource_url_notifier: {max_age: 30s, max_depth: 100}
  url_notifier: {num_workers: 10, queue_size: 100}
  filter_params: {include_events: [room_started], exclude_events: [room_finished]}
signal_relay: {retry_timeout: 30s, min_retry_interval: 500ms, max_retry_interval: 5s, stream_buffer_size: 1000}
psrpc: {max_attempts: 3, timeout: 500ms, backoff: 500ms, buffer_size: 1000}
audio: {active_level: 30, min_percentile: 40, update_interval: 500, smooth_intervals: 4, active_red_encoding: true}
video:
  dynacast_pause_delay: 5s
  stream_tracker_manager: {video: {packet_tracker: {0: {samples_required: 1, cycle_duration: 500ms}}}}
turn:
  enabled: true
  udp_port: 3478
  tls_port: 5349
  relay_range_start: 1024
  relay_range_end: 30000
  external_tls: true
  domain: turn.myhost.com
  ttl_seconds: 300
  allow_restricted_peer_cidrs: [10.0.0.0/8]
  deny_peer_cidrs: [192.168.0.0/16, "::1"]
ingress: {rtmp_base_url: "rtmp://my.domain.com/live", whip_base_url: "http://my.domain.com/whip"}
node_selector: {kind: sysload, sysload_limit: 0.7, regions: [{name: us-west-2, lat: 44.1, lon: -123.0}]}
limit: {num_tracks: -1, bytes_per_sec: 1_000_000_000, subscription_limit_video: 0, max_metadata_size: 0}
agents: {target_load: 0.5, enable_user_data_recording: true}
node_stats: {stats_rate_measurement_intervals: [10s]}
gst_signalling: {port: 8443, cert: c.pem, key: k.pem, keepalive: 10s}
events: {directory: /tmp/e}
"""


def refusal(text, **options):
    with pytest.raises(ConfigError) as refused:
        Config.load(text, **options)
    return str(refused.value)


# -- a whole one


def test_a_full_configuration():
    config = Config.load(FULL)
    assert (config.port, config.bind_addresses, config.region) == (7880, ("0.0.0.0", "::"), "us-west-2")
    assert config.keys == {"key1": "secret1", "key2": "0123"}
    rtc = config.rtc
    assert (rtc.udp_port, rtc.udp_port_end, rtc.tcp_port) == (7882, 7892, 7881)
    assert rtc.node_ip == "192.0.2.1,2001:db8::1"
    assert (rtc.pli_throttle.low_quality, rtc.pli_throttle.high_quality) == (0.5, 90.5)
    (server,) = rtc.turn_servers
    assert (server.host, server.port, server.secret_file) == ("myhost.com", 443, "/var/lib/coturn/secret")
    assert (rtc.interfaces.includes, rtc.ips.excludes) == (("en0",), ("192.168.1.0/24",))
    assert rtc.congestion_control.allow_pause
    assert [codec.mime for codec in config.room.enabled_codecs] == ["audio/opus", "video/vp8"]
    assert config.room.enabled_codecs[1].fmtp_line == "x=1"
    preset = config.room.room_configurations["big"]
    assert preset == {"name": "5", "max_participants": 500, "sync_streams": True, "metadata": "no-number"}
    assert (config.room.playout_delay.min, config.room.sync_streams, config.room.auto_create) == (100, True, False)
    assert config.webhook.urls == ("https://your-host.com/handler",)
    assert config.webhook.filter_params.include_events == ("room_started",)
    assert (config.webhook.resource_url_notifier.max_age, config.webhook.resource_url_notifier.max_depth) == (30, 100)
    assert config.prometheus.port == 6789
    assert config.signal_relay.retry_timeout == 30.0
    turn = config.turn
    assert (turn.udp_port, turn.tls_port, turn.relay_range_start, turn.external_tls) == (3478, 5349, 1024, True)
    assert turn.deny_peer_cidrs == ("192.168.0.0/16", "::1")
    assert (config.limit.num_tracks, config.limit.bytes_per_sec, config.limit.max_metadata_size) == (-1, 10**9, 2**53)
    assert config.agents.target_load == 0.5
    gst = config.gst_signalling
    assert (gst.port, gst.cert, gst.key, gst.keepalive) == (8443, "c.pem", "k.pem", 10.0)
    assert config.events.directory == "/tmp/e"
    assert config.audio.update_interval == 500


def test_defaults_are_the_references():
    config = Config.load("")
    assert config == Config()
    assert (config.port, config.rtc.tcp_port) == (7880, 7881)
    assert (config.turn.enabled, config.turn.bind_addresses, config.turn.ttl_seconds) == (False, ("0.0.0.0",), 300)
    assert (config.turn.relay_range_start, config.turn.relay_range_end) == (30000, 40000)
    assert (config.webhook.resource_url_notifier.max_age, config.webhook.resource_url_notifier.max_depth) == (30, 200)
    assert config.rtc.allow_tcp_fallback and config.rtc.congestion_control.enabled
    assert config.signal_relay.connect_attempts == 3
    assert (config.gst_signalling.port, config.prometheus.port, config.events.directory) == (None, 0, "")
    assert (config.room.create_room_timeout, config.room.update_batch_target_size) == (10.0, 131072)


@pytest.mark.parametrize(
    ("text", "dev", "first", "last"),
    [
        ("", False, 50000, 60000),
        ("", True, 7882, 7882),
        ("rtc: {tcp_port: 1}", False, 50000, 60000),
        ("rtc: {udp_port: 7882}", False, 7882, 7882),
        ("rtc: {udp_port: 7882-7892}", True, 7882, 7892),
        ("rtc: {udp_port: 1, port_range_start: 10, port_range_end: 20}", False, 10, 20),
        ("rtc: {port_range_start: 10, port_range_end: 20}", True, 10, 20),
        ("rtc: {udp_port: 1, port_range_start: 0, port_range_end: 0}", False, 1, 1),
        ("rtc: {port_range_start: 0}", False, 50000, 60000),
        ("rtc: {udp_port: 0}", False, 0, 0),
    ],
)
def test_media_ports_are_the_references(text, dev, first, last):
    ports = udp_ports(Config.load(text, dev=dev).rtc, 1)
    assert (ports.first, ports.last) == (first, last)


@pytest.mark.parametrize(
    ("text", "port"),
    [("", 7881), ("rtc: {tcp_port: 5}", 5), ("rtc: {tcp_port: 0}", None), ("rtc: {tcp_port: 0, udp_port: 1}", None),
     ("rtc: {tcp_port: 0, port_range_start: 1, port_range_end: 2}", None), ("rtc: {tcp_port: 0, udp_port: 0}", 0)],
)  # fmt: skip
def test_no_tcp_port_is_no_tcp(text, port):
    assert tcp_port(Config.load(text).rtc) == port


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "null\n", "---\n", "rtc:\nroom: ~\nkeys:\n"])
def test_nothing_is_the_default(text):
    assert Config.load(text) == Config()


def test_secrets_are_in_no_repr():
    text = FULL.replace('secret: ""', "secret: hunter2").replace("key1: secret1", "key1: hunter2")
    config = Config.load(text + "prometheus: {username: a, password: hunter2}\n")
    assert "hunter2" not in repr(config)


# -- keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 1", "line 1: unknown key prot; did you mean port?"),
        ("rtc:\n  udp_prt: 1", "line 2: unknown key rtc.udp_prt; did you mean rtc.udp_port?"),
        (
            "rtc:\n  turn_servers:\n    - host: a\n      prt: 1",
            "line 4: unknown key rtc.turn_servers[0].prt; did you mean rtc.turn_servers[0].port?",
        ),
        (
            "rtc:\n  congestion_control:\n    enabeld: true",
            "line 3: unknown key rtc.congestion_control.enabeld; did you mean rtc.congestion_control.enabled?",
        ),
        (
            "rtc: {congestion_control: {remote_bwe: {channel_observer_probe: {nak: {}}}}}",
            "line 1: unknown key rtc.congestion_control.remote_bwe.channel_observer_probe.nak; "
            "did you mean rtc.congestion_control.remote_bwe.channel_observer_probe.nack?",
        ),
        (
            "room:\n  enabled_codecs:\n  - mime: a\n  - mine: b",
            "line 4: unknown key room.enabled_codecs[1].mine; did you mean room.enabled_codecs[1].mime?",
        ),
        (
            "node_selector: {regions: [{name: a, latt: 1}]}",
            "line 1: unknown key node_selector.regions[0].latt; did you mean node_selector.regions[0].lat?",
        ),
        ("redis: {tls: {enable: true}}", "line 1: unknown key redis.tls.enable; did you mean redis.tls.enabled?"),
        ("inert: [x]", "line 1: unknown key inert"),
        ("rtc: {udp_port_end: 3}", "line 1: unknown key rtc.udp_port_end; did you mean rtc.udp_port?"),
        ("webhook: {filter_params: {include: []}}", "line 1: unknown key webhook.filter_params.include"),
        ("port: 1\nregion: a\nport: 2", "line 3: port is there twice"),
        ("rtc: {udp_port: 1, udp_port: 1}", "line 1: rtc.udp_port is there twice"),
        ("keys:\n  a: b\n  a: c", "line 3: keys.a is there twice"),
        ("rtc:\n  turn_servers:\n  - {host: a, port: 1, host: b}", "line 3: rtc.turn_servers[0].host is there twice"),
    ],
)
def test_unknown_and_repeated_keys(text, said):
    assert refusal(text).startswith(said)


def test_merge_keys_and_anchors():
    config = Config.load(
        "room: &r {empty_timeout: 5, max_participants: 2}\nrtc:\n  turn_servers:\n  - &a {host: a, port: 1}\n"
        "  - {<<: *a, port: 2}\n"
    )
    assert [(server.host, server.port) for server in config.rtc.turn_servers] == [("a", 1), ("a", 2)]
    assert "unknown key rtc.empty_timeout" in refusal("room: &r {empty_timeout: 5}\nrtc: {<<: *r}\n")
    assert "takes a mapping" in refusal("rtc: {<<: 5}\n")


@pytest.mark.parametrize("text", ["sip: &a {b: *a}", "keys: &a {b: *a}", "bind_addresses: &a [*a]", "rtc: &a {<<: *a}"])
def test_what_holds_itself(text):
    assert isinstance(refusal(text), str)


# -- types and ranges


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: 70000", "line 1: port: 70000 is not within 0 to 65535"),
        ("port: -1", "line 1: port: -1 is not within 0 to 65535"),
        ("rtc:\n  tcp_port: 65536", "line 2: rtc.tcp_port: 65536 is not within"),
        ("rtc: {turn_servers: [{host: a, port: 0}]}", "line 1: rtc.turn_servers[0].port: 0 is not within 1 to 65535"),
        ("rtc: {turn_servers: [{host: a}]}", "line 1: rtc.turn_servers[0]: port is missing"),
        (
            "rtc: {turn_servers: [{host: a, port: 1, protocol: sctp}]}",
            "line 1: rtc.turn_servers[0].protocol: expected one of udp, tcp, tls",
        ),
        ("rtc: {turn_servers: {host: a}}", "line 1: rtc.turn_servers.host: expected a mapping"),
        ("port: 78.5", "line 1: port: expected a whole number"),
        ("port: many", "line 1: port: expected a whole number"),
        ("port: [1]", "line 1: port: expected a whole number"),
        ("room: 5", "line 1: room: expected a mapping"),
        ("redis: 5", "line 1: redis: expected a mapping"),
        ("rtc: [1]", "line 1: rtc: expected a mapping"),
        ("room: {auto_create: maybe}", "line 1: room.auto_create: expected true or false"),
        ("video: {dynacast_pause_delay: soon}", "line 1: video.dynacast_pause_delay: expected a duration"),
        ("video: {dynacast_pause_delay: -5s}", "line 1: video.dynacast_pause_delay: expected a duration"),
        ("signal_relay: {retry_timeout: .inf}", "line 1: signal_relay.retry_timeout: expected a duration"),
        ("bind_addresses: 127.0.0.1", "line 1: bind_addresses: expected a list"),
        ("bind_addresses: [a, ~, b]", "line 1: bind_addresses: an item"),
        ("region: {a: b}", "line 1: region: expected text"),
        ("keys: abc", "line 1: keys: expected `key: secret` lines"),
        ("audio: {active_level: 128}", "line 1: audio.active_level: 128"),
        ("audio: {update_interval: 0}", "line 1: audio.update_interval: 0"),
        ("turn: {ttl_seconds: 86401}", "line 1: turn.ttl_seconds: 86401"),
        ("turn: {deny_peer_cidrs: [10.0.0.0/33]}", "line 1: turn.deny_peer_cidrs[0]: expected a network"),
        ("rtc: {ips: {includes: [x]}}", "line 1: rtc.ips.includes[0]: expected a network"),
        ("logging: {level: loud}", "line 1: logging.level: expected one of debug, info, warn, error"),
        ("rtc: {udp_port: 7892-7882}", "line 1: rtc.udp_port: a range goes from"),
        ("rtc: {udp_port: 0-5}", "line 1: rtc.udp_port: a range goes from"),
        ("rtc: {udp_port: 65000-70000}", "line 1: rtc.udp_port: a range goes from"),
        ("rtc: {udp_port: a-b}", "line 1: rtc.udp_port: expected a whole number"),
        ("rtc: {udp_port: 1-2-3}", "line 1: rtc.udp_port: expected a whole number"),
        ("rtc: {node_ip: localhost}", "line 1: rtc.node_ip: expected IP addresses"),
        ("rtc: {node_ip: '192.0.2.1,192.0.2.2'}", "line 1: rtc.node_ip: expected at most one"),
        ("rtc: {node_ip: {v4: 192.0.2.1}}", "line 1: rtc.node_ip: unknown key v4"),
        ("rtc: {port_range_start: 9, port_range_end: 8}", "line 1: rtc.port_range_start: the range ends"),
        ("prometheus: {username: a}", "line 1: prometheus: username and password go together"),
        ("turn: {enabled: true}", "line 1: turn: enabled needs udp_port or tls_port"),
        ("turn: {enabled: true, tls_port: 5349}", "line 1: turn: tls_port needs the domain"),
        ("turn: {enabled: true, tls_port: 5349, domain: a.b}", "line 1: turn: tls_port needs cert_file"),
        ("turn: {relay_range_start: 9, relay_range_end: 8}", "line 1: turn.relay_range_start: the range ends"),
        ("gst_signalling: {cert: a}", "line 1: gst_signalling: cert and key go together"),
        ("webhook: {urls: [http://a]}", "webhook.api_key: api_key is required"),
        ("webhook:\n  api_key: b\n  urls: [http://a]\nkeys: {a: s}", "line 2: webhook.api_key: api_key is required"),
    ],
)
def test_values_are_checked(text, said):
    assert refusal(text).startswith(said)


@pytest.mark.parametrize(
    ("text", "value"), [("5349", 5349), ("0x10", 16), ("0o17", 15), ("1_000", 1000), ("1e3", 1000), ('"80"', 80)]
)
def test_whole_numbers(text, value):
    assert Config.load(f"port: {text}").port == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("2", 2), ("0", 0), ("100us", 1e-4), ("0.5", 0.5)],
)
def test_durations(text, seconds):
    assert Config.load(f"video: {{dynacast_pause_delay: {text}}}").video.dynacast_pause_delay == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("yes", True), ("on", True), ("off", False), ("no", False), ("FALSE", False)],
)
def test_booleans(text, value):
    assert Config.load(f"room: {{auto_create: {text}}}").room.auto_create is value


def test_text_that_looks_like_something_else():
    assert Config.load("region: no").region == "no"
    assert Config.load("region: 2026-01-01").region == "2026-01-01"
    assert Config.load("region: 1:30").region == "1:30"
    assert Config.load('region: ""').region == ""


def test_node_ip_in_all_its_forms():
    assert Config.load("rtc: {node_ip: {ipv4: 192.0.2.1, ipv6: '2001:DB8::1'}}").rtc.node_ip == "192.0.2.1,2001:db8::1"
    assert Config.load("rtc: {node_ip: {ipv6: '2001:db8::1'}}").rtc.node_ip == "2001:db8::1"
    assert Config.load("rtc: {node_ip: '2001:db8::1, 192.0.2.1'}").rtc.node_ip == "2001:db8::1,192.0.2.1"
    assert Config.load("rtc: {node_ip: }").rtc.node_ip == ""


def test_old_names():
    config = Config.load("room: {max_metadata_size: 7, max_room_name_length: 0}\nlog_level: warn\nprometheus_port: 5\n")
    assert (config.limit.max_metadata_size, config.limit.max_room_name_length) == (7, 256)
    assert (config.logging.level, config.prometheus.port) == ("warn", 5)
    assert "room.max_metadata_size" in refusal("room: {max_metadata_size: x}")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
def test_any_text_is_a_config_or_a_config_error(text):
    try:
        Config.load(text)
    except ConfigError:
        pass


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(fields_of(Config))), st.text("0123456789-.:,[]{}truefalsn \"'", max_size=12))
def test_any_value_is_a_config_or_a_config_error(path, value):
    *parents, leaf = path.split(".")
    text = "".join(f"{'  ' * n}{name}:\n" for n, name in enumerate(parents)) + f"{'  ' * len(parents)}{leaf}: {value}\n"
    for attempt in (lambda: Config.load(text), lambda: Config.load(overrides={path: value})):
        try:
            attempt()
        except ConfigError:
            pass


# -- flags, environment, files


def test_overrides_are_text_or_not():
    config = Config.load(
        "port: 1",
        overrides={
            "port": "7",
            "rtc.udp_port": "7000-7010",
            "rtc.tcp_port": 0,
            "bind_addresses": "127.0.0.1, ::1",
            "room.auto_create": "false",
            "video.dynacast_pause_delay": "1s",
            "webhook": {"filter_params": {"include_events": ["room_started"]}},
        },
    )
    assert (config.port, config.rtc.udp_port, config.rtc.udp_port_end, config.rtc.tcp_port) == (7, 7000, 7010, 0)
    assert config.bind_addresses == ("127.0.0.1", "::1")
    assert (config.room.auto_create, config.video.dynacast_pause_delay) == (False, 1.0)
    assert config.webhook.filter_params.include_events == ("room_started",)


def test_overrides_are_checked_like_the_file():
    assert refusal("", overrides={"rtc.udp_prt": 1}) == "unknown key rtc.udp_prt; did you mean rtc.udp_port?"
    assert refusal("", overrides={"webhook": {"url": []}}).startswith("unknown key webhook.url; did you mean")
    assert refusal("", overrides={"port.x": 1}) == "unknown key port.x"
    assert refusal("port: 1\n", overrides={"port": "70000"}) == "port: 70000 is not within 0 to 65535"


def test_the_environment():
    environ = {
        "LIVEKIT_RTC_TCP_PORT": "1",
        "LIVEKIT_TURN_CERT": "c",
        "LIVEKIT_TURN_RELAY_RANGE_START": "3",
        "LIVEKIT_BIND_ADDRESSES": "127.0.0.1",
        "LIVEKIT_KEY_FILE": "k",
        "LIVEKIT_REGION": "",
        "LIVEKIT_NOTHING": "x",
        "REDIS_HOST": "h",
        "NODE_IP": "192.0.2.1",
        "UDP_PORT": "5-6",
        "HOME": "/",
    }
    overrides = environment_overrides(environ)
    assert overrides == {
        "rtc.tcp_port": "1",
        "turn.cert_file": "c",
        "turn.relay_range_start": "3",
        "bind_addresses": "127.0.0.1",
        "key_file": "k",
        "redis.address": "h",
        "rtc.node_ip": "192.0.2.1",
        "rtc.udp_port": "5-6",
    }
    config = Config.load(overrides={**overrides, "turn.relay_range_end": "9"})
    assert (config.turn.relay_range_start, config.rtc.udp_port_end) == (3, 6)
    assert "redis.address" in config.inert_keys()


def test_dev_fills_in():
    config = Config.load(dev=True)
    assert config.development
    assert config.keys == {"devkey": "secret"}
    assert (config.turn.relay_range_start, config.turn.relay_range_end) == (30000, 30002)
    mine = Config.load(
        "keys: {a: b}\nbind_addresses: [192.0.2.1]\nturn: {relay_range_start: 5, relay_range_end: 6}", dev=True
    )
    assert (mine.keys, mine.bind_addresses) == ({"a": "b"}, ("192.0.2.1",))
    assert mine.turn.relay_range_end == 6
    assert Config.load("key_file: x", dev=True).keys == {}


FLAGS = {
    "config_body": "",
    "config": None,
    "keys": "",
    "key_file": None,
    "bind": None,
    "port": None,
    "udp_port": None,
    "node_ip": None,
    "dev": False,
}


def served(environ=None, **flags):
    return load(argparse.Namespace(**(FLAGS | flags)), environ or {})


def test_flags_win_over_environment_over_file():
    text = "keys: {a: b}\nport: 1\nrtc: {udp_port: 1}\nregion: file"
    environ = {"LIVEKIT_CONFIG": text, "LIVEKIT_PORT": "2", "UDP_PORT": "2-3", "LIVEKIT_KEYS": "e: f"}
    config = served({"LIVEKIT_CONFIG": text})
    assert (config.port, config.rtc.udp_port, config.region, config.keys) == (1, 1, "file", {"a": "b"})
    config = served(environ)
    assert (config.port, config.rtc.udp_port_end, config.keys) == (2, 3, {"e": "f"})
    config = served(environ, port=3, udp_port="4-5", keys="g: h", bind=["127.0.0.1"], node_ip="192.0.2.1")
    assert (config.port, config.rtc.udp_port, config.rtc.udp_port_end) == (3, 4, 5)
    assert (config.keys, config.bind_addresses, config.rtc.node_ip) == ({"g": "h"}, ("127.0.0.1",), "192.0.2.1")
    assert served(environ, config_body="region: flag").region == "flag"


def test_a_key_file_wins_wherever_it_is_named(tmp_path):
    path = tmp_path / "keys"
    path.write_text("a: b\n")
    path.chmod(0o600)
    for config in (
        served(config_body=f"key_file: {path}\nkeys: {{c: d}}\nwebhook: {{urls: [http://x], api_key: a}}"),
        served({"LIVEKIT_KEY_FILE": str(path), "LIVEKIT_KEYS": "c: d"}),
        served(key_file=str(path)),
        served(key_file=str(path), dev=True),
    ):
        assert config.keys == {"a": "b"}
    with pytest.raises(ConfigError, match="api_key is required"):
        served(config_body=f"key_file: {path}\nwebhook: {{urls: [http://x], api_key: c}}")
    path.chmod(0o604)
    with pytest.raises(ConfigError, match=re.escape(f"chmod o-rwx {path}")):
        served(key_file=os.fspath(path))


def test_no_keys_no_server():
    with pytest.raises(ConfigError, match="no API keys"):
        served()


@pytest.mark.parametrize("text", ["", "a", "a:b", "- a", "a: b\na: c", "a:\n  b: c", "{", ": x"])
def test_keys_that_are_none(text):
    if text == "":
        assert parse_keys(text) == {}
    else:
        with pytest.raises(ConfigError):
            parse_keys(text)


def test_several_keys():
    assert parse_keys("a: b\n'c': \"d\"\n") == {"a": "b", "c": "d"}


# -- what does nothing yet


def test_keys_without_effect_are_named():
    text = "redis: {address: x}\nport: 1\nrtc: {udp_port: 1-2, strict_acks: true, tcp_port: 2}\nsip: {}\nlogging:\n"
    assert Config.load(text).inert_keys() == ["redis.address", "rtc.strict_acks"]


def test_the_list_of_what_has_no_effect_names_real_keys():
    def names(node, prefix=""):
        for name, below in node.items():
            yield prefix + name
            if isinstance(below, dict):
                yield from names(below, f"{prefix}{name}.")

    known = set(names(schema_of(Config, EXTRA)))
    assert set(WITHOUT_EFFECT) <= known
    assert isinstance(schema_of(Config, EXTRA)["rtc"]["turn_servers"], Listed)
