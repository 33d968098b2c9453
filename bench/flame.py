"""Where the CPU of lkactor's process goes while clients join: a flame graph and a table.

    python bench/flame.py --svg docs/plots/join-flame.svg              # 8 joins at once, for 10 seconds
    python bench/flame.py --at-once 1 --seconds 20 --table 40

The load is that of `suite.py b4`. Three windows: the publisher alone, which says what the server costs without joins;
joins; joins with the sampler on. The server runs in a child, which counts its Python stack every half millisecond that
it does not wait for the selector. What C code costs (OpenSSL, protobuf, system calls) is in the box of its caller.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from xml.sax.saxutils import escape

import trio
from cases.joins import STREAM
from livekit.protocol import rtc
from load.peers import Member
from load.pool import Pool
from load.servers import CORES, KEY, SECRET, Server, wait_for
from load.window import crowd, join_all

PORT = 17970
INTERVAL = 0.0005
"""Seconds from sample to sample."""
WIDTH, ROW, NARROWEST = 1200, 16, 2.5
"""Of the picture, in pixels. Narrower boxes are left out."""
COLOURS = {"lkactor": "#f2a65a", "actors": "#e8743b", "trio": "#9db4c0", "hypercorn": "#b8d8ba"}
WAITING = "EpollIOManager.get_events"
Stack = tuple[str, ...]
"""Outermost call first; a call is `path:function`."""


# -- in the server's process


class Sampler:
    """Counts stacks between SIGUSR1 and SIGUSR2; the second writes them to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stacks: dict[tuple[CodeType, ...], int] = {}
        self._wakeup = -1
        signal.signal(signal.SIGALRM, self._sample)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._stacks.clear()
        self._wakeup = signal.set_wakeup_fd(-1)  # Else each sample would give the event loop a turn.
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_qualname == WAITING:
            return
        codes: list[CodeType] = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        stack = tuple(codes)
        self._stacks[stack] = self._stacks.get(stack, 0) + 1

    def _end(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(self._wakeup)
        lines = [
            json.dumps([[f"{code.co_filename}:{code.co_qualname}" for code in reversed(stack)], count])
            for stack, count in self._stacks.items()
        ]
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text("\n".join(lines))
        unfinished.rename(self._path)


def serve(path: Path, port: int) -> None:
    from lkactor.cli.main import main as run

    Sampler(path)
    body = f"rtc: {{tcp_port: {port + 2}}}\nlogging: {{level: error}}"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--udp-port", str(port + 1)]
    sys.exit(run(["serve", *options, "--keys", f"{KEY}: {SECRET}", "--config-body", body]))


# -- the load


@dataclass(frozen=True)
class Record:
    """CPU in milliseconds; `alone_ms` of it would have been used without joins, too."""

    joins: int
    join_ms: float
    alone_ms: float
    first_media_ms: float
    stacks: dict[Stack, int]


def record(at_once: int, seconds: float, port: int) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stacks"
        command = ["taskset", "-c", str(CORES[0]), sys.executable, __file__, "--serve", str(path), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            os.sched_setaffinity(0, {CORES[-1]})
            wait_for(f"http://127.0.0.1:{port}/")
            server = Server("lkactor", f"ws://127.0.0.1:{port}", KEY, SECRET, process.pid)
            return trio.run(_windows, server, process, path, at_once, seconds)
        finally:
            process.terminate()
            process.wait(10)


async def _windows(
    server: Server, process: subprocess.Popen[bytes], path: Path, at_once: int, seconds: float
) -> Record:
    async with crowd() as (pool, nursery):
        publisher = Member(server, pool, "flame", "publisher", streams=[STREAM], subscribe=False)
        await join_all([publisher], nursery)
        nursery.start_soon(publisher.stream, next(iter(publisher.streams)))
        await storm(server, pool, at_once, 1.0)  # What is done once is done now.
        begun, cpu = trio.current_time(), server.cpu()
        await trio.sleep(seconds)
        alone = (server.cpu() - cpu) / (trio.current_time() - begun)
        begun, cpu = trio.current_time(), server.cpu()
        durations = await storm(server, pool, at_once, seconds)
        used, elapsed = server.cpu() - cpu, trio.current_time() - begun
        process.send_signal(signal.SIGUSR1)
        await storm(server, pool, at_once, seconds)
        stacks = await trio.to_thread.run_sync(_collect, process, path)
    count = len(durations)
    first_media = statistics.median(durations) * 1000
    return Record(count, used / count * 1000, alone * elapsed / count * 1000, first_media, stacks)


async def storm(server: Server, pool: Pool, at_once: int, seconds: float) -> list[float]:
    """As many joins as fit, each of them over with its first packet: seconds that each took."""
    durations: list[float] = []
    ends = trio.current_time() + seconds

    async def lane(number: int) -> None:
        while (begun := trio.current_time()) < ends:
            member = Member(server, pool, "flame", f"sink-{number}-{begun}")
            async with trio.open_nursery() as own:
                own.start_soon(member.run)
                with trio.fail_after(30):
                    await member.subscriber.first_media.wait()
                durations.append(trio.current_time() - begun)
                await member.send(leave=rtc.LeaveRequest())
                own.cancel_scope.cancel()
            member.close()

    async with trio.open_nursery() as lanes:
        for number in range(at_once):
            lanes.start_soon(lane, number)
    return durations


def _collect(process: subprocess.Popen[bytes], path: Path) -> dict[Stack, int]:
    process.send_signal(signal.SIGUSR2)
    while not path.exists():
        time.sleep(0.05)
    lines = path.read_text().splitlines()
    path.unlink()
    stacks: Counter[Stack] = Counter()
    for line in lines:
        names, count = json.loads(line)
        if any(name.endswith(":Sampler._sample") for name in names):
            continue  # The sampler met itself.
        stacks[_readable(names)] += count
    return stacks


def _readable(names: list[str]) -> Stack:
    """From the event loop on, each file named by its package."""
    short = []
    for name in names:
        path, _, function = name.rpartition(":")
        short.append(f"{_module(path)}:{function.replace('<locals>.', '')}")
    start = max((n + 1 for n, name in enumerate(short) if name.endswith("_run:unrolled_run")), default=0)
    return tuple(short[start:]) or ("trio._core._run:unrolled_run",)


def _module(path: str) -> str:
    for anchor in ("/site-packages/", "/lkactor/", "/actors/", f"/python{sys.version_info[0]}.{sys.version_info[1]}/"):
        _, found, after = path.rpartition(anchor)
        if found:
            inside = "" if "python" in anchor or "site" in anchor else anchor[1:-1] + "/"
            return (inside + after).removesuffix(".py").replace("/", ".")
    return Path(path).stem


# -- what is shown


def table(stacks: dict[Stack, int], per: float, rows: int) -> str:
    """`per`: what one sample is of the unit that is shown."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for name in set(stack):
            whole[name] += count
    lines = [f"{'with callees':>12} {'itself':>8}  function"]
    lines += [f"{count * per:12.3f} {own[name] * per:8.3f}  {name}" for name, count in whole.most_common(rows)]
    lines += ["", f"{'itself':>12}  function"]
    lines += [f"{count * per:12.3f}  {name}" for name, count in own.most_common(rows)]
    return "\n".join(lines)


class Box:
    """One call in one context."""

    def __init__(self) -> None:
        self.count = 0
        self.below: dict[str, Box] = {}


def flame(stacks: dict[Stack, int], title: str, per: float) -> str:
    """The picture, callers below callees. A box says its share when the pointer rests on it."""
    root = Box()
    for stack, count in stacks.items():
        box = root
        box.count += count
        for name in stack:
            box = box.below.setdefault(name, Box())
            box.count += count
    parts: list[str] = []
    scale = WIDTH / max(1, root.count)

    def draw(box: Box, name: str, left: float, depth: int) -> int:
        width = box.count * scale
        parts.append(_rect(name, left, depth, width, f"{name}: {box.count * per:.3f} ms"))
        deepest = depth
        for child, below in sorted(box.below.items()):
            if below.count * scale >= NARROWEST:
                deepest = max(deepest, draw(below, child, left, depth + 1))
            left += below.count * scale
        return deepest

    depth = draw(root, title, 0.0, 0)
    height = (depth + 1) * ROW
    style = "text{font:10px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.4}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {-height} {WIDTH} {height}" width="{WIDTH}">'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>\n"])


def _rect(name: str, left: float, depth: int, width: float, told: str) -> str:
    """Colour by whose code it is."""
    owner = name.partition(".")[0]
    colour = {"lkactor": "#f2a65a", "actors": "#e8743b", "trio": "#9db4c0", "hypercorn": "#b8d8ba"}.get(
        owner, "#dcd6c8"
    )
    y = -(depth + 1) * ROW
    text = name.rpartition(":")[2] if depth else name
    room = int(width / 6.2)
    label = text if len(text) <= room else text[: room - 1] + "…"
    shown = f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(label)}</text>' if room > 3 else ""
    rect = f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" fill="{colour}">'
    return f"<g>{rect}<title>{escape(told)}</title></rect>{shown}</g>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--table", type=int, default=25, help="rows")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--stacks", type=Path, help="a file for the stacks themselves, folded")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    found = record(options.at_once, options.seconds, options.port)
    per = found.join_ms / max(1, sum(found.stacks.values()))
    summary = (
        f"{found.joins} joins, {found.join_ms:.2f} ms of CPU each, of which {found.alone_ms:.2f} ms the publisher's"
    )
    print(f"{summary}; first media after {found.first_media_ms:.0f} ms")
    print(f"CPU ms per join\n{table(found.stacks, per, options.table)}")
    if options.stacks:
        lines = [f"{';'.join(stack)} {count * per:.4f}" for stack, count in found.stacks.items()]
        options.stacks.write_text("\n".join(lines))
    if options.svg:
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        options.svg.write_text(flame(found.stacks, f"a join: {found.join_ms:.1f} ms of CPU", per))


if __name__ == "__main__":
    main()
