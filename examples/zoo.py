"""Every network of a folder with cases.json: built, run, compared with the stored answers.

python -m examples.zoo [--data DIR] [--only PATTERN]

Kernels are taken by the cost model; nothing is timed but the build.
"""

from __future__ import annotations

import argparse
import fnmatch
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA
from examples.zoo_cases import (
    Case,
    Row,
    UnusableCaseError,
    case_rows,
    largest_error,
    load_case,
)

QUICK = bh.BuilderConfig(measure="none", is_checked=False)  # the stored answers are the check
HEAD = (
    f"{'network':40} {'steps':>5} {'weights MB':>10} {'arena MB':>9} {'bound MB':>9} {'build s':>7}"
)


@dataclass(frozen=True)
class Outcome:
    """What became of one case: its row of the table, and whether the answer is right."""

    text: str
    verdict: str


def check(case: Case, config: bh.BuilderConfig = QUICK) -> Outcome:
    """Build a case's plan, run it on all of its inputs, compare."""
    start = time.perf_counter()
    plan = bh.build(case.network, config).to_bytes()
    seconds = time.perf_counter() - start
    with rt.load(plan) as engine:
        profile = engine.profile()
        text = (
            f"{case.id:40} {len(profile.steps):5} {engine.weights_bytes / 1e6:10.2f} "
            f"{profile.arena_bytes / 1e6:9.3f} {profile.arena_lower_bound_bytes / 1e6:9.3f} "
            f"{seconds:7.2f}  "
        )
        results = run(case, engine)
    if case.labels is not None:
        prob = np.concatenate([next(iter(row.values())) for row in results])
        right = int((prob.reshape(len(case.labels), -1).argmax(1) == case.labels).sum())
        text += f"{right} of {len(case.labels)} right, expected {case.num_right}"
        return Outcome(text, "agrees" if right == case.num_right else "differs")
    error = largest_error(case, results)
    text += f"largest error {error:.1e}, allowed {case.atol:.0e}"
    return Outcome(text, "agrees" if error <= case.atol else "differs")


def run(case: Case, engine: rt.Engine) -> list[Row]:
    """All inferences of a case; states go from one to the next and are zero before the first."""
    takes = {binding.name: binding.dtype.name for binding in engine.bindings if binding.is_input}
    held = {name: np.zeros(engine.binding_shape(name), np.float32) for name in case.states}
    results = []
    with engine.create_context() as context:
        for row in case.rows:
            given = {
                name: values if takes[name] != "FLOAT32" else values.astype(np.float32)
                for name, values in {**row, **held}.items()
            }
            results.append({k: np.array(v) for k, v in context.execute(given).items()})
            held = {name: results[-1][output] for name, output in case.states.items()}
    return results


def main() -> int:
    """Print a line per case. Returns 1 when an answer differs."""
    parser = argparse.ArgumentParser(prog="python -m examples.zoo", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with cases.json")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases such as 'caffe/*'")
    args = parser.parse_args()
    counts = {"agrees": 0, "differs": 0, "left out": 0}
    print(HEAD)
    for row in case_rows(args.data):
        if not fnmatch.fnmatch(row["id"], args.only):
            continue
        try:
            outcome = check(load_case(row, args.data))
        except UnusableCaseError as error:
            outcome = Outcome(f"{row['id']:40} {error}", "left out")
        except (bh.BuilderError, rt.RuntimeEdgeError) as error:
            outcome = Outcome(f"{row['id']:40} {type(error).__name__}: {error}", "differs")
        counts[outcome.verdict] += 1
        print(f"{outcome.text}: {outcome.verdict}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["differs"] or not counts["agrees"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
