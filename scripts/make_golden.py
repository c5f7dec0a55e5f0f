"""Write the golden plans of the present format version to tests/golden/: whole and stripped.

Run once per released format version: python scripts/make_golden.py
A golden file that exists is compared and never overwritten: it is what released writers made.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.plans import GOLDEN_KEY, sample_plan  # noqa: E402

from planformat.stripped import strip_plan  # noqa: E402
from planformat.version import COMPLETE_MINOR, VERSION_MAJOR, VERSION_MINOR  # noqa: E402
from planformat.writer import plan_bytes  # noqa: E402


def main() -> int:
    """Write or compare the golden plans; 1 when one differs."""
    whole = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
    return _write(COMPLETE_MINOR, whole) | _write(VERSION_MINOR, strip_plan(whole))


def _write(minor: int, content: bytes) -> int:
    path = ROOT / "tests" / "golden" / f"sample_v{VERSION_MAJOR}.{minor}.plan"
    if not path.exists():
        path.write_bytes(content)
        print(f"{path.relative_to(ROOT)}: written, {len(content)} bytes")
        return 0
    is_equal = path.read_bytes() == content
    print(
        f"{path.relative_to(ROOT)}: {'equal' if is_equal else 'DIFFERS from what is written now'}"
    )
    return 0 if is_equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
