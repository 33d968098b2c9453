"""All cases against lkactor and, in the same run, against any other server that speaks LiveKit's protocol.

    python bench/suite.py                                             # all cases, lkactor alone
    python bench/suite.py b1 b2 --runs 4 --plane kernel --plane python
    python bench/suite.py b1 --url ws://127.0.0.1:17880 --key devkey --secret SECRET --pid 4711
    python bench/suite.py --url ws://127.0.0.1:17880 --key devkey --secret SECRET \\
        --command 'taskset -c 0 livekit-server --config other.yaml' --json out.json --plots docs/plots

Every server is on the first core, this generator on the last one. lkactor is started anew for each measurement, the
other server, too, if `--command` says how; `--pid` names one that runs. Runs are in the order A B B A; figures are
medians, `ratio` is the first lkactor's by the other's. A row whose generator needed more than 85 % of its core is
marked: it says nothing about the server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from cases.api import create_and_delete, list_rooms, list_rooms_json, send_data, update_participant
from cases.data import data, data_large
from cases.forwarding import audio, livestream, livestream_fast, meeting, saturation
from cases.joins import joins
from cases.memory import memory
from load.plot import plot
from load.servers import CORES, Load, Server, server, wait_for
from load.window import Row

Measure = Callable[[Server, int, float], Awaitable[Row]]
Start = Callable[[], contextlib.AbstractContextManager[Server]]


@dataclass(frozen=True)
class Case:
    """`figures`: what is compared; the first one is plotted."""

    name: str
    measure: Measure
    sizes: tuple[int, ...]
    figures: tuple[str, ...]


PACKETS = ("cpu_us_per_packet", "latency_p50_ms", "latency_p99_ms")
REQUESTS = ("cpu_us_per_request", "latency_p99_ms")
CASES = (
    Case("b1-livestream-200", livestream, (1, 10, 50, 100, 200), PACKETS),
    Case("b1-livestream-1000", livestream_fast, (10, 30), PACKETS),
    Case("b1-saturation", saturation, (100,), ("packets_per_second", "cpu_us_per_packet", "latency_p99_ms")),
    Case("b2-audio", audio, (10, 50, 100), PACKETS),
    Case("b3-meeting", meeting, (4, 8, 12), PACKETS),
    Case("b4-joins", joins, (1, 8), ("cpu_ms_per_join", "to_first_media_ms", "joins_per_second")),
    Case("b5-data-1k", data, (1, 20), ("mb_per_second", "cpu_us_per_message")),
    Case("b5-data-15k", data_large, (1,), ("mb_per_second", "cpu_us_per_message")),
    Case("b6-create-delete", create_and_delete, (0,), REQUESTS),
    Case("b6-update-participant", update_participant, (1,), REQUESTS),
    Case("b6-send-data", send_data, (1,), REQUESTS),
    Case("b6-list-rooms", list_rooms, (0, 1000), REQUESTS),
    Case("b6-list-rooms-json", list_rooms_json, (1000,), REQUESTS),
    Case("b7-memory", memory, (50,), ("per_participant_kb", "after_start_mb", "idle_cpu_us_per_participant_second")),
)


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
    """Per server the medians of its runs."""
    names = list(servers)
    found: dict[str, list[Row]] = {name: [] for name in names}
    for run in range(runs):
        for name in names if run % 2 == 0 else reversed(names):
            with servers[name]() as host:
                found[name].append(trio.run(case.measure, host, size, seconds))
            row = found[name][-1]
            print(f"  {case.name} {size} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
    return {name: _median(rows) for name, rows in found.items()}


def _median(rows: list[Row]) -> Row:
    return {figure: statistics.median(row.get(figure, 0.0) for row in rows) for figure in rows[0]}


def report(case: Case, size: int, medians: dict[str, Row], compared: str) -> None:
    """One line per server, the ratio to the one it is compared with."""
    for name, row in medians.items():
        parts = [f"{case.name:22} {size:5} {name:16}"]
        for figure in case.figures:
            base = medians.get(compared, {}).get(figure)
            ratio = f" ({row[figure] / base:.2f})" if base and name != compared else ""
            parts.append(f"{figure} {row[figure]:g}{ratio}")
        if row.get("generator_core", 0.0) > Load.LIMIT:
            parts.append("THE GENERATOR WAS THE LIMIT")
        print("  ".join(parts), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="names or their beginnings: " + ", ".join(case.name for case in CASES))
    parser.add_argument("--sizes", help="N, instead of the case's own: 1,10")
    parser.add_argument("--plane", action="append", choices=("auto", "kernel", "python"), help="of lkactor; several")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--url", help="of the other server: ws://host:port")
    parser.add_argument("--key", default="devkey")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--pid", type=int, help="of the other server, which runs")
    parser.add_argument("--command", help="that starts the other server")
    parser.add_argument("--name", default="livekit-server")
    parser.add_argument("--json", type=Path, help="a file for all medians")
    parser.add_argument("--plots", type=Path, help="a folder for one SVG a case")
    options = parser.parse_args()
    if options.url and not (options.pid or options.command):
        parser.error("--url wants --pid or --command")
    return options


def main() -> None:
    options = parse()
    servers: dict[str, Start] = {}
    for plane in options.plane or ["auto"]:
        servers[f"lkactor {plane}"] = partial(server, plane=plane)
    if options.url:
        servers[options.name] = partial(other, options)
    results: dict[str, dict[str, dict[str, Row]]] = {}
    for case in CASES:
        if options.cases and not any(case.name.startswith(wanted) for wanted in options.cases):
            continue
        sizes = tuple(map(int, options.sizes.split(","))) if options.sizes else case.sizes
        for size in sizes:
            medians = run_case(case, size, servers, options.runs, options.seconds)
            results.setdefault(case.name, {})[str(size)] = medians
            report(case, size, medians, options.name)
        if options.plots and len(sizes) > 1:
            options.plots.mkdir(parents=True, exist_ok=True)
            figure = case.figures[0]
            points = {name: [(n, results[case.name][str(n)][name][figure]) for n in sizes] for name in servers}
            (options.plots / f"{case.name}.svg").write_text(plot(case.name, figure, points))
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
