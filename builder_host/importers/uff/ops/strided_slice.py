"""StridedSlice: begin, end and strides per axis with TensorFlow's bit masks."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value, plain_value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.network.layers.slice import SliceParams

OPERATIONS = ("StridedSlice",)


def convert(view: NodeView) -> Value:
    """Four inputs: data, begin, end, strides; a mask's bit `i` speaks of entry `i`."""
    view.require_inputs(4)
    data = view.plain(0)
    begin, end, step = (
        view.integer_list(i, what) for i, what in enumerate(("begin", "end", "strides"), start=1)
    )
    if not len(begin) == len(end) == len(step) <= len(data.shape):
        raise NodeProblem(
            f"begin, end and strides have {len(begin)}, {len(end)} and {len(step)} values, "
            f"the data has {len(data.shape)} dimensions"
        )
    masks = {n: view.integer(f"{n}_mask", 0) for n in ("begin", "end", "shrink_axis")}
    for name in ("ellipsis_mask", "new_axis_mask"):
        if view.integer(name, 0):
            raise NodeProblem(f"{name} is not supported; export the slice without it")
    starts, sizes, strides, shape = [], [], [], []
    for axis, extent in enumerate(data.shape):
        bit = 1 << axis
        if axis >= len(begin):
            first, count, stride = 0, extent, 1
        elif masks["shrink_axis"] & bit:
            first, count, stride = begin[axis] + (extent if begin[axis] < 0 else 0), 1, 1
            if not 0 <= first < extent:
                raise NodeProblem(f"begin is {begin[axis]} on axis {axis} of extent {extent}")
        else:
            if step[axis] == 0:
                raise NodeProblem(f"the stride of axis {axis} is 0")
            chosen = range(extent)[
                slice(
                    None if masks["begin"] & bit else begin[axis],
                    None if masks["end"] & bit else end[axis],
                    step[axis],
                )
            ]
            first, count, stride = (chosen.start if len(chosen) else 0), len(chosen), step[axis]
        starts.append(first)
        sizes.append(count)
        strides.append(stride)
        if not (axis < len(begin) and masks["shrink_axis"] & bit):
            shape.append(count)
    params = SliceParams(tuple(starts), tuple(sizes), tuple(strides))
    return plain_value(view.reshaped(view.add("slice", params, [data]), shape))
