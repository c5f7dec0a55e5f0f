"""Scalars, indices and statements of the loop-nest IR as CUDA C++ against `ep_cuda.cuh`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from builder_host.codegen.cuda_expression import (
    cuda_float_literal,
    print_cuda_integer,
    print_cuda_statements,
)
from builder_host.codegen.indices import (
    Atom,
    Dynamic,
    FloorDiv,
    Index,
    Minimum,
    Modulo,
    Var,
)
from builder_host.codegen.loop_nest import (
    Apply,
    Assign,
    Buffer,
    Condition,
    Convert,
    CopyTile,
    Declare,
    FromIndex,
    Guarded,
    If,
    Literal,
    Load,
    Local,
    Loop,
    Statement,
    Store,
    Value,
    values_in,
)
from builder_host.codegen.value_range import fits
from builder_host.network.rules import EIGHT_BITS
from planformat.datatypes import DataType

CUDA_TYPES = {
    DataType.FLOAT32: "float",
    DataType.FLOAT16: "half",
    DataType.BFLOAT16: "ep_u16",
    DataType.FLOAT64: "double",
    DataType.INT8: "ep_i8",
    DataType.UINT8: "ep_u8",
    DataType.INT16: "ep_i16",
    DataType.UINT16: "ep_u16",
    DataType.INT32: "ep_i32",
    DataType.UINT32: "ep_u32",
    DataType.INT64: "ep_i64",
    DataType.UINT64: "ep_u64",
    DataType.BOOL: "ep_u8",
}
INDEX_LIMIT = 2**31 - 2**16  # what 32-bit index arithmetic may reach


def conversion(text: str, source: DataType, target: DataType) -> str:
    """CUDA C++ expression that converts a scalar, by the rules of `loop_nest.Convert`."""
    if source is target:
        return text
    if source is DataType.FLOAT16:
        return conversion(f"ep_half_to_float({text})", DataType.FLOAT32, target)
    if source is DataType.BFLOAT16:
        return conversion(f"ep_from_bf16({text})", DataType.FLOAT32, target)
    if target is DataType.FLOAT16:
        return f"ep_float_to_half({conversion(text, source, DataType.FLOAT32)})"
    if target is DataType.BFLOAT16:
        return f"ep_to_bf16({conversion(text, source, DataType.FLOAT32)})"
    if target is DataType.BOOL:
        return f"(ep_u8)(({text}) != 0)"
    if source.is_float and not target.is_float:
        whole = f"ep_to_i64({text})"
        return whole if target is DataType.INT64 else f"({CUDA_TYPES[target]}){whole}"
    return f"({CUDA_TYPES[target]})({text})"


def literal(value: float, dtype: DataType) -> str:
    """A number of a type."""
    if dtype.is_float:
        if dtype is DataType.FLOAT64 and math.isfinite(value):
            return f"({float(value).hex()})"
        return conversion(cuda_float_literal(value), DataType.FLOAT32, dtype)
    if int(value) == -(2**63):
        return "(-9223372036854775807LL - 1)"
    if dtype is DataType.UINT64:
        return f"{int(value)}ULL"
    return f"ep_i64({int(value)})" if dtype is DataType.INT64 else f"({int(value)})"


def print_table(name: str, buffer: Buffer) -> list[str]:
    """Lines that define a constant table in device memory."""
    texts = [literal(v, buffer.dtype) for v in buffer.table]
    lines = [f"static __device__ const {CUDA_TYPES[buffer.dtype]} {name}[{len(texts)}] = {{"]
    lines += ["  " + ", ".join(texts[i : i + 8]) + "," for i in range(0, len(texts), 8)]
    return [*lines, "};"]


class CudaPrinter:
    """Prints values and statements of one device function; numbers the temporaries.

    Attributes:
        index_type: type of loop variables and offsets: `int` or `ep_i64`.
        loaded: text of loads that were made before, e.g. elements of a vector in registers.
    """

    def __init__(
        self, index_type: str = "int", loaded: Mapping[tuple[str, Index], str] | None = None
    ) -> None:
        """See the attributes."""
        self.index_type = index_type
        self.loaded = dict(loaded or {})
        self._num_names = 0

    def name(self) -> str:
        """A new name of a temporary."""
        self._num_names += 1
        return f"v{self._num_names}"

    # --- statements ------------------------------------------------------------------------

    def statement(self, statement: Statement, indent: str) -> list[str]:
        """Lines of one statement."""
        match statement:
            case Declare(name=name, dtype=dtype, extent=extent):
                size = f"[{extent}]" if extent > 1 else ""
                return [f"{indent}{CUDA_TYPES[dtype]} {name}{size};"]
            case Assign(target=target, value=value):
                before, text = self.converted(value, target.dtype, indent)
                return [*before, f"{indent}{self._local(target)} = {text};"]
            case Store(buffer=buffer, offset=offset, value=value):
                before, text = self.converted(value, buffer.dtype, indent)
                where = self.index(offset, before, indent)
                return [*before, f"{indent}{buffer.name}[{where}] = {text};"]
            case Loop(var=var, extent=extent, body=body):
                before = []
                limit = self.index(extent, before, indent)
                head = f"for ({self.index_type} {var.name} = 0; {var.name} < {limit}; ++{var.name})"
                inner = [line for s in body for line in self.statement(s, indent + "  ")]
                return [*before, f"{indent}{head} {{", *inner, f"{indent}}}"]
            case If(conditions=conditions, body=body, otherwise=otherwise):
                before = []
                test = self.conditions(conditions, before, indent)
                lines = [*before, f"{indent}if ({test}) {{"]
                lines += [line for s in body for line in self.statement(s, indent + "  ")]
                if otherwise:
                    lines.append(f"{indent}}} else {{")
                    lines += [line for s in otherwise for line in self.statement(s, indent + "  ")]
                return [*lines, f"{indent}}}"]
            case CopyTile():
                raise ValueError("vector tiles are made for CPUs only")

    # --- scalars ---------------------------------------------------------------------------

    def converted(self, value: Value, dtype: DataType, indent: str) -> tuple[list[str], str]:
        """Statements to run first, and the value as another type."""
        before: list[str] = []
        if isinstance(value, Apply) and value.dtype is DataType.FLOAT32 and dtype in EIGHT_BITS:
            text = self._apply(value, before, indent, is_exact=True)
            if fits(value.expr, dtype):
                return before, f"ep_from_float<{CUDA_TYPES[dtype]}>({text})"
        else:
            text = self.value(value, before, indent)
        return before, conversion(text, value.dtype, dtype)

    def value(self, value: Value, before: list[str], indent: str) -> str:
        """Expression of a value; statements that must run first go to `before`."""
        match value:
            case Load(buffer=buffer, offset=offset):
                known = self.loaded.get((buffer.name, offset))
                return known or f"{buffer.name}[{self.index(offset, before, indent)}]"
            case Literal(value=number, dtype=dtype):
                return literal(number, dtype)
            case FromIndex(index=index):
                return f"ep_i64({self.index(index, before, indent)})"
            case Local():
                return self._local(value)
            case Convert(x=x, dtype=dtype):
                return conversion(self.value(x, before, indent), x.dtype, dtype)
            case Apply():
                return self._apply(value, before, indent)
            case Guarded(conditions=conditions, value=inner, otherwise=otherwise):
                test = self.conditions(conditions, before, indent)
                return f"({test} ? {self._lazy(inner)} : {self._lazy(otherwise)})"

    def _lazy(self, value: Value) -> str:
        """Expression that runs its statements only when it is evaluated itself."""
        inside: list[str] = []
        text = self.value(value, inside, "")
        if not inside:
            return text
        kind = CUDA_TYPES[value.dtype]
        return f"([&]() -> {kind} {{ {' '.join(inside)} return {text}; }}())"

    def _apply(
        self, value: Apply, before: list[str], indent: str, *, is_exact: bool = False
    ) -> str:
        """`is_exact`: as for `print_cuda`; always where 8-bit integers are read."""
        is_exact = is_exact or any(load.dtype in EIGHT_BITS for load in loads_in(value))
        wanted = DataType.FLOAT32 if value.dtype is DataType.FLOAT32 else DataType.INT64
        names = []
        for argument in value.args:
            text = self.value(argument, before, indent)
            text = conversion(text, argument.dtype, wanted)
            if not text.replace("_", "").isalnum() or text[0].isdigit():
                name = self.name()
                before.append(f"{indent}const {CUDA_TYPES[wanted]} {name} = {text};")
                text = name
            names.append(text)
        if wanted is DataType.INT64:
            return print_cuda_integer(value.expr, names)
        statements, text = print_cuda_statements(
            value.expr, names, prefix=self.name() + "_", is_exact=is_exact
        )
        before.extend(indent + line for line in statements)
        return text

    def _local(self, local: Local) -> str:
        if local.index is None:
            return local.name
        return f"{local.name}[{self.index(local.index, [], '')}]"

    # --- indices ---------------------------------------------------------------------------

    def index(self, index: Index, before: list[str], indent: str) -> str:
        """Expression of an index."""
        parts = []
        for atom, factor in index.terms:
            text = self._atom(atom, before, indent)
            parts.append(text if factor == 1 else f"{text} * {factor}")
        if index.const or not parts:
            parts.append(str(index.const))
        return " + ".join(parts).replace("+ -", "- ") if len(parts) > 1 else parts[0]

    def _type(self, *indices: Index) -> str:
        is_long = any(_reach(index) > INDEX_LIMIT for index in indices)
        return "ep_i64" if is_long else self.index_type

    def _atom(self, atom: Atom, before: list[str], indent: str) -> str:
        match atom:
            case Var(name=name):
                return name
            case FloorDiv(x=x, divisor=divisor):
                text = self.index(x, before, indent)
                if x.bounds()[0] >= 0:
                    return f"(({text}) / {divisor})"
                return f"ep_index_div<{self._type(x)}>({text}, {divisor})"
            case Modulo(x=x, divisor=divisor):
                text = self.index(x, before, indent)
                if x.bounds()[0] >= 0:
                    return f"(({text}) % {divisor})"
                return f"ep_index_mod<{self._type(x)}>({text}, {divisor})"
            case Minimum(a=a, b=b):
                left, right = self.index(a, before, indent), self.index(b, before, indent)
                return f"ep_index_min<{self._type(a, b)}>({left}, {right})"
            case Dynamic(value=value):
                kind = self._type(Index(((atom, 1),)))
                return f"({kind})({self.value(value, before, indent)})"

    def conditions(self, conditions: Sequence[Condition], before: list[str], indent: str) -> str:
        """Expression of all conditions together."""
        tests = []
        for condition in conditions:
            low, high = condition.index.bounds()
            text = self.index(condition.index, before, indent)
            if low < condition.low:
                tests.append(f"{text} >= {condition.low}")
            if high >= condition.high:
                tests.append(f"{text} < {condition.high}")
        return " && ".join(tests) or "true"


def _reach(index: Index) -> int:
    low, high = index.bounds()
    return max(abs(low), abs(high))


def index_type(offsets: Sequence[Index], num_points: int) -> str:
    """`int` where 32 bits hold every offset and every count of points, else `ep_i64`."""
    largest = max((_reach(offset) for offset in offsets), default=0)
    return "int" if max(largest, num_points) <= INDEX_LIMIT else "ep_i64"


def loads_in(value: Value) -> list[Load]:
    """Loads of a value that are not inside an index."""
    return [part for part in values_in(value) if isinstance(part, Load)]
