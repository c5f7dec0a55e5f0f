"""A plan as one HTML page that needs nothing else: graph, times, arena, weights, roofs, origin."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from builder_host.inspection.charts import arena_chart, constants_line, roof_chart, time_line
from builder_host.inspection.graph import network_graph
from builder_host.inspection.operations import (
    OperationRow,
    operation_rows,
    packed_bytes,
    required_details,
)
from builder_host.inspection.roofs import device_roofs
from planformat.details import ProfileDetails
from planformat.plan import Plan, Profile, Variant
from planformat.recipe import BuildRecipe

_STYLE = Path(__file__).with_name("page.css")


def plan_page(plan: Plan, *, source: str = "plan") -> str:
    """HTML text.

    Args:
        plan: with details.
        source: its name for messages.

    Raises:
        PlanError: the plan carries no details, or they do not fit it.
    """
    details = required_details(plan, source)
    parts = [_head(plan), _summary(plan)]
    for number, (variant, profiles) in enumerate(zip(plan.variants, details.variants, strict=True)):
        several = len(plan.variants) > 1
        parts.append(f"<h2>Variant {number}</h2>" if several else "")
        for profile, own in zip(variant.profiles, profiles, strict=True):
            parts.append(_profile(plan, variant, profile, own))
        parts += [_code(variant), _fingerprint(variant)]
    parts.append(_provenance(plan, details.recipe))
    return "\n".join([*parts, "</body></html>\n"])


def _head(plan: Plan) -> str:
    name = html.escape(plan.name)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} – plan</title><style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><h1>{name}</h1>"
    )


def _summary(plan: Plan) -> str:
    variant = plan.variants[0]
    profile = variant.profiles[0]
    latency = profile.canary.latency_us if profile.canary else None
    code_bytes = sum(len(code.data) for code in variant.code_objects)
    device = variant.fingerprint.fields
    title = device.get("cuda.name") or device.get("cpu.model") or variant.fingerprint.device_kind
    boxes = [
        ("device", title),
        ("latency at build", "not measured" if latency is None else f"{latency:,.1f} µs"),
        ("weights", _size(sum(plan.chunk_lengths))),
        ("code", _size(code_bytes)),
        ("activation arena", _size(profile.arena_bytes)),
        ("steps", f"{len(profile.steps)}"),
    ]
    figures = "".join(
        f"<div><b>{html.escape(value)}</b><span>{name}</span></div>" for name, value in boxes
    )
    rows = [
        [
            "input" if binding.is_input else "output",
            binding.name,
            binding.dtype.text,
            " | ".join("×".join(map(str, p.shapes[i])) or "scalar" for p in variant.profiles),
        ]
        for i, binding in enumerate(plan.bindings)
    ]
    return f'<div class="figures">{figures}</div>' + _table(
        ("", "binding", "type", "shape by profile"), rows
    )


def _profile(plan: Plan, variant: Variant, profile: Profile, details: ProfileDetails) -> str:
    rows = operation_rows(profile, details.operations)
    total = sum(row.time_us or 0.0 for row in rows)
    measured = sum(row.is_measured for row in rows)
    roofs = device_roofs(variant.fingerprint, profile.num_workers)
    bound = profile.arena_lower_bound_bytes
    ratio = f", {profile.arena_bytes / bound:.3f} of the lower bound" if bound else ""
    note = (
        "Lines are nominal peaks of the device; dots above a line use an algorithm with fewer "
        "operations than the definition, such as Winograd."
        if roofs is not None
        else "Neither the fingerprint nor a board file tells clocks and bandwidth: no roofs."
    )
    times = f"{measured} of {len(rows)} operations were measured on the device, each by itself" + (
        "." if measured == len(rows) else "; the others are predictions of the cost model."
    )
    return "".join(
        (
            f"<h2>Profile {html.escape(profile.name)}</h2>",
            "<h3>Network after fusion</h3>",
            '<p class="note">Colour: element type of the result. Hover over a box for tensors, '
            "parameters and tactic.</p>",
            f'<div class="scroll">{network_graph(rows)}</div>' if rows else "<p>No steps.</p>",
            f'<h3>Time</h3><p class="note">{times}</p>',
            time_line(rows),
            '<h3>Constants by size</h3><p class="note">In KiB, as packed for the tactics: '
            "transformed and padded ones are larger than the model's.</p>",
            constants_line(rows, packed_bytes(plan, profile, rows)),
            f'<h3>Arena over time</h3><p class="note">{_size(profile.arena_bytes)}{ratio}.</p>',
            arena_chart(profile, details.arena, len(rows)),
            f'<h3>Roofs</h3><p class="note">{note}</p>',
            roof_chart(rows, roofs),
            "<h3>Operations</h3>",
            _operations(rows, total),
        )
    )


def _operations(rows: Sequence[OperationRow], total_us: float) -> str:
    cells = []
    for index, row in enumerate(rows):
        share = "" if not total_us or row.time_us is None else f"{row.time_us / total_us:.1%}"
        rate = row.giga_operations_per_second
        time = "" if row.time_us is None else f"{row.time_us:,.2f}{'' if row.is_measured else '*'}"
        cells.append(
            [
                f"{index}",
                row.details.name,
                row.details.kind,
                row.tactic,
                f"{row.element_type} {row.format}",
                _size(row.weight_bytes) if row.weight_bytes else "",
                f"{row.details.num_operations / 1e6:,.2f}",
                time,
                share,
                "" if rate is None else f"{rate:,.0f}",
            ]
        )
        if len(row.steps) > 1:  # a time of each is not known: they were measured together
            steps = ((f"↳ {step.name}", "step", step.tactic) for step in row.steps)
            cells += [["", *step, *[""] * 6] for step in steps]
    heads = (
        "",
        "operation",
        "kind",
        "tactic",
        "result",
        "constants",
        "Mop",
        "µs",
        "share",
        "Gop/s",
    )
    text = _table(heads, cells, numbers=range(5, 10), code=(3,))
    mark = "" if all(row.is_measured for row in rows) else '<p class="note">* predicted</p>'
    return f'<div class="scroll">{text}</div>{mark}'


def _code(variant: Variant) -> str:
    rows = []
    for index, code in enumerate(variant.code_objects):
        symbols = [kernel.symbol for kernel in variant.kernels if kernel.code_object == index]
        shown = ", ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" * (len(symbols) > 4))
        rows.append(
            [code.kind.name, code.architecture, _size(len(code.data)), code.toolchain, shown]
        )
    heads = ("code", "for", "size", "toolchain", "kernels")
    return f"<h2>Code</h2>{_table(heads, rows, numbers=(2,), code=(4,))}"


def _fingerprint(variant: Variant) -> str:
    rows = [[name, value] for name, value in variant.fingerprint.fields.items()]
    return "<h2>Fingerprint</h2>" + _table(("field", "value"), rows)


def _provenance(plan: Plan, recipe: BuildRecipe | None) -> str:
    rows = [[name, value] for name, value in plan.provenance.items()]
    rows += [
        [f"built from {file.name}", f"{file.num_bytes:,} bytes, SHA-256 {file.sha256}"]
        for file in (recipe.files if recipe is not None else ())
    ]
    return "<h2>Provenance</h2>" + _table(("fact", "value"), rows)


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    code: Sequence[int] = (),
) -> str:
    def cell(index: int, text: str, tag: str) -> str:
        kind = ' class="n"' if index in numbers else ""
        content = html.escape(text)
        if index in code and tag == "td":
            content = f"<code>{content}</code>"
        return f"<{tag}{kind}>{content}</{tag}>"

    head = "".join(cell(i, text, "th") for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell(i, text, "td") for i, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _size(num_bytes: int) -> str:
    if num_bytes >= 1 << 20:
        return f"{num_bytes / (1 << 20):,.2f} MiB"
    return f"{num_bytes / 1024:,.1f} KiB" if num_bytes >= 1024 else f"{num_bytes} B"
