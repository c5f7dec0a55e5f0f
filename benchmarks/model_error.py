"""How far the cost models are off: predicted against measured times, per kernel family.

    python -m benchmarks.model_error report.json...   # of `edgeplan build --report`

Only operations that were measured count, each with the tactic that was chosen. The error of an
operation is |predicted / measured - 1|. A cost model ranks tactics; a factor that is common to all
operations of a device does no harm to that, so the median ratio is printed beside the errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def ratios_by_family(reports: Sequence[Path]) -> dict[str, list[float]]:
    """Predicted / measured of every measured operation, by family."""
    found: dict[str, list[float]] = {}
    for path in reports:
        for row in json.loads(path.read_text(encoding="utf-8"))["operations"]:
            if row["measured_us"]:
                family = row["tactic"].partition("(")[0]
                found.setdefault(family, []).append(row["predicted_us"] / row["measured_us"])
    return dict(sorted(found.items()))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path)
    families = ratios_by_family(parser.parse_args().reports)
    print("| family | operations | median ratio | median error | 90th percentile of the error |")
    print("|---|---|---|---|---|")
    together = [ratio for ratios in families.values() for ratio in ratios]
    for name, ratios in {**families, "all": together}.items():
        errors = [abs(ratio - 1) for ratio in ratios]
        print(
            f"| {name} | {len(ratios)} | {statistics.median(ratios):.2f} | "
            f"{statistics.median(errors):.0%} | {percentile(errors, 0.9):.0%} |"
        )


if __name__ == "__main__":
    main()
