"""The conformance suites of the installed onnx package, run as plans.

Cases are imported one by one; many imported networks are then put side by side into one network,
so that one build and one plan serve them all. A group that cannot be built is halved until the
case at fault stands alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import builder_host as bh
import runtime_edge as rt
from builder_host.errors import BuilderError, ImportModelError
from builder_host.importers.onnx import import_onnx
from builder_host.network.copying import copy_network
from builder_host.network.network import Network
from planformat.datatypes import DataType
from planformat.errors import PlanError
from runtime_edge.arrays import NUMPY_TYPES
from runtime_edge.errors import RuntimeEdgeError
from support.onnx_models import frozen
from support.onnx_suite_cases import Array, SuiteCase, scope_rules

BFLOAT16_RTOL = 2**-6  # two units in the last place, as the suite's own runner allows
GROUP_SIZE = 40
BOUNDED = frozenset({"NonZero", "NonMaxSuppression"})  # unused places of their results hold -1


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        suite, name: of the case.
        outcome: `passed`, `folded` (all outputs were right, but no kernel ran: everything was
            known at build time), `failed` or `out of scope`.
        detail: reason, empty for a case that was right.
    """

    suite: str
    name: str
    outcome: str
    detail: str = ""


# --- import ----------------------------------------------------------------------------------


@dataclass
class _Imported:
    """A case as a network of its own; names of the network's inputs are those of the model."""

    case: SuiteCase
    network: Network
    values: dict[str, Array]  # by input name
    expected: dict[str, Array]  # by output name


def import_case(case: SuiteCase) -> _Imported:
    """Import a case; inputs that must be known at build time become initialisers.

    First none, then those that a message names, then integers after the first input, then all
    after the first, then all. Raises the first ImportModelError when none of these works.
    """
    model, inputs, expected = with_tensor_bindings(case)
    names = list(inputs)
    known = {n for n in names if not inputs[n].size}
    integers = {n for n in names[1:] if inputs[n].dtype.kind in "iub"}
    first: ImportModelError | None = None
    steps = [integers, set(names[1:]), set(names)]
    while True:
        fixed = {n: inputs[n] for n in names if n in known}
        shapes = {n: inputs[n].shape for n in names if n not in known}
        try:
            network = import_onnx(frozen(model, fixed), shapes=shapes)
        except ImportModelError as error:
            first = first or error
            if "known at build time" not in str(error):
                raise
            named = {n for n in names if f"'{n}'" in str(error)} - known
            while not named and steps:
                named = steps.pop(0) - known
            if not named:
                raise first from error
            known |= named
        else:
            free = {t.name: inputs[t.name] for t in network.inputs}
            return _Imported(case, network, free, expected)


def with_tensor_bindings(
    case: SuiteCase,
) -> tuple[onnx.ModelProto, dict[str, Array], dict[str, Array]]:
    """The model with sequences and optionals at its edges replaced by tensors, and all values.

    A sequence input is put together from one tensor input per item, an optional one from a tensor
    or from nothing; sequences at the outputs are taken apart, their lengths are outputs as well.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    inputs: dict[str, Array] = {}
    kept: list[onnx.ValueInfoProto] = []
    before: list[onnx.NodeProto] = []
    for info, value in zip(list(graph.input), case.inputs, strict=False):
        name, kind = info.name, info.type
        if kind.WhichOneof("value") == "tensor_type":
            kept.append(info)
            inputs[name] = value
            continue
        is_optional = kind.WhichOneof("value") == "optional_type"
        inner = kind.optional_type.elem_type if is_optional else kind
        made = f"{name}:content" if is_optional else name
        if value is None:
            before.append(helper.make_node("Optional", [], [name], type=inner))
            continue
        if inner.WhichOneof("value") == "sequence_type":
            code = inner.sequence_type.elem_type.tensor_type.elem_type
            items = [f"{name}:{number}" for number in range(len(value))]
            for item, array in zip(items, value, strict=True):
                kept.append(helper.make_tensor_value_info(item, code, np.shape(array)))
                inputs[item] = np.asarray(array)
            operator = "SequenceConstruct" if items else "SequenceEmpty"
            options: dict[str, Any] = {} if items else {"dtype": code}
            before.append(helper.make_node(operator, items, [made], **options))
        else:
            code = inner.tensor_type.elem_type
            kept.append(helper.make_tensor_value_info(made, code, np.shape(value)))
            inputs[made] = np.asarray(value)
        if is_optional:
            before.append(helper.make_node("Optional", [made], [name]))
    after: list[onnx.NodeProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    expected: dict[str, Array] = {}
    for info, value in zip(list(graph.output), case.outputs, strict=True):
        name, kind = info.name, info.type
        if kind.WhichOneof("value") == "tensor_type":
            outputs.append(info)
            expected[name] = value
            continue
        inner = kind
        if kind.WhichOneof("value") == "optional_type":
            inner = kind.optional_type.elem_type
            if value is None:
                after.append(helper.make_node("OptionalHasElement", [name], [f"{name}:has"]))
                expected[f"{name}:has"] = np.asarray(False)
                continue
            after.append(helper.make_node("OptionalGetElement", [name], [f"{name}:content"]))
            name = f"{name}:content"
        if inner.WhichOneof("value") == "tensor_type":
            expected[name] = np.asarray(value)
            continue
        after.append(helper.make_node("SequenceLength", [name], [f"{name}:length"]))
        expected[f"{name}:length"] = np.asarray(len(value), np.int64)
        for number, array in enumerate(value):
            place = f"{name}:at{number}"
            where = numpy_helper.from_array(np.asarray(number, np.int64))
            after.append(helper.make_node("Constant", [], [place], value=where))
            after.append(helper.make_node("SequenceAt", [name, place], [f"{name}:{number}"]))
            expected[f"{name}:{number}"] = np.asarray(array)
    known = {o.name for o in outputs}
    outputs += [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None)
        for n, v in expected.items()
        if n not in known
    ]
    changed: dict[str, list[Any]] = {
        "node": [*before, *graph.node, *after],
        "input": kept,
        "output": outputs,
    }
    for role, items in changed.items():
        copied = [copy.deepcopy(item) for item in items]  # those of the graph end with their list
        del getattr(graph, role)[:]
        getattr(graph, role).extend(copied)
    order = [o.name for o in graph.output]
    return model, inputs, {n: expected[n] for n in order}


_FAILURES = (
    *(BuilderError, PlanError, RuntimeEdgeError),
    *(ArithmeticError, LookupError, ValueError, TypeError, AssertionError),
)

# --- build and run -----------------------------------------------------------------------------


def run_cases(cases: Sequence[SuiteCase], config: bh.BuilderConfig) -> list[CaseResult]:
    """Import, build and run cases as one plan; halves the group where that fails."""
    results: dict[int, CaseResult] = {}
    imported: list[tuple[int, _Imported]] = []
    rules = scope_rules()
    for number, case in enumerate(cases):
        left_out = next((r for r in rules if r.applies(case)), None)
        if left_out is not None:
            results[number] = _result(case, "out of scope", left_out.reason)
            continue
        try:
            one = import_case(case)
        except ImportModelError as error:
            results[number] = _result(case, "failed", "; ".join(error.problems))
        else:
            imported.append((number, one))
    for number, result in _run_group(imported, config):
        results[number] = result
    return [results[number] for number in range(len(cases))]


def _run_group(
    group: Sequence[tuple[int, _Imported]], config: bh.BuilderConfig
) -> Iterator[tuple[int, CaseResult]]:
    if not group:
        return
    try:
        outputs = _outputs_of_group([one for _, one in group], config)
    except _FAILURES as e:
        if len(group) == 1:
            number, one = group[0]
            yield number, _result(one.case, "failed", f"{type(e).__name__}: {e}")
            return
        half = len(group) // 2
        yield from _run_group(group[:half], config)
        yield from _run_group(group[half:], config)
        return
    for (number, one), actual in zip(group, outputs, strict=True):
        text = difference(one, actual)
        ran = bool(one.network.inputs and one.network.layers)
        outcome = "failed" if text else "passed" if ran else "folded"
        yield number, _result(one.case, outcome, text)


def _result(case: SuiteCase, outcome: str, detail: str) -> CaseResult:
    return CaseResult(case.suite, case.name, outcome, detail)


def _outputs_of_group(
    group: Sequence[_Imported], config: bh.BuilderConfig
) -> list[dict[str, Array]]:
    merged = Network("suite")
    values: dict[str, Array] = {}
    for number, one in enumerate(group):
        prefix = f"{number}/"
        values |= {prefix + name: as_binding(v) for name, v in one.values.items()}
        append_network(merged, one.network, prefix)
    empty = [t for t in merged.outputs if not t.type.num_elems]
    results = {t.name: np.empty(t.shape, NUMPY_TYPES[t.dtype]) for t in empty}
    merged.outputs = [t for t in merged.outputs if t.type.num_elems]  # a plan has no empty ones
    if merged.outputs:
        plan = bh.build(merged, config).to_bytes()
        with rt.load(plan) as engine, engine.create_context() as context:
            results |= {n: np.array(v) for n, v in context.execute(values).items()}
    return [{n: results[f"{number}/{n}"] for n in one.expected} for number, one in enumerate(group)]


def append_network(target: Network, source: Network, prefix: str) -> None:
    """Copy a network into another one, every name behind a prefix."""
    copied = copy_network(source)
    for tensor in copied.tensors():
        tensor.name = target.unique_name(prefix + tensor.name)
    for output in copied.outputs:  # a constant output belongs to no layer
        if not output.name.startswith(prefix):
            output.name = target.unique_name(prefix + output.name)
    for layer in copied.layers:
        layer.name = prefix + layer.name
    target.inputs += copied.inputs
    target.layers += copied.layers
    target.outputs += copied.outputs


def as_binding(values: Array) -> Array:
    """An array as the runtime takes it: bfloat16 as raw bits."""
    return values.view(np.uint16) if values.dtype.name == "bfloat16" else values


def difference(one: _Imported, actual: Mapping[str, Array]) -> str:
    """What differs from the expected outputs; empty when nothing does."""
    types = {t.name: t.dtype for t in one.network.outputs}
    for name, want in one.expected.items():
        have = actual[name]
        rtol = one.case.rtol
        if types[name] is DataType.BFLOAT16:
            import ml_dtypes

            have = have.view(ml_dtypes.bfloat16)
            rtol = max(rtol, BFLOAT16_RTOL)
        if have.shape != want.shape and not BOUNDED.isdisjoint(one.case.operators):
            have, rest = _without_filling(have, want.shape)
            if rest:
                return f"{name}: {rest}"
        if have.shape != want.shape:
            return f"{name}: shape {have.shape}, expected {want.shape}"
        if have.dtype != want.dtype:
            return f"{name}: type {have.dtype}, expected {want.dtype}"
        if have.dtype.name == "bfloat16":
            have, want = have.astype(np.float32), want.astype(np.float32)
        is_close = np.isclose(have, want, rtol=rtol, atol=one.case.atol, equal_nan=True)
        if not is_close.all():
            places = np.flatnonzero(~is_close)
            first = int(places[0])
            return (
                f"{name}: {places.size} of {have.size} elements differ, element {first} is "
                f"{have.ravel()[first]}, expected {want.ravel()[first]}"
            )
    return ""


def _without_filling(have: Array, shape: tuple[int, ...]) -> tuple[Array, str]:
    """The part of a bounded result that the suite expects, and what is wrong with the rest."""
    if len(shape) != have.ndim or any(s > h for s, h in zip(shape, have.shape, strict=True)):
        return have, ""
    used = np.zeros(have.shape, bool)
    used[tuple(slice(0, extent) for extent in shape)] = True
    if not np.all(have[~used] == -1):
        return have, f"unused places hold {have[~used][:4]}, not -1"
    return have[used].reshape(shape), ""


def grouped(cases: Iterable[SuiteCase], size: int = GROUP_SIZE) -> list[list[SuiteCase]]:
    """Cases in groups of one plan each, neighbours apart so that slow ones spread."""
    items = list(cases)
    small = [c for c in items if c.suite != "light"]  # whole networks get plans of their own
    count = max(1, -(-len(small) // size))
    groups = [[c] for c in items if c.suite == "light"]
    return groups + [small[start::count] for start in range(count) if small]
