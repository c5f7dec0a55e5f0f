"""The trade-off curve as SVG: predicted time to the right, loss upwards."""

from __future__ import annotations

from builder_host.accuracy.sensitivity import TradeOff, TradePoint

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 640, 400, 70, 60, 30


def trade_off_svg(trade: TradeOff) -> str:
    """The picture's text."""
    times = [p.predicted_us for p in trade.points]
    slowest = max(times) * 1.05
    highest = max([*(p.loss for p in trade.points), trade.budget, 1e-6]) * 1.15

    def at(point: TradePoint) -> tuple[float, float]:
        return _x(point.predicted_us, slowest), _y(point.loss, highest)

    budget = _y(trade.budget, highest)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _axes(slowest, highest),
        f'<line x1="{_LEFT}" y1="{budget:.1f}" x2="{_WIDTH - _MARGIN}" y2="{budget:.1f}" '
        'stroke="#b00020" stroke-dasharray="5 4"/>',
        f'<text x="{_WIDTH - _MARGIN}" y="{budget - 5:.1f}" text-anchor="end" fill="#b00020">'
        f"budget {100 * trade.budget:g} %</text>",
        '<polyline fill="none" stroke="#2a6f97" stroke-width="2" points="'
        + " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, trade.points))
        + '"/>',
    ]
    for point in trade.points:
        x, y = at(point)
        is_chosen = point == trade.chosen
        colour = "#b00020" if point.loss > trade.budget else "#2a6f97"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{7 if is_chosen else 4}" fill="{colour}"/>'
            f'<text x="{x + 9:.1f}" y="{y - 6:.1f}">{point.num_float}'
            f"{' chosen' if is_chosen else ''}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(slowest: float, highest: float) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _MARGIN
    lines = [
        f'<path d="M{_LEFT} {_MARGIN}V{bottom}H{right}" fill="none" stroke="#444"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 15}" text-anchor="middle">predicted time, '
        "us; numbers: layers kept in float</text>",
        f'<text x="18" y="{(_MARGIN + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 18 {(_MARGIN + bottom) / 2})">loss, %</text>',
    ]
    for step in range(5):
        time, loss = slowest * step / 4, highest * step / 4
        x, y = _x(time, slowest), _y(loss, highest)
        lines.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{time:,.0f}</text>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * loss:.2f}</text>'
        )
    return "\n".join(lines)


def _x(time: float, slowest: float) -> float:
    return _LEFT + (_WIDTH - _MARGIN - _LEFT) * time / slowest


def _y(loss: float, highest: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _MARGIN) * loss / highest
