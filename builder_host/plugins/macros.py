"""Macros that stand before a plugin's source: shapes, strides and attributes as constants.

For input `i` (and output `o`, with `Y` for `X`): `Xi_TYPE`, `Xi_RANK`, `Xi_ELEMS`, `Xi_DIM_0` ..,
`Xi_STRIDE_0` .. in elements, `Xi_IS_CONSTANT`; blocked formats have the strides of batch, channel
block, row and column, and `Xi_BLOCK` lanes (1 elsewhere). An attribute `name` is `ATTR_name`:
numbers as literals, truth as 0 or 1, text as a string, a tuple as a brace initialiser with its
length in `ATTR_name_COUNT`.
"""

from __future__ import annotations

import json

from builder_host.codegen.c_expression import float_literal
from builder_host.codegen.loop_nest_c import C_TYPES
from builder_host.codegen.loop_nest_cuda import CUDA_TYPES
from builder_host.layouts import Layout
from builder_host.plugins.plugin import Attribute, KernelRequest, Plugin, checked_attributes

_INT32_MAX = 2**31 - 1


def macro_lines(plugin: Plugin, request: KernelRequest) -> list[str]:
    """`#define` lines, in a fixed order."""
    types = C_TYPES if request.device_kind == "cpu" else CUDA_TYPES
    lines = []
    for prefix, layouts in (("X", request.inputs), ("Y", request.outputs)):
        for number, layout in enumerate(layouts):
            lines += _tensor(f"{prefix}{number}", layout, types[layout.dtype])
            if prefix == "X":
                lines.append(f"#define X{number}_IS_CONSTANT {int(request.is_constant[number])}")
    for name, value in checked_attributes(plugin).items():
        lines += _attribute(name, value)
    return lines


def _tensor(name: str, layout: Layout, ctype: str) -> list[str]:
    numbers = {
        "RANK": len(layout.shape),
        "ELEMS": layout.type.num_elems,
        "BLOCK": layout.format.channel_block,
        **{f"DIM_{i}": extent for i, extent in enumerate(layout.shape)},
        **{f"STRIDE_{i}": stride for i, stride in enumerate(layout.strides)},
    }
    return [
        f"#define {name}_TYPE {ctype}",
        *(f"#define {name}_{key} {_integer(value)}" for key, value in numbers.items()),
    ]


def _attribute(name: str, value: Attribute) -> list[str]:
    if isinstance(value, tuple):
        inner = ", ".join(_literal(item) for item in value)
        return [
            f"#define ATTR_{name} {{{inner}}}",
            f"#define ATTR_{name}_COUNT {len(value)}",
        ]
    return [f"#define ATTR_{name} {_literal(value)}"]


def _literal(value: bool | int | float | str) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        return float_literal(value)
    return _integer(int(value))


def _integer(value: int) -> str:
    text = str(value) if abs(value) <= _INT32_MAX else f"{value}ll"
    return f"({text})" if value < 0 else text
