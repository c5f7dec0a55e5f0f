"""Say whether a plan runs on a device, and if not, why and what to do.

The device is a board's name, a fingerprint file of 'edgeplan probe --json', cuda:N, or this
machine.
"""

from __future__ import annotations

import argparse
import json

from planformat.fingerprint import DeviceFingerprint, compare, describe_differences
from planformat.plan import Plan, Variant

_RUNS, _RUNS_IF_ALLOWED, _DOES_NOT = 0, 3, 4
_NAMES = {_RUNS: "yes", _RUNS_IF_ALLOWED: "if differences are allowed", _DOES_NOT: "no"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan explain`."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="BOARD|F.json|cuda:N",
        help="default: this machine (its GPU for a plan of a GPU)",
    )


def run(args: argparse.Namespace) -> int:
    """Explain. Returns 0: runs; 3: runs if differences are allowed; 4: does not run."""
    from planformat.stripped import open_whole_or_stripped

    with open_whole_or_stripped(args.plan) as (plan, container):
        is_stripped = container.is_stripped
        answers = [_explain(plan, v, _device(args.device, v)) for v in plan.variants]
        kinds = [variant.fingerprint.device_kind for variant in plan.variants]
    if args.json:
        rows = [
            {"variant": number, "device_kind": kind, "runs": _NAMES[verdict], "text": text}
            for number, (kind, (verdict, text)) in enumerate(zip(kinds, answers, strict=True))
        ]
        print(json.dumps({"plan": args.plan, "is_stripped": is_stripped, "variants": rows}))
    else:
        for number, (kind, (_, text)) in enumerate(zip(kinds, answers, strict=True)):
            print(f"variant {number} ({kind}): {text}")
        if is_stripped:
            print("its weights were stripped: that holds once 'edgeplan refit' has put them in")
    return min(verdict for verdict, _ in answers)


def _device(name: str, variant: Variant) -> DeviceFingerprint:
    from builder_host.builder import resolve_target

    if name == "auto" and variant.fingerprint.device_kind == "cuda":
        name = "cuda:0"
    return resolve_target(name)[0]


def _explain(plan: Plan, variant: Variant, device: DeviceFingerprint) -> tuple[int, str]:
    if device.device_kind != variant.fingerprint.device_kind:
        return _DOES_NOT, (
            f"does not run there: it is for a {variant.fingerprint.device_kind} device, that one "
            f"is of kind {device.device_kind}; build with that device as --target"
        )
    differences = compare(variant.fingerprint, device)
    needed = sum(plan.chunk_lengths) + max(profile.arena_bytes for profile in variant.profiles)
    memory = int(device.fields.get("cuda.memory_bytes", "0"))
    if memory and needed > memory:
        return _DOES_NOT, (
            f"does not run there: weights and arena need {needed:,} bytes, the device has "
            f"{memory:,}; build with a lower precision or a smaller batch"
        )
    size = f"needs {needed:,} bytes for weights and arena"
    if not differences:
        return _RUNS, f"runs there; every fingerprint field matches; {size}"
    text = describe_differences(differences)
    allowed = [difference.field for difference in differences]
    if compare(variant.fingerprint, device, allow=allowed):
        return _DOES_NOT, f"does not run there; {size}\n{text}"
    return _RUNS_IF_ALLOWED, (
        f"runs there if you allow what differs ({', '.join(allowed)}); {size}\n{text}"
    )
