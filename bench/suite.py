"""All cases against lkactor and, in the same run, against any other server that speaks LiveKit's protocol.

    python bench/suite.py                                             # all cases, lkactor alone
    python bench/suite.py b1 b2 --runs 4 --plane kernel --plane python
    python bench/suite.py b1 --url ws://127.0.0.1:17880 --key devkey --secret SECRET --pid 4711
    python bench/suite.py --plane kernel --plane python --url ws://127.0.0.1:17880 --key devkey --secret SECRET \\
        --command 'taskset -c 0 livekit-server --config other.yaml' \\
        --json out.json --plots docs/plots --markdown docs/benchmarks.md

Every server is on the first core, this generator on the last one. lkactor is started anew for each measurement, the
other server, too, if `--command` says how; `--pid` names one that runs. Runs are in the order A B B A; figures are
medians, of the longest stalls the longest; the ratio in brackets is lkactor's by the other's. A row whose generator
needed more than 85 % of its core is marked: it says nothing about the server. Nor does one during which the machine
below this one took a good part of the server's core: it is taken again, and marked if it is no better then. `--json`
keeps what an earlier run has left there of other cases, so a long run can be done in slices. `--quick`: one run of
shorter windows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from cases.api import create_and_delete, list_rooms, list_rooms_json, send_data, update_participant
from cases.data import data, data_large
from cases.forwarding import (
    audio,
    livestream,
    livestream_fast,
    livestream_pictures,
    livestream_reports,
    meeting,
    meeting_browsers,
    meeting_of,
    meeting_pictures,
    saturation,
    talking,
)
from cases.janus import streaming
from cases.joins import joins
from cases.limit import ALL_C, ALL_PYTHON, broadcast, conference, segmented, sendmmsg
from cases.memory import memory
from cases.stall import INTERFERENCE_SINKS, pause, stall
from cases.stall import api as interference_api
from cases.stall import joins as interference_joins
from load.janus import Janus, janus
from load.peers import MEETING_PICTURES, MEETING_VIDEO, PICTURES, VIDEO, VIDEO_FAST
from load.plot import plot
from load.results import Results
from load.servers import CORES, MOST_STOLEN, Server, server, wait_for
from load.table import FLOOR, LEAST, replace, tables
from load.window import Row, marks

ATTEMPTS = 3
MOST_CROWDED = 0.25
"""Packets that left together with another one, as a share, unless the rate was to be found out."""
CALMER = 5.0
"""Seconds until a row is taken again: who disturbs is often gone then."""
ALOUD = {"generator": "THE GENERATOR WAS THE LIMIT", "machine": "THE MACHINE TOOK THE CORE AWAY"}
"""What `marks` say."""
Measure = Callable[[Server, int, float], Awaitable[Row]]
Start = Callable[[], contextlib.AbstractContextManager[Server]]


@dataclass(frozen=True)
class Case:
    """`figures`: what is compared; the first one is plotted. `planes`: the forwarding plane matters, measure each."""

    name: str
    measure: Measure
    sizes: tuple[int, ...]
    figures: tuple[str, ...]
    planes: bool = False
    alone: bool = False
    """Of lkactor only: others do not say."""
    floor: Callable[[str, int, float], Awaitable[Row]] | None = None
    """The same load through a program that forwards and does nothing else."""


PACKETS = ("cpu_us_per_packet", "latency_p50_ms", "latency_p99_ms")
STALL = ("longest_stall_ms", "longest_stall_cpu_ms", "longest_machine_stop_ms", "latency_p99_ms", "packets_per_second")
MOST = ("packets_per_second", "cpu_us_per_packet", "latency_p99_ms")
MEANWHILE = ("latency_p50_ms", "latency_p99_ms", "p99_by_alone", "calls_per_second", "joins_per_second")
EVENLY, FAST, IN_PICTURES = (partial(broadcast, stream) for stream in (VIDEO, VIDEO_FAST, PICTURES))
MEETING = partial(conference, partial(meeting_of, MEETING_VIDEO))
MEETING_IN_PICTURES = partial(conference, partial(meeting_of, MEETING_PICTURES))
FLOORS = {FLOOR: ALL_C, LEAST: ALL_PYTHON}
REQUESTS = ("cpu_us_per_request", "latency_p99_ms")
CASES = (
    Case("b1-livestream-200", livestream, (1, 10, 50, 100, 200), PACKETS, planes=True, floor=EVENLY),
    Case("b1-livestream-1000", livestream_fast, (10, 30), PACKETS, planes=True, floor=FAST),
    Case("b1-livestream-pictures", livestream_pictures, (1, 10, 50, 100, 200), PACKETS, planes=True, floor=IN_PICTURES),
    Case("b1-livestream-reports", livestream_reports, (10, 50, 100), PACKETS, planes=True),
    Case("b1-saturation", saturation, (100,), MOST, planes=True),
    Case("b2-audio", audio, (10, 50, 100), PACKETS, planes=True, floor=partial(conference, talking)),
    Case("b3-meeting", meeting, (4, 8, 12), PACKETS, planes=True, floor=MEETING),
    Case("b3-meeting-pictures", meeting_pictures, (4, 8, 12), PACKETS, planes=True, floor=MEETING_IN_PICTURES),
    Case("b3-meeting-browsers", meeting_browsers, (4, 8, 12), PACKETS, planes=True),
    Case("b4-joins", joins, (1, 8), ("cpu_ms_per_join", "to_first_media_ms", "joins_per_second")),
    Case("b5-data-1k", data, (1, 20), ("mb_per_second", "cpu_us_per_message")),
    Case("b5-data-15k", data_large, (1,), ("mb_per_second", "cpu_us_per_message")),
    Case("b6-create-delete", create_and_delete, (0,), REQUESTS),
    Case("b6-update-participant", update_participant, (1,), REQUESTS),
    Case("b6-send-data", send_data, (1,), REQUESTS),
    Case("b6-list-rooms", list_rooms, (0, 1000), REQUESTS),
    Case("b6-list-rooms-json", list_rooms_json, (1000,), REQUESTS),
    Case("b7-memory", memory, (50,), ("per_participant_kb", "after_start_mb", "idle_cpu_us_per_participant_second")),
    Case("b8-stall", stall, (50, 100), STALL, planes=True, alone=True),
    Case("b8-pause", pause, (12,), ("latency_p50_ms", "p50_by_before", "cpu_us_per_packet", "loss"), planes=True),
    Case("b8-interference-api", interference_api, (INTERFERENCE_SINKS,), MEANWHILE, planes=True),
    Case("b8-interference-joins", interference_joins, (INTERFERENCE_SINKS,), MEANWHILE, planes=True),
)


async def beside_janus(server: Server, n: int, seconds: float) -> Row:
    """B1 for each server as it can do it."""
    return await (streaming if isinstance(server, Janus) else livestream)(server, n, seconds)


JANUS = Case("b1-janus", beside_janus, (10, 50, 100), PACKETS)
"""Only on demand: `janus` must be installed."""
LIMIT, LIMIT_SIZES = "b1-limit", (100,)
LIMITS = {"all-C sendmmsg": sendmmsg, "all-C GSO": segmented}
"""These forward and do nothing else; no server takes part."""


@contextlib.contextmanager
def other(options: argparse.Namespace) -> Iterator[Server]:
    """The server that lkactor is compared with."""
    process = None
    if options.command:
        process = subprocess.Popen(shlex.split(options.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(options.url.replace("ws", "http", 1))
        found = Server(options.name, options.url, options.key, options.secret, process.pid if process else options.pid)
        found.pin()
        os.sched_setaffinity(0, {CORES[-1]})
        yield found
    finally:
        os.sched_setaffinity(0, CORES)
        if process is not None:
            process.kill()
            process.wait()


def run_case(case: Case, size: int, servers: dict[str, Start], runs: int, seconds: float) -> dict[str, Row]:
    """Per server the medians of its runs; a server whose runs all failed has none."""
    names = list(servers)
    found: dict[str, list[Row]] = {name: [] for name in names}
    for run in range(runs):
        for name in names if run % 2 == 0 else reversed(names):
            found[name] += attempt(f"{case.name} {size} {name}", partial(_measure, case, size, servers[name], seconds))
    return {name: _median(rows) for name, rows in found.items() if rows}


def _measure(case: Case, size: int, start: Start, seconds: float) -> Row:
    with start() as host:
        return trio.run(case.measure, host, size, seconds)


def attempt(what: str, measure: Callable[[], Row]) -> list[Row]:
    """The best row of ATTEMPTS, or none when all failed. The first one that nothing spoils is good enough."""
    rows: list[Row] = []
    for tried in range(ATTEMPTS):
        if tried:
            time.sleep(CALMER)
        try:
            rows.append(measure())
        except* (trio.TooSlowError, OSError, RuntimeError) as group:
            print(f"  {what}: failed, {group.exceptions[0]!r}", file=sys.stderr, flush=True)
        else:
            print(f"  {what}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
            if _spoilt(rows[-1]) <= 1:
                return rows[-1:]
    return sorted(rows, key=_spoilt)[:1]


def _spoilt(row: Row) -> float:
    """More than 1: packets did not leave in time, so it is not this load; or the machine gave the core to others."""
    crowded = 0.0 if "rate" in row else row.get("sent_in_bursts", 0.0)
    return max(crowded / MOST_CROWDED, row.get("server_core_stolen", 0.0) / MOST_STOLEN)


def run_floors(case: Case, size: int, runs: int, seconds: float) -> dict[str, Row]:
    """The same of what is no server."""
    found: dict[str, list[Row]] = {name: [] for name in FLOORS}
    if case.floor is not None:
        for _ in range(runs):
            for name, program in FLOORS.items():
                measure = partial(trio.run, case.floor, program, size, seconds)
                found[name] += attempt(f"{case.name} {size} {name}", measure)
    return {name: _median(rows) for name, rows in found.items() if rows}


def run_limits(size: int, runs: int, seconds: float) -> dict[str, Row]:
    """The same of what is no server."""
    found: dict[str, list[Row]] = {name: [] for name in LIMITS}
    for _ in range(runs):
        for name, measure in LIMITS.items():
            found[name] += attempt(f"{LIMIT} {size} {name}", partial(trio.run, measure, size, seconds))
    return {name: _median(rows) for name, rows in found.items() if rows}


def _median(rows: list[Row]) -> Row:
    return {
        figure: (max if figure.startswith("longest") else statistics.median)(row.get(figure, 0.0) for row in rows)
        for figure in rows[0]
    }


def report(name: str, size: int, figures: tuple[str, ...], medians: dict[str, Row], compared: str) -> None:
    """One line per server, the ratio to the one it is compared with."""
    for server_name, row in medians.items():
        parts = [f"{name:22} {size:5} {server_name:16}"]
        for figure in (figure for figure in figures if figure in row):
            base = medians.get(compared, {}).get(figure)
            ratio = f" ({row[figure] / base:.2f})" if base and server_name != compared else ""
            parts.append(f"{figure} {row[figure]:g}{ratio}")
        parts += [ALOUD[mark] for mark in marks(row)]
        print("  ".join(parts), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases",
        nargs="*",
        help="names or their beginnings: " + ", ".join([*(case.name for case in CASES), LIMIT, JANUS.name]),
    )
    parser.add_argument("--sizes", help="N, instead of the case's own: 1,10")
    parser.add_argument("--plane", action="append", choices=("auto", "kernel", "python"), help="of lkactor; several")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--nice", type=int, help="of the servers and of this generator: -19 where others work, too")
    parser.add_argument("--url", help="of the other server: ws://host:port")
    parser.add_argument("--key", default="devkey")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--pid", type=int, help="of the other server, which runs")
    parser.add_argument("--command", help="that starts the other server")
    parser.add_argument("--name", default="livekit-server")
    parser.add_argument("--quick", action="store_true", help="1 run of 3 s windows")
    parser.add_argument("--json", type=Path, help="a file for all medians; other cases that it has stay")
    parser.add_argument("--markdown", type=Path, help="a page that gets the tables, of all that --json has")
    parser.add_argument("--plots", type=Path, help="a folder for one SVG a case")
    options = parser.parse_args()
    if options.url and not (options.pid or options.command):
        parser.error("--url wants --pid or --command")
    if options.quick:
        options.runs, options.seconds = 1, 3.0
    return options


def prefer(nice: int) -> None:
    """Also of the session's group, which is what Linux weighs where sched_autogroup_enabled is on (sched(7))."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def wanted(name: str, options: argparse.Namespace) -> bool:
    return not options.cases or any(name.startswith(beginning) for beginning in options.cases)


def main() -> None:
    options = parse()
    # As an interrupt, which Trio takes well, so that no server stays behind. A shell's background jobs ignore those.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    if options.nice is not None:
        prefer(options.nice)
    ours: dict[str, Start] = {}
    for plane in options.plane or ["auto"]:
        ours[f"lkactor {plane}"] = partial(server, plane=plane)
    others: dict[str, Start] = {options.name: partial(other, options)} if options.url else {}
    results = Results.load(options.json)

    def done(name: str, size: int, figures: tuple[str, ...], medians: dict[str, Row]) -> None:
        results.add(name, size, medians, options.runs, options.seconds)
        report(name, size, figures, medians, options.name)
        if options.json:
            results.save(options.json)

    for case in CASES:
        if wanted(case.name, options):
            servers = (ours if case.planes else dict([next(iter(ours.items()))])) | ({} if case.alone else others)
            for size in map(int, options.sizes.split(",")) if options.sizes else case.sizes:
                medians = run_case(case, size, servers, options.runs, options.seconds)
                medians |= run_floors(case, size, options.runs, options.seconds)
                done(case.name, size, case.figures, medians)
    if JANUS.name in options.cases:
        servers = dict([next(iter(ours.items()))]) | others | {"janus": janus}
        for size in JANUS.sizes:
            done(JANUS.name, size, PACKETS, run_case(JANUS, size, servers, options.runs, options.seconds))
    if wanted(LIMIT, options):
        for size in LIMIT_SIZES:
            done(LIMIT, size, ("packets_per_second", "cpu_us_per_packet"), run_limits(size, 1, options.seconds))
    if options.plots:
        draw(options.plots, results)
    if options.markdown:
        replace(options.markdown, tables(results, options.name))


def draw(folder: Path, results: Results) -> None:
    """One SVG for each case that has several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        sizes = results.rows.get(case.name, {})
        if len(sizes) < 2:
            continue
        lines: dict[str, list[tuple[float, float]]] = {}
        for size in sorted(sizes, key=int):
            for name, row in sizes[size].items():
                if case.figures[0] in row:
                    lines.setdefault(name, []).append((int(size), row[case.figures[0]]))
        (folder / f"{case.name}.svg").write_text(plot(case.name, case.figures[0], lines))


if __name__ == "__main__":
    main()
