"""A comparison as one HTML file that needs nothing else: bars per layer and the table."""

from __future__ import annotations

from html import escape

from builder_host.accuracy.compare import Comparison

_BAR_HEIGHT, _LABEL_WIDTH, _BAR_WIDTH = 18, 320, 520
_FULL_DB = 100.0  # longest bar


def comparison_page(comparison: Comparison) -> str:
    """The page's text."""
    bad = comparison.first_bad
    verdict = (
        f"First bad layer: <b>{escape(bad.operation)}</b> (tensor {escape(bad.tensor)}, "
        f"{bad.sqnr_db:.1f} dB)"
        if bad
        else f"No layer below {comparison.threshold_db:g} dB."
    )
    rows = "\n".join(
        "<tr{}><td>{}</td><td>{}</td><td>{}</td><td>{:.1f}</td><td>{:.7f}</td><td>{:.2e}</td>"
        "<td>{:.3g}</td><td>{:.3g}</td></tr>".format(
            ' class="bad"' if y.sqnr_db < comparison.threshold_db else "",
            escape(y.tensor),
            escape(y.dtype),
            escape(y.tactic),
            y.sqnr_db,
            y.cosine,
            y.relative,
            y.max_error,
            y.largest,
        )
        for y in comparison.layers
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(comparison.plan)}: layers</title>
<style>
body {{ font: 14px sans-serif; margin: 2em; color: #222 }}
table {{ border-collapse: collapse; margin-top: 1.5em }}
td, th {{ padding: 2px 8px; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child, td:nth-child(3) {{ text-align: left }}
.bad td {{ color: #b00020; font-weight: bold }}
text {{ font: 12px sans-serif }}
</style></head><body>
<h1>{escape(comparison.plan)}</h1>
<p>{len(comparison.layers)} tensors over {comparison.num_samples} samples against float64.
{verdict}</p>
{_bars(comparison)}
<table><tr><th>tensor</th><th>stored</th><th>kernel</th><th>SQNR dB</th><th>cosine</th>
<th>relative</th><th>max error</th><th>largest</th></tr>
{rows}
</table></body></html>
"""


def _bars(comparison: Comparison) -> str:
    height = _BAR_HEIGHT * (len(comparison.layers) + 1)
    width = _LABEL_WIDTH + _BAR_WIDTH + 80
    limit = _LABEL_WIDTH + _length(comparison.threshold_db)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        'aria-label="signal to noise ratio per layer">'
    ]
    for number, layer in enumerate(comparison.layers):
        y = number * _BAR_HEIGHT
        colour = "#b00020" if layer.sqnr_db < comparison.threshold_db else "#2a6f97"
        length = _length(layer.sqnr_db)
        parts.append(
            f'<text x="{_LABEL_WIDTH - 6}" y="{y + 13}" text-anchor="end">'
            f"{escape(layer.tensor[-48:])}</text>"
            f'<rect x="{_LABEL_WIDTH}" y="{y + 2}" width="{length:.1f}" height="{_BAR_HEIGHT - 4}" '
            f'fill="{colour}"/><text x="{_LABEL_WIDTH + length + 4:.1f}" y="{y + 13}">'
            f"{layer.sqnr_db:.0f} dB</text>"
        )
    parts.append(
        f'<line x1="{limit:.1f}" y1="0" x2="{limit:.1f}" y2="{height}" stroke="#b00020" '
        'stroke-dasharray="4 3"/></svg>'
    )
    return "\n".join(parts)


def _length(ratio_db: float) -> float:
    return _BAR_WIDTH * min(max(ratio_db, 0.0), _FULL_DB) / _FULL_DB
