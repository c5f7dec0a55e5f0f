"""Tasks on plans in the agent's child processes: check one before it is activated, run one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boards.conditions import (
    available_memory_bytes,
    conditions_text,
    parse_conditions,
    read_conditions,
    slow_causes,
)

_LATENCY_MARGIN = 0.10  # more than this off the build's record is worth a word

Answer = Callable[..., None]


def check(task: Mapping[str, Any], answer: Answer) -> None:
    """Everything that must hold before a plan may become active; see PROTOCOL.md."""
    from planformat.fingerprint import select_match
    from planformat.reader import open_plan
    from planformat.release import release_of
    from runtime_edge.device.select import choose_device
    from runtime_edge.engine import load
    from runtime_edge.latency import measure_latency

    public_key = bytes.fromhex(task["public_key"]) if task["public_key"] else None
    allow, source = task["allow"], task["source"]
    with open_plan(task["path"], public_key=public_key) as opened:
        plan = opened.plan
        release = release_of(plan)
        answer(step="hashes" if public_key is None else "hashes and signature")
        device = choose_device(plan, None, allow=allow, source=source)
        fingerprints = [variant.fingerprint for variant in plan.variants]
        index = select_match(fingerprints, device.probe(), allow=allow, source=source)
        answer(step="fingerprint")
        largest = max(
            profile.arena_bytes
            + profile.num_workers
            * max((s.scratch_bytes_per_worker for s in profile.steps), default=0)
            for profile in plan.variants[index].profiles
        )
        needed = len(plan.weights) + largest
        conditions = plan.provenance.get("conditions", "")
        del plan
    available = _available_bytes(device)
    if available is not None and needed > available:
        answer(
            error=f"needs {needed:,} bytes of memory (weights, and the largest context of one "
            f"user), {available:,} are available; stop something, or build a smaller profile",
            code="memory",
        )
        return
    answer(step="memory")
    engine = load(task["path"], public_key=public_key, allow=allow)
    try:
        report = engine.canary_report
        answer(step="canary" if report is not None else "loads (the plan holds no canary)")
        notes = [] if report is not None else ["the plan holds no canary; nothing was compared"]
        built_us = report.built_latency_us if report is not None else None
        profile = report.profile if report is not None else None
        checked_us = measure_latency(engine, profile).median_us
        notes += _latency_notes(checked_us, built_us, conditions)
        answer(
            network=engine.name,
            number=release.number,
            expires=release.expires,
            built_us=built_us,
            checked_us=checked_us,
            needed_bytes=needed,
            notes=notes,
            conditions=conditions_text(read_conditions()),
        )
    finally:
        engine.close()


def _available_bytes(device: Any) -> int | None:
    """Memory that a plan may take: of the device, which on integrated GPUs is the system's."""
    limits = [available_memory_bytes()]
    if device.kind == "cuda":
        limits.append(device.free_memory()[0])
    return min((limit for limit in limits if limit is not None), default=None)


def _latency_notes(checked_us: float, built_us: float | None, built: str) -> list[str]:
    if not built_us:
        return ["the plan records no latency; build it with timings of this device to compare"]
    ratio = checked_us / built_us
    if abs(ratio - 1) <= _LATENCY_MARGIN:
        return []
    text = f"latency is {checked_us:,.1f} µs, {ratio:.2f} times the {built_us:,.1f} µs at build"
    if ratio < 1:
        return [f"{text}: the build's machine was busier or slower clocked"]
    causes = slow_causes(read_conditions(), parse_conditions(built))
    return [f"{text}; likely: {cause}" for cause in causes] or [
        f"{text}; clocks, heat and load look normal here: compare with 'edgeplan bench --steps'"
    ]


def run(task: Mapping[str, Any], answer: Answer) -> None:
    """One inference on given inputs; outputs are written beside each other into one file."""
    from planformat.tensors import storage_bytes
    from runtime_edge.engine import load
    from runtime_edge.latency import measure_latency
    from runtime_edge.memory import ALIGNMENT_BYTES

    public_key = bytes.fromhex(task["public_key"]) if task["public_key"] else None
    with load(
        task["path"], public_key=public_key, allow=task["allow"], canary=task["canary"]
    ) as engine:
        device = engine.device
        addresses: dict[str, int] = {}
        rows: list[dict[str, Any]] = []
        with engine.create_stream() as stream, engine.create_context() as context:
            shapes = context.profile.shapes
            for binding, shape in zip(engine.bindings, shapes, strict=True):
                size = storage_bytes(shape, binding.dtype, binding.format)
                address = device.allocate(size, ALIGNMENT_BYTES)
                addresses[binding.name] = address
                if binding.is_input:
                    device.write(address, _input_bytes(task, binding, len(addresses) - 1, shape))
                else:
                    rows.append(
                        {
                            "name": binding.name,
                            "bytes": size,
                            "dtype": binding.dtype.name.lower(),
                            "shape": list(shape),
                        }
                    )
            start = time.perf_counter_ns()
            context.enqueue(addresses, stream)
            stream.synchronize()
            elapsed_us = (time.perf_counter_ns() - start) / 1000
            with open(task["output"], "wb") as file:
                for row in rows:
                    file.write(device.read(addresses[row["name"]], row["bytes"]))
        for address in addresses.values():
            device.free(address)
        latency = measure_latency(engine) if task["time"] else None
    answer(
        outputs=rows,
        time_us=round(elapsed_us, 1),
        latency=latency,
        conditions=conditions_text(read_conditions()),
    )


def _input_bytes(
    task: Mapping[str, Any], binding: Any, index: int, shape: tuple[int, ...]
) -> bytes:
    """What the host sent for an input, or the canary's values."""
    from planformat.canary import canary_input
    from planformat.tensors import storage_bytes, storage_elems

    if task["canary_seed"] is not None:
        count = storage_elems(shape, binding.format)
        return canary_input(task["canary_seed"], index, count, binding.dtype)
    inputs: Mapping[str, str] = task["inputs"]
    if binding.name not in inputs:
        known = ", ".join(inputs) or "none"
        raise ValueError(f"input '{binding.name}' is missing; given are {known}")
    size = storage_bytes(shape, binding.dtype, binding.format)
    data = Path(inputs[binding.name]).read_bytes()
    if len(data) != size:
        raise ValueError(f"input '{binding.name}' has {len(data):,} bytes, the plan takes {size:,}")
    return data
