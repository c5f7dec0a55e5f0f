"""The few SVG elements that the charts are made of. Every text is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def rect(x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> str:
    """A rectangle of a style class, with a tooltip."""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} class="{kind}">{title(tip)}</rect>'


def circle(x: float, y: float, radius: float, kind: str, tip: str = "") -> str:
    """A dot of a style class, with a tooltip."""
    place = f'cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"'
    return f'<circle {place} class="{kind}">{title(tip)}</circle>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a style class."""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} class="{kind}"/>'


def label(x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> str:
    """A line of text whose baseline begins (or ends, by anchor) at x, y."""
    place = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{html.escape(text)}</text>'


def curve(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A downward curve from one node to another."""
    bend = max((y2 - y1) / 2, 12)
    path = (
        f"M{number(x1)} {number(y1)}C{number(x1)} {number(y1 + bend)} "
        f"{number(x2)} {number(y2 - bend)} {number(x2)} {number(y2)}"
    )
    return f'<path d="{path}" class="{kind}"/>'


def title(text: str) -> str:
    """A tooltip; nothing for an empty text."""
    return f"<title>{html.escape(text)}</title>" if text else ""


def picture(width: float, height: float, parts: Sequence[str], description: str) -> str:
    """A whole picture that scales down with the page."""
    box = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}"'
    return (
        f'<svg {box} role="img" aria-label="{html.escape(description, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def ticks(largest: float, count: int = 5) -> list[float]:
    """Round values from 0 to at least `largest`, about `count` of them."""
    if largest <= 0:
        return [0.0]
    raw = largest / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(s * magnitude for s in (1, 2, 5, 10) if s * magnitude >= raw)
    return [step * i for i in range(math.ceil(largest / step) + 1)]
