"""The compatibility matrix: its rows, its columns, and docs/compatibility.md between the two marks.

The rows are data here, so that a fast test can hold the committed page against them; what a row does is the function of
its name in tests/interop/test_compatibility.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
PASSES, FAILS, CANNOT, UNKNOWN = "passes", "**fails**", "n/a", "not run"

PYTHON, PAGE_SDK, NODE = "python", "chromium", "node"
SDKS = (PYTHON, PAGE_SDK, NODE)
GENERATIONS = ("one-connection", "two-connections")
Cell = tuple[str, str, str]
"""Row, SDK, generation."""


@dataclass(frozen=True, slots=True)
class Row:
    """`without` says, of each SDK that cannot take the role, why: its cells are n/a."""

    name: str
    title: str
    shown: str
    """What the other side must have seen."""
    without: Mapping[str, str] = field(default_factory=dict)


NO_MUTE = {NODE: "no method mutes a local track"}
ONLY_JS = dict.fromkeys((PYTHON, NODE), "its simulateScenario has no such kind")
OWN_CERTIFICATE = dict.fromkeys((PYTHON, NODE), "cannot be told to trust a test's certificate for TURN over TLS")
SIMULCAST = "the other publishes simulcast layers; the SDK gets"
BACK = "tones and data both ways afterwards,"
NEW_SID = " new participant sid"

ROWS = (
    Row("connect", "connect", "both see each other; the server holds one or two connections, as asked"),
    Row("audio", "publish and receive audio", "the tone of each is heard by the other"),
    Row("video", "publish and receive video", "the colours of each are seen by the other"),
    Row("data-reliable", "reliable data", "twenty packets in order with topic and kind, and an answer"),
    Row("data-lossy", "lossy data", "packets of that kind both ways"),
    Row("rpc", "RPC", "each calls the other and gets what the other made of the payload"),
    Row("text-stream", "text streams", "the same text of 40 kB both ways"),
    Row("byte-stream", "byte streams", "the same SHA-256 of 200 kB both ways"),
    Row("mutes", "mutes, unmutes", "the other is told, hears silence, then the tone again", NO_MUTE),
    Row("sees-mute", "sees a mute and an unmute", "the SDK is told of both, then hears the tone again"),
    Row("unpublish", "unpublishes, publishes again", "the other loses the track, then sees the colours of the new one"),
    Row("updates", "metadata, name, attributes", "each sees the other's new values"),
    Row("resume", "resume after signal loss", BACK + " same participant, nobody saw it leave"),
    Row("full-reconnect", "full reconnect", BACK + NEW_SID),
    Row("failed-resume", "resume that fails, then full reconnect", BACK + NEW_SID, ONLY_JS),
    Row("speaker", "SimulateScenario speaker_update", "both are told that it speaks, then that nobody does"),
    Row("node-failure", "SimulateScenario node_failure", BACK + NEW_SID),
    Row("migration", "SimulateScenario migration", BACK + NEW_SID),
    Row("server-leave", "SimulateScenario server_leave", "disconnected with SERVER_SHUTDOWN; the other sees it leave"),
    Row("force-tcp", "SimulateScenario switch_candidate_protocol TCP", BACK + " over TCP"),
    Row("force-tls", "SimulateScenario switch_candidate_protocol TLS", BACK + " by TURN over TLS", OWN_CERTIFICATE),
    Row("cut-on-resume", "SimulateScenario disconnect_signal_on_resume", BACK + " the resume was cut once"),
    Row(
        "cut-on-resume-no-messages",
        "SimulateScenario disconnect_signal_on_resume_no_messages",
        BACK + " a resume was refused",
        ONLY_JS,
    ),
    Row("leave-full-reconnect", "SimulateScenario leave_request_full_reconnect", BACK + NEW_SID, ONLY_JS),
    Row(
        "bandwidth",
        "SimulateScenario subscriber_bandwidth",
        SIMULCAST + " a lower one, then the upper again",
        ONLY_JS,
    ),
)
BY_NAME = {row.name: row for row in ROWS}


def cells() -> list[Cell]:
    """Those that are run, a column at a time."""
    return [
        (row.name, sdk, generation)
        for sdk in SDKS
        for generation in GENERATIONS
        for row in ROWS
        if sdk not in row.without
    ]


def _locked(directory: str, package: str) -> str:
    """The version of an npm package that the tests' lock file names."""
    lock = json.loads((ROOT / "tests" / "interop" / directory / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


def sdk_titles() -> dict[str, str]:
    return {
        PYTHON: f"Python `livekit` {version('livekit')}",
        PAGE_SDK: f"`livekit-client` {_locked('web', 'livekit-client')} in Chromium",
        NODE: f"Node `@livekit/rtc-node` {_locked('node', '@livekit/rtc-node')}",
    }


def table(results: Mapping[Cell, str]) -> str:
    """The part of the page between the marks. `results` holds PASSES or FAILS of those of `cells()` that were run."""
    titles, reasons = sdk_titles(), _reasons()
    head = [f"{titles[sdk]}, {path}" for sdk in SDKS for path in ("`/rtc/v1`", "`/rtc`")]
    lines = ["| scenario | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for row in ROWS:
        shown = [
            f"{CANNOT} ({reasons.index(row.without[sdk]) + 1})"
            if sdk in row.without
            else results.get((row.name, sdk, which), UNKNOWN)
            for sdk in SDKS
            for which in GENERATIONS
        ]
        lines.append("| " + " | ".join([row.title, *shown]) + " |")
    notes = [f"{number}. n/a: {reason}." for number, reason in enumerate(reasons, 1)]
    meaning = ["| scenario | passed means |", "|---|---|", *(f"| {row.title} | {row.shown} |" for row in ROWS)]
    return "\n".join([*lines, "", *notes, "", *meaning])


def _reasons() -> list[str]:
    return list(dict.fromkeys(reason for row in ROWS for reason in row.without.values()))


def committed() -> str:
    """What the page has between the marks."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def write(results: Mapping[Cell, str]) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")
