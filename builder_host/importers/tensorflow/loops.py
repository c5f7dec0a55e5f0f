"""While loops of TensorFlow 1 whose trip count is known become straight graphs.

A loop is a frame: Enter brings values in, Merge joins them with NextIteration, Switch lets them
into the body (output 1) or out through Exit (output 0) as LoopCond says. The body is copied once
per iteration. Tensor arrays that are filled before the loop are read as slices; those that the
loop writes are gathered behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.tensorflow import schema
from builder_host.importers.tensorflow.folding import COPIES, folded, input_names
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import MAX_NODES

Array = npt.NDArray[Any]

MAX_ITERATIONS = 4096
_MAX_DEPTH = 400
_LOOP_OPS = frozenset({"Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"})
_NUMPY_TYPES = {"int32": 3, "int64": 9}


def unrolled(
    messages: Sequence[Any], known: Mapping[str, Array]
) -> tuple[list[Any], dict[str, str]]:
    """The nodes of a graph without its loops.

    Args:
        messages: NodeDefs.
        known: values that constants decide.

    Returns:
        NodeDefs; and by name of an Exit node why its loop could not be unrolled.
    """
    frames = {_frame(m) for m in messages if m.op == "Enter"}
    if not frames:
        return list(messages), {}
    loop = _Loop(messages, known)
    failed: dict[str, str] = {}
    for message in messages:
        if message.op == "Exit":
            try:
                loop.leave(message)
            except NodeProblem as problem:
                failed[message.name] = (
                    f"its loop cannot be unrolled: {problem}; a plan has a fixed list of steps: "
                    "export the network without the loop"
                )
    for message in messages:
        if message.op == "TensorArrayGatherV3":
            try:
                loop.gather(message)
            except NodeProblem as problem:
                failed[message.name] = str(problem)
    kept = [m for m in messages if m.name not in loop.made and not loop.is_inside(m.name)]
    return [*kept, *loop.made.values()], failed


def _frame(message: Any) -> str:
    return str(message.attr["frame_name"].s.decode("utf-8", "replace"))


class _Loop:
    """All loops of a graph; one iteration at a time of each."""

    def __init__(self, messages: Sequence[Any], known: Mapping[str, Array]) -> None:
        self.nodes = {m.name: m for m in messages}
        self.known = known
        self.made: dict[str, Any] = {}
        self._instances: dict[tuple[str, int], str] = {}
        self._numbers: dict[tuple[str, int], Array] = {}
        self._inside = self._nodes_inside(messages)
        self._counts: dict[str, int] = {}

    # --- structure -----------------------------------------------------------------------

    def _nodes_inside(self, messages: Sequence[Any]) -> set[str]:
        """Nodes that depend on a loop's values, without Exit and what follows it."""
        readers: dict[str, list[Any]] = {}
        for message in messages:
            for name in input_names(message):
                readers.setdefault(name.partition(":")[0], []).append(message)
        inside: set[str] = set()
        stack = [m for m in messages if m.op == "Enter"]
        while stack:
            message = stack.pop()
            if message.name in inside or message.op == "Exit":
                continue
            inside.add(message.name)
            stack += readers.get(message.name, ())
        return inside

    def is_inside(self, name: str) -> bool:
        """Whether a node belongs to a loop's body."""
        return name in self._inside

    def _node(self, name: str) -> tuple[Any, int]:
        base, _, number = name.partition(":")
        message = self.nodes.get(base)
        if message is None:
            raise NodeProblem(f"'{name}' is no node of the file")
        return message, int(number) if number.isdigit() else 0

    def _merge_of(self, switch: Any) -> Any:
        """The Merge that a Switch reads. Raises NodeProblem when there is none."""
        merge, _ = self._node(input_names(switch)[0])
        if switch.op != "Switch" or merge.op != "Merge" or len(merge.input) != 2:
            raise NodeProblem(f"'{switch.name}' is no loop variable")
        return merge

    def _enter_and_next(self, merge: Any) -> tuple[Any, Any]:
        enter, following = (self._node(name)[0] for name in input_names(merge))
        if enter.op != "Enter" or following.op != "NextIteration":
            raise NodeProblem(f"'{merge.name}' joins {enter.op} and {following.op}")
        return enter, following

    # --- numbers: the counter and the condition ------------------------------------------

    def number(self, name: str, iteration: int, depth: int = 0) -> Array:
        """Value at an iteration of what constants and counters alone decide."""
        message, output = self._node(name)
        key = (message.name, iteration)
        if message.name in self.known:
            return self.known[message.name]
        if key in self._numbers:
            return self._numbers[key]
        if depth > _MAX_DEPTH:
            raise NodeProblem("its counter depends on too many nodes")
        if message.op == "Switch" and output == 1:
            value = self.number(self._merge_of(message).name, iteration, depth + 1)
        elif message.op == "Merge":
            enter, following = self._enter_and_next(message)
            source = enter if iteration == 0 else following
            value = self.number(
                input_names(source)[0], max(iteration - 1, 0) if iteration else 0, depth + 1
            )
        elif message.op in ("Enter", "LoopCond"):
            value = self.number(input_names(message)[0], iteration, depth + 1)
        else:
            inputs = [self.number(n, iteration, depth + 1) for n in input_names(message)]
            try:
                result = folded(message, inputs) if inputs else None
            except (ValueError, IndexError, TypeError) as error:
                raise NodeProblem(f"'{message.name}' is malformed: {error}") from error
            if result is None:
                raise NodeProblem(
                    f"its end depends on '{message.name}' ({message.op}), which is not known when "
                    "the model is imported"
                )
            value = result
        self._numbers[key] = value
        return value

    def num_iterations(self, condition: str) -> int:
        """Times that the body runs. Raises NodeProblem when that is not known."""
        if condition not in self._counts:
            count = 0
            while bool(np.all(self.number(condition, count))):
                count += 1
                if count > MAX_ITERATIONS:
                    raise NodeProblem(f"it runs more than {MAX_ITERATIONS} times")
            self._counts[condition] = count
        return self._counts[condition]

    # --- copies of the body --------------------------------------------------------------

    def leave(self, message: Any) -> None:
        """Make an Exit the value of its variable after the last iteration."""
        switch, _ = self._node(input_names(message)[0])
        merge = self._merge_of(switch)
        count = self.num_iterations(input_names(switch)[1])
        enter, following = self._enter_and_next(merge)
        body, _ = self._node(input_names(following)[0])
        if body.op.startswith("TensorArray"):
            return  # a flow that only orders reads and writes
        value = input_names(enter)[0]
        for iteration in range(count):  # in order, so that no recursion spans iterations
            value = self.instance(input_names(following)[0], iteration)
        self._make(message.name, "Identity", [value])

    def gather(self, message: Any) -> None:
        """Make a TensorArrayGatherV3 behind a loop a Pack of what the iterations wrote."""
        indices = self.known.get(input_names(message)[1])
        leaving, _ = self._node(input_names(message)[2])
        if indices is None or leaving.op != "Exit":
            raise NodeProblem("what it gathers is not known when the model is imported")
        switch, _ = self._node(input_names(leaving)[0])
        _, following = self._enter_and_next(self._merge_of(switch))
        write, _ = self._node(input_names(following)[0])
        if write.op != "TensorArrayWriteV3":
            raise NodeProblem(f"its loop ends with {write.op}, not with TensorArrayWriteV3")
        _, index, value, _ = input_names(write)
        written = {
            int(self.number(index, t)): self.instance(value, t)
            for t in range(self.num_iterations(input_names(switch)[1]))
        }
        missing = [int(i) for i in np.ravel(indices) if int(i) not in written]
        if missing:
            raise NodeProblem(f"element {missing[0]} is never written")
        self._make(message.name, "Pack", [written[int(i)] for i in np.ravel(indices)])

    def instance(self, name: str, iteration: int, depth: int = 0) -> str:
        """Name of the node that holds `name` in an iteration; made on first use."""
        message, output = self._node(name)
        if message.name not in self._inside:
            return name
        if depth > _MAX_DEPTH:
            raise NodeProblem("its body is too deep")
        key = (name, iteration)
        if key not in self._instances:
            self._instances[key] = self._new_instance(message, output, iteration, depth)
        return self._instances[key]

    def _new_instance(self, message: Any, output: int, iteration: int, depth: int) -> str:
        inputs = input_names(message)
        if message.op == "Enter":
            return inputs[0]
        if message.op == "Switch" and output == 1:
            enter, following = self._enter_and_next(self._merge_of(message))
            if iteration == 0:
                return input_names(enter)[0]
            return self.instance(input_names(following)[0], iteration - 1, depth + 1)
        if message.op in COPIES:
            return self.instance(inputs[0], iteration, depth + 1)
        if message.op == "TensorArrayReadV3":
            return self._read(message, iteration)
        if message.op in _LOOP_OPS or message.op.startswith("TensorArray"):
            raise NodeProblem(f"'{message.name}' ({message.op}) stands where a value is needed")
        name = f"{message.name}/iteration{iteration}"
        if name not in self.made:
            sources = [self.instance(one, iteration, depth + 1) for one in inputs]
            self._make(name, message.op, sources, message.attr)
        return f"{name}:{output}" if output else name

    def _read(self, message: Any, iteration: int) -> str:
        """A slice of the tensor that was scattered into the array before the loop."""
        index = int(self.number(input_names(message)[1], iteration))
        flow, _ = self._node(input_names(message)[2])
        if flow.op == "Enter":
            flow, _ = self._node(input_names(flow)[0])
        if flow.op != "TensorArrayScatterV3":
            raise NodeProblem(f"'{message.name}' reads an array that the loop itself writes")
        _, places, values, _ = input_names(flow)
        order = self.known.get(places)
        if order is None or index not in np.ravel(order).tolist():
            raise NodeProblem(f"element {index} of the array is not written before the loop")
        row = np.ravel(order).tolist().index(index)
        name = f"{message.name}/iteration{iteration}"
        bounds = []
        for part, number in (("begin", row), ("end", row + 1), ("strides", 1)):
            bounds.append(f"{name}/{part}")
            self._make_constant(bounds[-1], np.asarray([number], np.int32))
        made = self._make(name, "StridedSlice", [values, *bounds])
        made.attr["shrink_axis_mask"].i = 1
        return name

    def _make(
        self, name: str, op: str, inputs: Iterable[str], attributes: Mapping[str, Any] | None = None
    ) -> Any:
        if len(self.made) >= MAX_NODES:
            raise NodeProblem(f"it unrolls to more than {MAX_NODES} nodes")
        message = schema.message_class("NodeDef")(name=name, op=op, input=list(inputs))
        for key, value in (attributes or {}).items():
            message.attr[key].CopyFrom(value)
        self.made[name] = message
        return message

    def _make_constant(self, name: str, values: Array) -> None:
        tensor = self._make(name, "Const", []).attr["value"].tensor
        tensor.dtype = _NUMPY_TYPES[values.dtype.name]
        for extent in values.shape:
            tensor.tensor_shape.dim.add(size=extent)
        tensor.tensor_content = values.tobytes()
