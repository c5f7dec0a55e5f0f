"""Writes docs/planexec.md from the option table. Run it after changing an option."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from builder_host.planexec.options import option_table  # noqa: E402

INTRODUCTION = """# planexec: options of giexec and trtexec

`planexec` builds, loads and times a network from the command lines that people have in their
scripts. An option that means something here does what it did; one that changes nothing is accepted
with a line that says why; one that cannot be is refused with what to use instead. Defaults are
trtexec's. Figures are defined as trtexec defines them: throughput is queries by total host
walltime, latency is H2D + compute + D2H, a percentile leaves out the slowest. One inference is in
flight per stream, and transfers are left out unless `--includeDataTransfers` is given. What changes
nothing beside other options (`--stripWeights` without `--saveEngine`, `--calib` without `--int8`)
is accepted too, with a line that says so; options that contradict each other are an error.

    planexec --deploy=lenet.prototxt --model=lenet.caffemodel --output=prob --saveEngine=lenet.plan
    planexec --loadEngine=lenet.plan --exportTimes=times.json --dumpProfile
"""


def main() -> int:
    """Write the page."""
    path = ROOT / "docs" / "planexec.md"
    path.write_text(INTRODUCTION + option_table(), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
