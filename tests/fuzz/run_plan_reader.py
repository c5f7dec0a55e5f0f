"""Mutate plans for a long time and stop at the first exception that is no PlanError.

Run: python tests/fuzz/run_plan_reader.py --seconds 600 [--seed N] [--keep crash.plan]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.plans import (  # noqa: E402
    GOLDEN_KEY,
    patched,
    rehash,
    reseal,
    sample_plan,
    section_range,
    with_manifest,
)

from planformat.container import SectionKind  # noqa: E402
from planformat.errors import PlanError  # noqa: E402
from planformat.reader import read_plan  # noqa: E402
from planformat.writer import plan_bytes  # noqa: E402

SEED = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
MANIFEST = SEED[slice(*section_range(SEED, SectionKind.MANIFEST))]
EDGES = [0, 1, 0x7F, 0x80, 0xFF]


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few random changes: set, insert, delete or copy short ranges."""
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 3, 8])):
        at = source.randrange(len(changed) + 1)
        length = source.choice([1, 1, 2, 4, 8, 30])
        match source.randrange(4):
            case 0:
                changed[at : at + length] = bytes(source.choices(EDGES, k=length))
            case 1:
                changed[at:at] = source.randbytes(length)
            case 2:
                del changed[at : at + length]
            case _:
                start = source.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + length]
    return bytes(changed)


def one_input(source: random.Random) -> bytes:
    """A mutated plan in which the hashes are right as often as not."""
    begin, end = section_range(SEED, SectionKind.MANIFEST)
    match source.randrange(4):
        case 0:
            return mutate(SEED, source)
        case 1:
            data = patched(SEED, 0, mutate(SEED[:640], source)[:640])
            return reseal(data) if 0 < int.from_bytes(data[48:52], "little") < 20 else data
        case 2:
            manifest = (mutate(MANIFEST, source) + MANIFEST)[: end - begin]
            return rehash(patched(SEED, begin, manifest), SectionKind.MANIFEST)
        case _:
            return with_manifest(SEED, mutate(MANIFEST, source) or b"\0")


def main() -> int:
    """Fuzz until the time is over; 1 when an input broke the reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("crash.plan"))
    options = parser.parse_args()
    source = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    num_inputs = num_read = 0
    while time.monotonic() < end:
        data = one_input(source)
        num_inputs += 1
        try:
            read_plan(data)
            num_read += 1
        except PlanError:
            continue
        except Exception:
            options.keep.write_bytes(data)
            print(f"input {num_inputs} broke the reader; kept as {options.keep}")
            raise
    print(f"{num_inputs} inputs, {num_read} of them valid plans, no crash")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
