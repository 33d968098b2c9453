"""Lines of a figure against N, as SVG; both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 320, 60, 130, 34, 40
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#8a5a44", "#7a6fa3")
Points = Sequence[tuple[float, float]]


class _Axis:
    def __init__(self, values: Sequence[float], low: float, high: float) -> None:
        self.first, self.last = min(values), max(values)
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        if self.last == self.first:
            return (self._low + self._high) / 2
        share = math.log(value / self.first) / math.log(self.last / self.first)
        return round(self._low + share * (self._high - self._low), 1)


def plot(title: str, figure: str, lines: Mapping[str, Points]) -> str:
    xs = sorted({max(n, 0.5) for points in lines.values() for n, _ in points})
    ys = [max(value, 1e-3) for points in lines.values() for _, value in points]
    x, y = _Axis(xs, LEFT, WIDTH - RIGHT), _Axis(ys, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13">{title}: {figure} against N</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#888"/>',
    ]
    parts += [f'<text x="{x.at(n)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:g}</text>' for n in xs]
    parts += [
        f'<text x="{LEFT - 6}" y="{y.at(v) + 4}" text-anchor="end">{v:.3g}</text>' for v in _ticks(min(ys), max(ys))
    ]
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        at = [(x.at(max(n, 0.5)), y.at(max(value, 1e-3))) for n, value in points]
        parts.append(
            f'<path d="M{" L".join(f"{a} {b}" for a, b in at)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts += [f'<circle cx="{a}" cy="{b}" r="3" fill="{colour}"/>' for a, b in at]
        parts.append(f'<text x="{at[-1][0] + 8}" y="{at[-1][1] + 4}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _ticks(low: float, high: float) -> list[float]:
    """The ends, and what is round between them."""
    marks = [low, high]
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**power
            if all(abs(math.log(value / mark)) > 0.25 for mark in marks) and low < value < high:
                marks.append(value)
    return marks
