"""Charts as inline SVG: lines, and points with intervals. Colours and fonts are page.css's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 8
"""Of page.css; further runs have them again, with another shape"""

# In units of the view box, which is about as wide as a phone, so that text there is as large as it is written.
_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38
_SHAPES = (
    '<circle r="4"/>',
    '<rect x="-3.6" y="-3.6" width="7.2" height="7.2"/>',
    '<path d="M0-5 5 0 0 5-5 0z"/>',
    '<path d="M0-4.8 4.8 3.8-4.8 3.8z"/>',
)


@dataclass(frozen=True)
class Line:
    """Points that are joined."""

    style: int | None
    """Number of the run whose colour it has; None for a neutral one"""
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Point:
    """A value of a run."""

    style: int
    """Number of the run"""
    x: float
    y: float
    label: str
    """Shown on hover"""
    interval: tuple[float, float] | None = None
    """Low and high"""


def marker(style: int) -> Markup:
    """The shape of a run in its colour, around the origin."""
    shape = Markup(_SHAPES[(style + style // COLOURS) % len(_SHAPES)])
    return Markup('<g class="mark s{}">{}</g>').format(style % COLOURS, shape)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that span the values from low to high, about so many of them."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / about
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def chart(
    name: str,
    lines: Sequence[Line],
    points: Sequence[Point],
    x_ticks: Sequence[tuple[float, str]],
    x_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    from_zero: bool = False,
) -> Markup:
    """An SVG element.

    Args:
        name: what is shown, for people who cannot see it.
        lines: in the back.
        points: in front of them.
        x_ticks: places and labels below the axis.
        x_label: below those.
        x_range: from left to right; None for that of what is shown.
        from_zero: whether the vertical axis begins at zero.
    """
    xs = [x for line in lines for x, _ in line.points] + [point.x for point in points] + [x for x, _ in x_ticks]
    ys = [y for line in lines for _, y in line.points]
    ys += [y for point in points for y in (point.y, *(point.interval or ()))]
    levels = ticks(0.0 if from_zero else min(ys), max(ys))
    left, right = x_range or (min(xs), max(xs))
    if left == right:
        left, right = left - 1, right + 1

    def across(x: float) -> str:
        return f"{_LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def down(y: float) -> str:
        share = (y - levels[0]) / (levels[-1] - levels[0])
        return f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    parts = list[Markup]()
    for level in levels:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                _LEFT, _WIDTH - _RIGHT, y=down(level)
            )
        )
        parts.append(
            Markup('<text class="of-y" x="{}" y="{}">{}</text>').format(
                _LEFT - 6, float(down(level)) + 4, _shortest(level, levels[1] - levels[0])
            )
        )
    for x, label in x_ticks:
        parts.append(
            Markup('<text class="of-x" x="{}" y="{}">{}</text>').format(across(x), _HEIGHT - _BOTTOM + 16, label)
        )
    parts.append(
        Markup('<text class="of-x" x="{}" y="{}">{}</text>').format((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, x_label)
    )
    for line in lines:
        path = " ".join(f"{across(x)},{down(y)}" for x, y in line.points)
        colour = "neutral" if line.style is None else f"s{line.style % COLOURS}"
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(colour, path))
    for point in points:
        whisker = Markup()
        if point.interval is not None:
            low, high = (float(down(end)) - float(down(point.y)) for end in point.interval)
            whisker = Markup('<path class="whisker s{}" d="M0 {:.1f}V{:.1f}"/>').format(
                point.style % COLOURS, low, high
            )
        parts.append(
            Markup('<g transform="translate({} {})">{}{}<title>{}</title></g>').format(
                across(point.x), down(point.y), whisker, marker(point.style), point.label
            )
        )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, name, Markup().join(parts)
    )


def _shortest(value: float, step: float) -> str:
    """A tick's number with as many digits as its step needs."""
    digits = next(digits for digits in range(10) if digits == 9 or abs(round(step, digits) - step) < step * 1e-6)
    return f"{value:.{digits}f}"
