"""Loop nests as C against `ep_vector.h`.

Loops are plain; vector loops carry a pragma and consist of branch-free scalar code, which clang
turns into full vectors (checked in the assembly: accumulator arrays stay in registers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.codegen.c_expression import CPrinter, float_literal
from builder_host.codegen.c_integer_expression import print_c_integer
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
    Kernel,
    Literal,
    Load,
    Local,
    Loop,
    Section,
    Statement,
    Store,
    Value,
    values_in,
)
from builder_host.codegen.value_range import fits
from planformat.datatypes import DataType

C_TYPES = {
    DataType.FLOAT32: "float",
    DataType.FLOAT16: "_Float16",
    DataType.BFLOAT16: "uint16_t",
    DataType.FLOAT64: "double",
    DataType.INT8: "int8_t",
    DataType.UINT8: "uint8_t",
    DataType.INT16: "int16_t",
    DataType.UINT16: "uint16_t",
    DataType.INT32: "int32_t",
    DataType.UINT32: "uint32_t",
    DataType.INT64: "int64_t",
    DataType.UINT64: "uint64_t",
    DataType.BOOL: "uint8_t",
}


def print_kernel(kernel: Kernel) -> str:
    """C text of one exported launch function (without the include line)."""
    buffers: dict[str, Buffer] = {}
    stored: set[str] = set()
    for section in kernel.sections:
        for statement in section.body:
            _collect(statement, buffers, stored)
    lines = [f"/* {kernel.num_units} units */"]
    for buffer in sorted(buffers.values(), key=lambda b: b.name):
        if buffer.argument is None:
            lines.extend(_table(kernel.symbol, buffer))
    # Restrict counts for parameters only, hence a function of its own.
    parameters, arguments = [], []
    for buffer in sorted(buffers.values(), key=lambda b: b.name):
        if buffer.argument is not None:
            ctype = C_TYPES[buffer.dtype]
            const = "" if buffer.name in stored else "const "
            parameters.append(f"{const}{ctype} *EP_RESTRICT {buffer.name}")
            arguments.append(f"({const}{ctype} *)args[{buffer.argument}]")
    parameters += ["int64_t unit_begin", "int64_t unit_end"]
    arguments += ["unit_begin", "unit_end"]
    lines.append(f"EP_NOINLINE void {kernel.symbol}_units({_wrapped(parameters)}) {{")
    for buffer in sorted(buffers.values(), key=lambda b: b.name):
        if buffer.argument is None:
            ctype = C_TYPES[buffer.dtype]
            lines.append(f"  const {ctype} *const {buffer.name} = {kernel.symbol}_{buffer.name};")
    lines.append("  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {")
    first = 0
    for number, section in enumerate(kernel.sections):
        lines.extend(_section(section, first, number + 1 == len(kernel.sections)))
        first += section.num_units
    lines += ["  }", "}", ""]
    lines += [
        f"EP_EXPORT void {kernel.symbol}(void *const *args, int64_t unit_begin, int64_t unit_end,",
        "    void *scratch) {",
        "  (void)scratch;",
        f"  {kernel.symbol}_units({_wrapped(arguments)});",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _wrapped(items: Sequence[str]) -> str:
    return "\n    " + ",\n    ".join(items)


def _section(section: Section, first: int, is_last: bool) -> list[str]:
    printer = _Printer()
    indent = "    "
    lines = []
    if not is_last or first > 0:
        lines.append(f"{indent}if (unit >= {first} && unit < {first + section.num_units}) {{")
    else:
        lines.append(f"{indent}{{")
    inner = indent + "  "
    lines.append(f"{inner}int64_t rest = unit - {first};")
    for var in reversed(section.unit_vars):
        lines.append(f"{inner}const int64_t {var.name} = rest % {var.extent};")
        lines.append(f"{inner}rest /= {var.extent};")
        lines.append(f"{inner}(void){var.name};")
    lines.append(f"{inner}(void)rest;")
    for statement in section.body:
        lines.extend(printer.statement(statement, inner))
    lines.append(f"{indent}}}")
    return lines


class _Printer:
    """Prints statements; numbers the names of temporaries."""

    def __init__(self) -> None:
        self._num_names = 0

    def _name(self) -> str:
        self._num_names += 1
        return f"v{self._num_names}"

    def statement(self, statement: Statement, indent: str) -> list[str]:
        """Lines of one statement."""
        match statement:
            case Declare(name=name, dtype=dtype, extent=extent):
                size = f"[{extent}]" if extent > 1 else ""
                return [f"{indent}{C_TYPES[dtype]} {name}{size};"]
            case Assign(target=target, value=value):
                before, text = self._converted(value, target.dtype, indent)
                return [*before, f"{indent}{_local(target)} = {text};"]
            case Store(buffer=buffer, offset=offset, value=value):
                before, text = self._converted(value, buffer.dtype, indent)
                where = self._index(offset, before, indent)
                return [*before, f"{indent}{buffer.name}[{where}] = {text};"]
            case CopyTile():
                return self._copy_tile(statement, indent)
            case Loop():
                return self._loop(statement, indent)
            case If():
                return self._if(statement, indent)

    def _copy_tile(self, tile: CopyTile, indent: str) -> list[str]:
        before: list[str] = []
        target = self._index(tile.target_offset, before, indent)
        source = self._index(tile.source_offset, before, indent)
        return [
            *before,
            f"{indent}ep_copy_tile({tile.target.name} + {target}, {tile.target_stride},",
            f"{indent}    {tile.source.name} + {source}, {tile.source_stride});",
        ]

    def _loop(self, loop: Loop, indent: str) -> list[str]:
        before: list[str] = []
        extent = self._index(loop.extent, before, indent)
        name = loop.var.name
        lines = [*before]
        if loop.kind != "serial":
            pragma = "EP_VECTORIZE" if loop.kind == "vector" else "EP_LANES_LOOP"
            lines.append(f"{indent}{pragma}")
        lines.append(f"{indent}for (int64_t {name} = 0; {name} < {extent}; ++{name}) {{")
        for statement in loop.body:
            lines.extend(self.statement(statement, indent + "  "))
        return [*lines, f"{indent}}}"]

    def _if(self, statement: If, indent: str) -> list[str]:
        before: list[str] = []
        test = self._conditions(statement.conditions, before, indent)
        lines = [*before, f"{indent}if ({test}) {{"]
        for inner in statement.body:
            lines.extend(self.statement(inner, indent + "  "))
        if statement.otherwise:
            lines.append(f"{indent}}} else {{")
            for inner in statement.otherwise:
                lines.extend(self.statement(inner, indent + "  "))
        return [*lines, f"{indent}}}"]

    # --- scalars ---------------------------------------------------------------------------

    def _converted(self, value: Value, dtype: DataType, indent: str) -> tuple[list[str], str]:
        before: list[str] = []
        text = self._value(value, before, indent)
        return before, _narrowed(text, value, dtype)

    def _value(self, value: Value, before: list[str], indent: str) -> str:
        """C expression; statements that must run first go to `before`."""
        match value:
            case Load(buffer=buffer, offset=offset):
                return f"{buffer.name}[{self._index(offset, before, indent)}]"
            case Literal(value=number, dtype=dtype):
                return _literal(number, dtype)
            case FromIndex(index=index):
                return self._index(index, before, indent)
            case Local():
                return _local(value)
            case Convert(x=x, dtype=dtype):
                return _narrowed(self._value(x, before, indent), x, dtype)
            case Apply():
                return self._apply(value, before, indent)
            case Guarded(conditions=conditions, value=inner, otherwise=otherwise):
                inside: list[str] = []
                test = self._conditions(conditions, before, indent)
                yes = self._value(inner, inside, "")
                if inside:
                    yes = "({ " + " ".join(inside) + f" {yes}; }})"
                no = self._value(otherwise, before, indent)
                return f"({test} ? {yes} : {no})"

    def _apply(self, value: Apply, before: list[str], indent: str) -> str:
        wanted = DataType.FLOAT32 if value.dtype is DataType.FLOAT32 else DataType.INT64
        names = []
        for argument in value.args:
            text = self._value(argument, before, indent)
            text = conversion(text, argument.dtype, wanted)
            if not text.replace("_", "").isalnum() or text[0].isdigit():
                name = self._name()
                before.append(f"{indent}const {C_TYPES[wanted]} {name} = {text};")
                text = name
            names.append(text)
        if wanted is DataType.INT64:
            return print_c_integer(value.expr, names)
        printer = CPrinter(names, vector=False, prefix=self._name() + "_")
        text = printer.number(value.expr)
        before.extend(indent + line for line in printer.statements)
        return text

    # --- indices ---------------------------------------------------------------------------

    def _index(self, index: Index, before: list[str], indent: str) -> str:
        parts = []
        for atom, factor in index.terms:
            text = self._atom(atom, before, indent)
            parts.append(text if factor == 1 else f"{text} * {factor}")
        if index.const or not parts:
            parts.append(str(index.const))
        return " + ".join(parts).replace("+ -", "- ") if len(parts) > 1 else parts[0]

    def _atom(self, atom: Atom, before: list[str], indent: str) -> str:
        match atom:
            case Var(name=name):
                return name
            case FloorDiv(x=x, divisor=divisor):
                text = self._index(x, before, indent)
                if x.bounds()[0] >= 0:
                    return f"(({text}) / {divisor})"
                return f"ep_index_div({text}, {divisor})"
            case Modulo(x=x, divisor=divisor):
                text = self._index(x, before, indent)
                if x.bounds()[0] >= 0:
                    return f"(({text}) % {divisor})"
                return f"ep_index_mod({text}, {divisor})"
            case Minimum(a=a, b=b):
                left, right = self._index(a, before, indent), self._index(b, before, indent)
                return f"ep_index_min({left}, {right})"
            case Dynamic(value=value):
                return f"(int64_t)({self._value(value, before, indent)})"

    def _conditions(self, conditions: Sequence[Condition], before: list[str], indent: str) -> str:
        tests = []
        for condition in conditions:
            low, high = condition.index.bounds()
            text = self._index(condition.index, before, indent)
            if low < condition.low:
                tests.append(f"{text} >= {condition.low}")
            if high >= condition.high:
                tests.append(f"{text} < {condition.high}")
        return " && ".join(tests) or "1"


def _narrowed(text: str, value: Value, dtype: DataType) -> str:
    """`conversion` of a value; short where its bounds are known to lie in an 8-bit type."""
    if isinstance(value, Apply) and value.dtype is DataType.FLOAT32 and fits(value.expr, dtype):
        return f"({C_TYPES[dtype]})ep_to_i32_inside({text})"
    return conversion(text, value.dtype, dtype)


def conversion(text: str, source: DataType, target: DataType) -> str:
    """C expression that converts a scalar, by the rules of `loop_nest.Convert`."""
    if source is target:
        return text
    if source is DataType.BFLOAT16:
        return conversion(f"ep_from_bf16({text})", DataType.FLOAT32, target)
    if target is DataType.BFLOAT16:
        return f"ep_to_bf16({conversion(text, source, DataType.FLOAT32)})"
    if target is DataType.BOOL:
        return f"(uint8_t)(({text}) != 0)"
    if source.is_float and not target.is_float:
        if target is DataType.INT64:
            return f"ep_to_i64((double)({text}))"
        return f"({C_TYPES[target]})ep_to_i64((double)({text}))"
    return f"({C_TYPES[target]})({text})"


def _local(local: Local) -> str:
    if local.index is None:
        return local.name
    return f"{local.name}[{_Printer()._index(local.index, [], '')}]"


def _literal(value: float, dtype: DataType) -> str:
    if dtype.is_float:
        if dtype is DataType.FLOAT64 and math.isfinite(value):
            return float(value).hex()
        if dtype is DataType.BFLOAT16:
            return f"ep_to_bf16({float_literal(value)})"
        return conversion(float_literal(value), DataType.FLOAT32, dtype)
    if int(value) == -(2**63):
        return "INT64_MIN"
    return f"INT64_C({int(value)})" if dtype is DataType.INT64 else f"({int(value)})"


def _table(symbol: str, buffer: Buffer) -> list[str]:
    texts = [_literal(v, buffer.dtype) for v in buffer.table]
    lines = [f"static const {C_TYPES[buffer.dtype]} {symbol}_{buffer.name}[{len(texts)}] = {{"]
    lines += ["  " + ", ".join(texts[i : i + 8]) + "," for i in range(0, len(texts), 8)]
    return [*lines, "};"]


def _collect(statement: Statement, buffers: dict[str, Buffer], stored: set[str]) -> None:
    """All buffers of a statement, and the names of those that are written."""
    match statement:
        case Assign(target=target, value=value):
            _collect_value(value, buffers)
            if target.index is not None:
                _collect_index(target.index, buffers)
        case Store(buffer=buffer, offset=offset, value=value):
            buffers[buffer.name] = buffer
            stored.add(buffer.name)
            _collect_index(offset, buffers)
            _collect_value(value, buffers)
        case Loop(extent=extent, body=body):
            _collect_index(extent, buffers)
            for inner in body:
                _collect(inner, buffers, stored)
        case If(conditions=conditions, body=body, otherwise=otherwise):
            for condition in conditions:
                _collect_index(condition.index, buffers)
            for inner in (*body, *otherwise):
                _collect(inner, buffers, stored)
        case CopyTile(target=target_buffer, source=source):
            buffers[target_buffer.name] = target_buffer
            buffers[source.name] = source
            stored.add(target_buffer.name)
            _collect_index(statement.target_offset, buffers)
            _collect_index(statement.source_offset, buffers)
        case Declare():
            return


def _collect_value(value: Value, buffers: dict[str, Buffer]) -> None:
    for part in values_in(value):
        match part:
            case Load(buffer=buffer, offset=offset):
                buffers[buffer.name] = buffer
                _collect_index(offset, buffers)
            case FromIndex(index=index):
                _collect_index(index, buffers)
            case Guarded(conditions=conditions):
                for condition in conditions:
                    _collect_index(condition.index, buffers)
            case Local(index=Index() as index):
                _collect_index(index, buffers)
            case _:
                continue


def _collect_index(index: Index, buffers: dict[str, Buffer]) -> None:
    for atom, _ in index.terms:
        match atom:
            case FloorDiv(x=x) | Modulo(x=x):
                _collect_index(x, buffers)
            case Minimum(a=a, b=b):
                _collect_index(a, buffers)
                _collect_index(b, buffers)
            case Dynamic(value=value):
                _collect_value(value, buffers)
            case Var():
                continue
