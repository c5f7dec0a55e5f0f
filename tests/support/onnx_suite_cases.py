"""The conformance suites of the installed onnx package as data: cases, and what is in scope."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference
from onnx import numpy_helper

Array = np.ndarray[Any, Any]
Value = Any  # an array, a list of arrays (a sequence), or None (an empty optional)

SUITES = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
SCOPE_FILE = Path(__file__).parents[1] / "conformance" / "onnx_node_scope.md"


@dataclass(frozen=True)
class SuiteCase:
    """One model with one set of inputs and expected outputs."""

    suite: str
    name: str
    model: onnx.ModelProto
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators of all graphs and functions, `domain.` in front of those outside ai.onnx."""
        return tuple(sorted({_shown(node) for node in _all_nodes(self.model)}))

    @property
    def opset(self) -> int:
        """Version of ai.onnx, or of the only domain there is."""
        versions = {e.domain: int(e.version) for e in self.model.opset_import}
        return versions.get("", versions.get("ai.onnx", max(versions.values(), default=0)))


@dataclass(frozen=True)
class Signature:
    """An operator in one schema version with the element type of its main tensor.

    That is the schema's type `T`, or the type of the first tensor where there is no `T`.
    """

    operator: str
    version: int
    dtype: str


def signatures(model: onnx.ModelProto) -> set[Signature]:
    """Operators of the main graph, as far as shape inference knows their element types."""
    opsets = {("" if e.domain == "ai.onnx" else e.domain): e.version for e in model.opset_import}
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        inferred = model.graph
    codes = {t.name: t.data_type for t in inferred.initializer}
    for info in [*inferred.input, *inferred.output, *inferred.value_info]:
        codes[info.name] = next(_type_codes(info.type), 0)
    found = set()
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema: Any = onnx.defs.get_schema(node.op_type, opsets.get(domain, 0), domain)
        except onnx.defs.SchemaError:
            continue
        typed = list(zip(node.input, schema.inputs, strict=False))
        typed += zip(node.output, schema.outputs, strict=False)
        typed.sort(key=lambda pair: pair[1].type_str != "T")  # Where's values, not its condition
        known = [codes[name] for name, _ in typed if codes.get(name)]
        if known:
            name = onnx.TensorProto.DataType.Name(known[0]).lower()
            found.add(Signature(_shown(node), int(schema.since_version), name))
    return found


# --- cases -----------------------------------------------------------------------------------


@functools.cache
def suite_cases(suite: str) -> tuple[SuiteCase, ...]:
    """All cases of one suite, one per data set."""
    from onnx.backend.test.loader import load_model_tests

    if suite == "light":
        return tuple(_light_cases())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own generators overflow on purpose
        loaded = load_model_tests(kind=suite)
    found: list[SuiteCase] = []
    for case in loaded:
        model: Any = case.model
        sets: Any = case.data_sets
        if model is None:
            folder = Path(str(case.model_dir))
            model = onnx.load(folder / "model.onnx")
            sets = list(_stored_sets(folder, model))
        for number, (inputs, outputs) in enumerate(sets):
            found.append(
                SuiteCase(
                    suite,
                    case.name + (f"#{number}" if number else ""),
                    model,
                    tuple(map(_as_value, inputs)),
                    tuple(map(_as_value, outputs)),
                    case.rtol,
                    case.atol,
                )
            )
    return tuple(found)


def _light_cases() -> Iterator[SuiteCase]:
    """Whole networks with made-up weights; their input is a ramp from 0 to 1."""
    import onnx.backend.test

    folder = Path(str(onnx.backend.test.__file__)).parent / "data" / "light"
    for path in sorted(folder.glob("light_*.onnx")):
        model = onnx.load(path)
        known = {t.name for t in model.graph.initializer}
        (data,) = (i for i in model.graph.input if i.name not in known)
        kept = onnx.ValueInfoProto.FromString(data.SerializeToString())
        del model.graph.input[:]  # some list their initialisers, too
        model.graph.input.append(kept)
        shape = tuple(d.dim_value for d in kept.type.tensor_type.shape.dim)
        count = int(np.prod(shape))
        ramp = (np.arange(count).reshape(shape) / count).astype(np.float32)
        stored = onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb"))
        expected = numpy_helper.to_array(stored)
        yield SuiteCase("light", path.stem, model, (ramp,), (expected,), 1e-3, 1e-7)


def _stored_sets(folder: Path, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    for place in sorted(folder.glob("test_data_set_*")):
        yield (
            _stored_values(place, "input", model.graph.input),
            _stored_values(place, "output", model.graph.output),
        )


def _stored_values(place: Path, role: str, infos: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    values: list[Any] = []
    for number in range(len(list(place.glob(f"{role}_*.pb")))):
        data = (place / f"{role}_{number}.pb").read_bytes()
        if infos[number].type.WhichOneof("value") == "sequence_type":
            values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
        else:
            values.append(onnx.TensorProto.FromString(data))
    return values


def _as_value(value: Any) -> Value:
    if isinstance(value, onnx.TensorProto):
        return np.asarray(numpy_helper.to_array(value))
    if isinstance(value, list | tuple):
        return [_as_value(v) for v in value]
    return value if value is None else np.asarray(value)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    graphs = [list(model.graph.node), *(list(f.node) for f in model.functions)]
    while graphs:
        for node in graphs.pop():
            yield node
            for attribute in node.attribute:
                graphs += [list(attribute.g.node)] if attribute.HasField("g") else []
                graphs += [list(g.node) for g in attribute.graphs]


def _shown(node: onnx.NodeProto) -> str:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)


# --- scope -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScopeRule:
    """One row of the scope table: what is left out and why."""

    key: str  # `operator`, `type`, `case` or `domain`
    value: str
    reason: str

    def applies(self, case: SuiteCase) -> bool:
        """Whether the row takes the case out of scope."""
        if self.key == "case":
            return (
                re.fullmatch(self.value.replace("*", ".*"), case.name.partition("#")[0]) is not None
            )
        if self.key == "type":
            return self.value in element_types(case.model)
        if self.key == "domain":
            return any(name.startswith(self.value + ".") for name in case.operators)
        return self.value in case.operators


def scope_rules() -> list[ScopeRule]:
    """Rows `| by | what | why |` of the scope page. Raises ValueError for a bad row."""
    rules = []
    for by, what, why in _table_rows(3):
        if by not in ("operator", "type", "case", "domain"):
            raise ValueError(f"{SCOPE_FILE.name}: '{by}' is no way to leave a case out")
        rules.append(ScopeRule(by, what, why))
    return rules


def known_differences() -> dict[str, str]:
    """Rows `| case | difference |` of the scope page: cases in scope that fail, and why."""
    return dict(_table_rows(2))


def _table_rows(num_cells: int) -> list[list[str]]:
    """Rows of the page's tables with that many columns, without their headings."""
    found: list[list[str]] = []
    is_heading = True
    for line in SCOPE_FILE.read_text().splitlines():
        if not line.startswith("|"):
            is_heading = True
            continue
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if set(line) <= set("|- "):
            is_heading = False
        elif not is_heading and len(cells) == num_cells:
            found.append(cells)
        elif len(cells) not in (2, 3):
            raise ValueError(f"{SCOPE_FILE.name}: not a row of its tables: {line}")
    return found


def element_types(model: onnx.ModelProto) -> set[str]:
    """Names of the element types of inputs, outputs, initialisers and `to` attributes."""
    names = onnx.TensorProto.DataType
    codes = {t.data_type for t in model.graph.initializer}
    for info in [*model.graph.input, *model.graph.output]:
        codes |= set(_type_codes(info.type))
    for node in _all_nodes(model):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype", "softmax_precision"):
                codes.add(attribute.i)
            if attribute.HasField("t"):
                codes.add(attribute.t.data_type)
            if attribute.type in (attribute.STRINGS,) and node.op_type == "Constant":
                codes.add(onnx.TensorProto.STRING)
    return {names.Name(c) for c in codes if c in names.values()} - {"UNDEFINED"}


def _type_codes(kind: onnx.TypeProto) -> Iterator[int]:
    match kind.WhichOneof("value"):
        case "tensor_type":
            yield kind.tensor_type.elem_type
        case "sequence_type":
            yield from _type_codes(kind.sequence_type.elem_type)
        case "optional_type":
            yield from _type_codes(kind.optional_type.elem_type)
