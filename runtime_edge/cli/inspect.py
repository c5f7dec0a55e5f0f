"""Show what a plan holds: bindings, variants, profiles, memory, steps with their times."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planformat.container import Container
from planformat.details import plan_details
from planformat.plan import Plan, Profile, Step, Variant
from planformat.stripped import open_whole_or_stripped
from runtime_edge.cli import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file; need not be for this device")
    parser.add_argument(
        "--html",
        metavar="OUT.html",
        help="write one self-contained page: graph, times, arena, roofs (needs edgeplan[builder])",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_whole_or_stripped(args.plan) as (plan, container):
        return _inspect(args, plan, container)


def _inspect(args: argparse.Namespace, plan: Plan, container: Container) -> int:
    if args.html is not None:
        size = _write_page(plan, args.plan, Path(args.html))
        if args.json:
            print(json.dumps({"page": args.html, "bytes": size}))
        else:
            print(f"wrote {args.html} ({size:,} B)")
        return 0
    report = describe(plan, container)
    print(json.dumps(report) if args.json else "\n".join(_lines(report)))
    return 0


def _write_page(plan: Plan, source: str, path: Path) -> int:
    """Write the page. Returns its size in bytes."""
    # By name, because the host side must not be needed for anything else here.
    try:
        page = importlib.import_module("builder_host.inspection.page")
    except ImportError as error:
        raise CommandError(
            f"--html needs the host side ({error}); install it with: pip install edgeplan[builder]"
        ) from error
    path.write_text(page.plan_page(plan, source=source), encoding="utf-8")
    return path.stat().st_size


def describe(plan: Plan, container: Container) -> dict[str, Any]:
    """Everything but weights and code, as JSON takes it."""
    return {
        "name": plan.name,
        "format": f"1.{container.minor}",
        "sections": [
            {
                "kind": entry.name,
                "offset": entry.offset,
                "bytes": entry.length,
                "sha256": entry.sha256.hex(),
            }
            for entry in container.entries
        ],
        "weights_bytes": sum(plan.chunk_lengths),
        "is_stripped": container.is_stripped,
        "built_from": _built_from(plan),
        "weights_chunks": len(plan.chunk_lengths),
        "bindings": [
            {
                "name": binding.name,
                "is_input": binding.is_input,
                "dtype": binding.dtype.text,
                "format": binding.format.name,
            }
            for binding in plan.bindings
        ],
        "variants": [_describe_variant(variant) for variant in plan.variants],
        "provenance": dict(plan.provenance),
    }


def _built_from(plan: Plan) -> list[dict[str, Any]]:
    """The model's files as the plan's details name them; empty where they do not."""
    details = plan_details(plan, source=plan.name)
    if details is None or details.recipe is None:
        return []
    return [asdict(file) for file in details.recipe.files]


def _describe_variant(variant: Variant) -> dict[str, Any]:
    return {
        "device_kind": variant.fingerprint.device_kind,
        "fingerprint": dict(variant.fingerprint.fields),
        "code_objects": [
            {
                "kind": code.kind.name,
                "architecture": code.architecture,
                "toolchain": code.toolchain,
                "bytes": len(code.data),
            }
            for code in variant.code_objects
        ],
        "num_kernels": len(variant.kernels),
        "profiles": [_describe_profile(variant, profile) for profile in variant.profiles],
    }


def _describe_profile(variant: Variant, profile: Profile) -> dict[str, Any]:
    canary = profile.canary
    return {
        "name": profile.name,
        "shapes": [list(shape) for shape in profile.shapes],
        "num_workers": profile.num_workers,
        "arena_bytes": profile.arena_bytes,
        "arena_lower_bound_bytes": profile.arena_lower_bound_bytes,
        "canary_latency_us": canary.latency_us if canary else None,
        "has_canary": canary is not None,
        "steps": [_describe_step(variant, step) for step in profile.steps],
    }


def _describe_step(variant: Variant, step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "symbol": variant.kernels[step.kernel].symbol,
        "tactic": step.tactic,
        "grid": list(step.grid),
        "scratch_bytes_per_worker": step.scratch_bytes_per_worker,
        "is_concurrent": step.is_concurrent,
        "measured_us": step.measured_us,
        "predicted_us": step.predicted_us,
    }


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['name']} (plan format {report['format']})", "bindings:"]
    profiles = report["variants"][0]["profiles"]
    for index, binding in enumerate(report["bindings"]):
        shapes = {"x".join(map(str, p["shapes"][index])) or "scalar" for p in profiles}
        layout = "" if binding["format"] == "LINEAR" else f" {binding['format']}"
        lines.append(
            f"  {'in ' if binding['is_input'] else 'out'} {binding['name']}: {binding['dtype']} "
            f"{' | '.join(sorted(shapes))}{layout}"
        )
    stripped = ", stripped: edgeplan refit puts them in" if report["is_stripped"] else ""
    lines.append(
        f"weights: {report['weights_bytes']:,} bytes in {report['weights_chunks']} chunks{stripped}"
    )
    lines += [
        f"built from: {file['name']}, {file['num_bytes']:,} bytes, SHA-256 {file['sha256']}"
        for file in report["built_from"]
    ]
    for index, variant in enumerate(report["variants"]):
        lines.append(f"variant {index}: {variant['device_kind']}")
        lines += [f"  {name}: {value}" for name, value in sorted(variant["fingerprint"].items())]
        for code in variant["code_objects"]:
            lines.append(
                f"  code: {code['kind']} for {code['architecture']}, {code['bytes']:,} bytes, "
                f"{code['toolchain']}"
            )
        for profile in variant["profiles"]:
            lines += _profile_lines(profile)
    lines += [f"{name}: {value}" for name, value in sorted(report["provenance"].items())]
    return lines


def _profile_lines(profile: dict[str, Any]) -> list[str]:
    times = [step["measured_us"] for step in profile["steps"]]
    total = f"{sum(times):,.1f} µs" if times and None not in times else "not measured"
    latency = profile["canary_latency_us"]
    lines = [
        f"  profile {profile['name']}: {len(profile['steps'])} steps for "
        f"{profile['num_workers']} threads, sum of steps {total}, arena "
        f"{profile['arena_bytes']:,} bytes (lower bound {profile['arena_lower_bound_bytes']:,})"
        + (f", one inference {latency:,.1f} µs" if latency is not None else "")
    ]
    for step in profile["steps"]:
        measured, predicted = step["measured_us"], step["predicted_us"]
        if measured is not None:
            time = f"{measured:10.1f} µs "
        else:
            time = f"{predicted:10.1f} µs?" if predicted is not None else f"{'':13} "
        mark = "| " if step["is_concurrent"] else ""
        lines.append(f"  {time} {mark}{step['name']}  [{step['tactic'] or step['symbol']}]")
    return lines
