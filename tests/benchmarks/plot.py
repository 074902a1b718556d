"""Lines over logarithmic axes, as SVG."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 820, 440
_SVG = "http://www.w3.org/2000/svg"
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 280, 44, 48  # margins; the legend is on the right
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, for every eye


@dataclass(frozen=True)
class Line:
    """`colour`: lines that belong together have the same number."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def chart(title: str, across: str, up: str, lines: Sequence[Line]) -> str:
    """An SVG file. `across` and `up` say what the axes are; both are logarithmic, to the base 2 and 10."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)) + 1e-9)
    plane = _Plane(math.log2(min(xs)), math.log2(max(xs)) or 1, math.log10(low), math.log10(high))
    parts = [
        f'<svg xmlns="{_SVG}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *_axes(plane, sorted(set(xs)), low, high, across, up),
    ]
    for index, line in enumerate(lines):
        parts += _drawn(plane, line, _TOP + 10 + 20 * index)
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class _Plane:
    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        span = (self.right - self.left) or 1
        return _LEFT + (math.log2(value) - self.left) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return (
            HEIGHT - _BOTTOM - (math.log10(value) - self.bottom) / (self.top - self.bottom) * (HEIGHT - _TOP - _BOTTOM)
        )


def _axes(plane: _Plane, xs: Sequence[float], low: float, high: float, across: str, up: str) -> Iterator[str]:
    edge, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for x in xs:
        yield f'<line x1="{plane.x(x):.1f}" y1="{_TOP}" x2="{plane.x(x):.1f}" y2="{floor}" stroke="#eee"/>'
        yield f'<text x="{plane.x(x):.1f}" y="{floor + 16}" text-anchor="middle">{x:,.0f}</text>'
    decade = low
    while decade < high * 1.01:
        for value in (decade, 2 * decade, 5 * decade):
            if value <= high * 1.01:
                y, shade = plane.y(value), "#ccc" if value == decade else "#eee"
                yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{edge}" y2="{y:.1f}" stroke="{shade}"/>'
                yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.0f}</text>'
        decade *= 10
    yield f'<text x="{(_LEFT + edge) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>'
    middle = (_TOP + floor) / 2
    yield f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(up)}</text>'


def _drawn(plane: _Plane, line: Line, height: float) -> Iterator[str]:
    """The line, its points and its entry in the legend, at this height."""
    colour = _COLOURS[line.colour % len(_COLOURS)]
    style = f'stroke="{colour}" stroke-width="2"' + (' stroke-dasharray="6 4"' if line.dashed else "")
    places = [(plane.x(x), plane.y(y)) for x, y in line.points]
    yield f'<polyline fill="none" {style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    left = WIDTH - _RIGHT + 12
    yield f'<line x1="{left}" y1="{height}" x2="{left + 26}" y2="{height}" {style}/>'
    yield f'<text x="{left + 32}" y="{height + 4}">{escape(line.name)}</text>'
