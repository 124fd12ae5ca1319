"""Line plots as SVG, with nothing but text: the benches need no plotting library."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 60, 230, 40, 50
COLOURS = ("#1b6ca8", "#c0392b", "#27864d", "#8e44ad", "#d68910", "#16807a", "#7f4f24", "#555555")
DASHES = ("", "6 3", "2 3")

Series = tuple[str, Sequence[tuple[float, float]]]
"""A name, and points of positive x and of y in [0, 1]."""


def write(path: Path, title: str, x_label: str, y_label: str, lines: Sequence[Series]) -> None:
    """Draw ``lines`` over a logarithmic x axis, y from 0.4 to 1."""
    xs = [x for _, points in lines for x, _ in points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    floor = 0.4

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / max(high - low, 1e-9)
        up = (max(y, floor) - floor) / (1 - floor)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 12}">{escape(x_label)}</text>',
        f'<text x="{LEFT}" y="{TOP - 4}">{escape(y_label)}</text>',
    ]
    for y in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        (x0, at), (x1, _) = place(min(xs), y), place(max(xs), y)
        parts.append(f'<path d="M{x0:.1f} {at:.1f}H{x1:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x0 - 8:.1f}" y="{at + 4:.1f}" text-anchor="end">{y}</text>')
    for x in sorted(set(xs)):
        across, bottom = place(x, floor)
        parts.append(
            f'<text x="{across:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{x:g}</text>'
        )
    for number, (name, points) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        path_data = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        style = f'stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"'
        at = TOP + 4 + 14 * number
        parts.append(f'<polyline points="{path_data}" fill="none" {style}/>')
        parts.append(f'<path d="M{WIDTH - RIGHT + 16} {at}h22" {style}/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 44}" y="{at + 4}">{escape(name)}</text>')
    parts.append("</svg>")
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")
