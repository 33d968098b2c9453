"""The tables of docs/benchmarks.md, from results and from nothing else.

What is asked (issue 5) is here as data: ratios to the other server, or figures that stand alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from load.results import Results
from load.window import Row, marks

BEGIN, END = "<!-- begin: written by bench/suite.py --markdown -->", "<!-- end -->"
KERNEL, PYTHON = "lkactor kernel", "lkactor python"
FLOOR, LEAST = "all-C floor", "all-Python floor"
"""`limit/limit.c` and `limit/least.py` under the load of a case."""
MISSED = "**missed**"
PACKET, P50, P99 = "cpu_us_per_packet", "latency_p50_ms", "latency_p99_ms"


@dataclass(frozen=True, slots=True)
class Aim:
    """A limit that a figure keeps or not."""

    gate: float
    goal: float
    more: bool = False
    """More is better."""

    def verdict(self, value: float) -> str:
        def kept(limit: float) -> bool:
            return value >= limit if self.more else value <= limit

        return "goal" if kept(self.goal) else "gate" if kept(self.gate) else MISSED


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one case at some sizes. `python` is None where the planes do not differ."""

    title: str
    case: str
    sizes: tuple[int, ...]
    figure: str
    unit: str
    kernel: Aim
    python: Aim | None = None
    absolute: bool = False
    """Judged by itself, not by the ratio to the other server."""
    listed: tuple[float, ...] = ()
    """What the other server needed in the run that the issue quotes, by size."""


CHEAP, CHEAP_PYTHON = Aim(0.35, 0.2), Aim(0.6, 0.4)
AS_FAST = Aim(1.0, 0.5)
FORWARDING = (
    ("B1 livestream, 200 packets/s", "b1-livestream-200", (1, 10, 50, 100, 200), (190, 46, 22, 17.6, 12.9)),
    ("B1 livestream, 1000 packets/s", "b1-livestream-1000", (10, 30), (19, 9.7)),
    ("B1 livestream, 25 pictures/s of 8 packets", "b1-livestream-pictures", (1, 10, 50, 100, 200), ()),
    ("B2 audio, 6 talkers", "b2-audio", (10, 50, 100), (33, 13.6, 12.0)),
    ("B3 meeting", "b3-meeting", (4, 8, 12), (57, 22.7, 13.6)),
    ("B3 meeting, 25 pictures/s of 6 packets each", "b3-meeting-pictures", (4, 8, 12), ()),
)
LINES = (
    *(
        Line(title, case, sizes, PACKET, "us CPU a delivered packet", CHEAP, CHEAP_PYTHON, listed=listed)
        for title, case, sizes, listed in FORWARDING
    ),
    Line(
        "B1 saturation, loss under 0.5 %",
        "b1-saturation",
        (100,),
        "packets_per_second",
        "packets/s",
        Aim(1.5, 3.0, more=True),
        Aim(1.0, 1.5, more=True),
        listed=(115e3,),
    ),
    *(Line(t, c, n, P50, "ms added, p50", AS_FAST, AS_FAST) for t, c, n, _ in FORWARDING),
    *(Line(t, c, n, P99, "ms added, p99", AS_FAST, AS_FAST) for t, c, n, _ in FORWARDING),
    Line("B4 joins, 8 at once", "b4-joins", (8,), "cpu_ms_per_join", "ms CPU a join", AS_FAST),
    Line("B4 joins, 8 at once", "b4-joins", (8,), "to_first_media_ms", "ms to first media", AS_FAST),
    Line("B5 reliable data, 1 KiB, 1 to N", "b5-data-1k", (1, 20), "mb_per_second", "MB/s", Aim(0.7, 1.0, more=True)),
    *(
        Line(f"B6 {title}", case, (n,), "cpu_us_per_request", "us CPU a request", Aim(1.5, 1.0))
        for title, case, n in (
            ("create + delete room", "b6-create-delete", 0),
            ("update participant", "b6-update-participant", 1),
            ("send data", "b6-send-data", 1),
        )
    ),
    Line("B6 ListRooms, N rooms, protobuf", "b6-list-rooms", (1000,), "cpu_us_per_request", "us CPU", AS_FAST),
    Line("B6 ListRooms, N rooms, JSON", "b6-list-rooms-json", (1000,), "cpu_us_per_request", "us CPU", AS_FAST),
    Line("B7 memory after start", "b7-memory", (50,), "after_start_mb", "MB PSS", AS_FAST),
    Line("B7 memory of N idle participants", "b7-memory", (50,), "per_participant_kb", "kB PSS each", Aim(0.7, 0.3)),
    Line(
        "B8 longest stall of the loop, N % of saturation",
        "b8-stall",
        (50, 100),
        "longest_stall_ms",
        "ms",
        Aim(10, 5),
        Aim(10, 5),
        absolute=True,
    ),
)


def tables(results: Results, compared: str) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"Machine: {results.machine}. {_taken(results)}"
    yield ""
    yield f"| case | N | | {compared} | kernel | ratio | gate, goal | | Python | ratio | gate, goal | |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    rows = [row for line in LINES for size in line.sizes for row in _row(results, line, size, compared)]
    yield from rows
    goal, gate, missed = (sum(row.count(f"| {said} |") for row in rows) for said in ("goal", "gate", MISSED))
    yield ""
    yield f"{goal} figures reach the goal, {gate} more the gate, {missed} miss it."
    yield from _listed(results)
    yield from _floor(results, compared)
    yield from _limit(results)
    yield from _stalls(results)
    yield from _interference(results, compared)
    yield from _janus(results, compared)
    drawn = [case for _, case, _, _ in FORWARDING if len(results.rows.get(case, {})) > 1]
    if drawn:
        yield from ("", "CPU per delivered packet against N:", "")
        yield from (f"![{case}](plots/{case}.svg)" for case in drawn)


def _taken(results: Results) -> str:
    """When, and of what."""
    entries = [entry for sizes in results.taken.values() for entry in sizes.values()]
    if not entries:
        return ""
    days = sorted({entry["when"][:10] for entry in entries})
    commits = sorted({entry["commit"] for entry in entries})
    windows = sorted({(entry["runs"], entry["seconds"]) for entry in entries})
    said = ", ".join(f"{runs} runs of {seconds:g} s" for runs, seconds in windows)
    return f"Measured {' and '.join(days)} UTC, commit {', '.join(commits)}, medians of {said}."


def _row(results: Results, line: Line, size: int, compared: str) -> Iterator[str]:
    base = results.get(line.case, size, compared)
    ours, python = results.get(line.case, size, KERNEL), results.get(line.case, size, PYTHON)
    if ours is None and python is None:
        return
    cells = [line.title, str(size), line.unit, _figure(base, line.figure)]
    cells += _judged(line, line.kernel, ours, base)
    cells += _judged(line, line.python, python, base) if line.python else ["", "", "", ""]
    yield f"| {' | '.join(cells)} |"


def _judged(line: Line, aim: Aim, row: Row | None, base: Row | None) -> list[str]:
    if row is None:
        return ["", "", "", ""]
    shown, value = _figure(row, line.figure), row[line.figure]
    asked = f"{aim.gate:g}, {aim.goal:g}"
    if line.absolute:
        return [shown, "", asked, aim.verdict(value)]
    if base is None or not base.get(line.figure):
        return [shown, "", asked, ""]
    ratio = value / base[line.figure]
    return [shown, f"{ratio:.2f}", asked, aim.verdict(ratio)]


def _figure(row: Row | None, figure: str) -> str:
    """With its row's marks."""
    if row is None or figure not in row:
        return "-"
    return _short(row[figure]) + "".join(f" ({mark})" for mark in marks(row))


def _short(value: float) -> str:
    """Three figures that count."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _listed(results: Results) -> Iterator[str]:
    """The same figures by what the other server needed elsewhere: that machine was slower, or that run disturbed."""
    yield from ("", "The same by the figures that issue 5 quotes of the other server, from another run:", "")
    yield "| case | N | quoted | kernel, by that | | Python, by that | |"
    yield "|---|---|---|---|---|---|---|"
    for line in LINES:
        for size, quoted in zip(line.sizes, line.listed, strict=False):
            cells = [line.title, str(size), _short(quoted)]
            for name, aim in ((KERNEL, line.kernel), (PYTHON, line.python)):
                row = results.get(line.case, size, name)
                ratio = row[line.figure] / quoted if row is not None else 0.0
                cells += [f"{ratio:.2f}", aim.verdict(ratio)] if row is not None and aim is not None else ["-", ""]
            yield f"| {' | '.join(cells)} |"


def _floor(results: Results, compared: str) -> Iterator[str]:
    """How much of what a packet costs is the machine's, and the interpreter's."""
    cases = [(title, case, size) for title, case, sizes, _ in FORWARDING for size in sizes]
    if not any(results.get(case, size, FLOOR) for _, case, size in cases):
        return
    yield from (
        "",
        "What the load costs with nothing but what has to be: receive, open, and per leg copy, protect and send; in C",
        "(`bench/limit/limit.c`) and in Python (`bench/limit/least.py`). us a packet; in brackets what these,",
        f"which are no servers, would have by {compared}:",
        "",
        "| case | N | all-C | kernel | all-C by kernel | all-Python | Python | all-Python by Python |",
        "|---|---|---|---|---|---|---|---|",
    )
    for title, case, size in cases:
        base = results.get(case, size, compared)
        cells = [title, str(size)]
        for floor, server in ((FLOOR, KERNEL), (LEAST, PYTHON)):
            cells += _beside(results.get(case, size, floor), results.get(case, size, server), base)
        if any(cells[2:]):
            yield f"| {' | '.join(cells)} |"


def _beside(least: Row | None, ours: Row | None, base: Row | None) -> list[str]:
    """A floor, what stands on it, and how much of that it is."""
    if least is None or ours is None:
        return ["", "", ""]
    by = f" ({least[PACKET] / base[PACKET]:.2f})" if base is not None else ""
    return [f"{_figure(least, PACKET)}{by}", _figure(ours, PACKET), f"{least[PACKET] / ours[PACKET]:.2f}"]


def _limit(results: Results) -> Iterator[str]:
    limits = {name: results.get("b1-limit", 100, name) for name in ("all-C sendmmsg", "all-C GSO")}
    if not any(limits.values()):
        return
    aim = Aim(0.7, 0.9, more=True)
    yield from ("", "Share of the all-C limit (`bench/limit/limit.c`), B1, N = 100:", "")
    yield "| | packets/s at saturation | share: kernel | Python | us CPU a packet at 200 packets/s | kernel needs |"
    yield "|---|---|---|---|---|---|"
    ours = {name: results.get("b1-saturation", 100, name) for name in (KERNEL, PYTHON)}
    calm = results.get("b1-livestream-200", 100, KERNEL)
    for name, row in limits.items():
        if row is None:
            continue
        cells = [name, _figure(row, "packets_per_second")]
        for plane, mine in ours.items():
            share = mine["packets_per_second"] / row["packets_per_second"] if mine else 0.0
            said = f" ({aim.verdict(share)})" if plane == KERNEL else ""
            cells.append(f"{share:.2f}{said}" if mine else "-")
        cost = row["cpu_us_per_packet_at_200"]
        cells += [f"{cost:.2f}", f"{calm[PACKET] / cost:.2f} of it" if calm else "-"]
        yield f"| {' | '.join(cells)} |"


def _stalls(results: Results) -> Iterator[str]:
    """What of the longest stalls was the server's doing."""
    rows = [
        (size, name, row)
        for size in sorted(results.rows.get("b8-stall", {}), key=int)
        for name in (KERNEL, PYTHON)
        if (row := results.get("b8-stall", int(size), name)) is not None and "longest_stall_cpu_ms" in row
    ]
    if not rows:
        return
    yield from (
        "",
        "The longest stall, what of it was CPU, and how long the machine let nobody have the core:",
        "",
    )
    yield from (
        "| load, % of most | server | longest turn, ms | CPU of it, ms | machine stopped, ms |",
        "|---|---|---|---|---|",
    )
    for size, name, row in rows:
        figures = (_figure(row, f"longest_{figure}_ms") for figure in ("stall", "stall_cpu", "machine_stop"))
        yield f"| {size} | {name} | {' | '.join(figures)} |"


def _interference(results: Results, compared: str) -> Iterator[str]:
    cases = (
        ("b8-interference-api", "32 connections call the API"),
        ("b8-interference-joins", "20 clients a second join"),
    )
    if not any(case in results.rows for case, _ in cases):
        return
    yield from ("", "Media of B1, N = 50 at 1000 packets/s, while something else takes the core:", "")
    yield "| meanwhile | server | p50 / p99 alone, ms | p50 / p99 meanwhile, ms | loss | done meanwhile | core |"
    yield "|---|---|---|---|---|---|---|"
    for case, meanwhile in cases:
        for name in (KERNEL, PYTHON, compared):
            row = results.get(case, 50, name)
            if row is not None:
                done = row.get("calls_per_second") or row.get("joins_per_second", 0)
                yield (
                    f"| {meanwhile} | {name} | {row['alone_p50_ms']:.2f} / {row['alone_p99_ms']:.2f} "
                    f"| {row[P50]:.2f} / {row[P99]:.2f} | {row['loss']:.2%} | {done:g} a second "
                    f"| {row['server_core']:.0%} |"
                )


def _janus(results: Results, compared: str) -> Iterator[str]:
    sizes = results.rows.get("b1-janus", {})
    if not sizes:
        return
    yield from (
        "",
        "B1 at 200 packets/s beside Janus' streaming plugin, us CPU a delivered packet (p50 / p99, ms):",
        "",
    )
    names = [name for name in (KERNEL, compared, "janus") if any(name in sizes[size] for size in sizes)]
    yield f"| N | {' | '.join(names)} |"
    yield f"|{'---|' * (len(names) + 1)}"
    for size in sorted(sizes, key=int):
        rows = [sizes[size].get(name) for name in names]
        cells = [f"{_figure(row, PACKET)} ({row[P50]:.2f} / {row[P99]:.2f})" if row else "-" for row in rows]
        yield f"| {size} | {' | '.join(cells)} |"


def replace(page: Path, lines: Iterable[str]) -> None:
    """Put them between the marks. Raises ValueError when the page has none."""
    text = page.read_text()
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"{page} has no {BEGIN} ... {END}")
    body = "\n".join(lines)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
