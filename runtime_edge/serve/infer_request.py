"""Inference requests: from JSON and bytes to checked tensors in the order of the bindings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from runtime_edge.serve.deployment import Deployment, Tensor
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.infer_work import InferWork, RequestText, WantedOutput
from runtime_edge.serve.json_fields import (
    flag,
    json_kind,
    objects_of,
    parameters_of,
    quoted,
    shape_of,
    whole_number,
)
from runtime_edge.serve.json_text import parse_json
from runtime_edge.serve.known import MAX_KEY_BYTES
from runtime_edge.serve.lanes import Lane
from runtime_edge.serve.tensor_types import NAMES, elements_from_json

if TYPE_CHECKING:
    from runtime_edge.serve.bodies import Body
    from runtime_edge.serve.shared_memory import SharedMemoryRegions, SharedTensor

MAX_ID_CHARS = 1024
MAX_TIMEOUT_US = 3_600_000_000


def parse_infer(
    deployment: Deployment,
    body: memoryview,
    address: int,
    json_bytes: int | None,
    regions: SharedMemoryRegions | None,
) -> InferWork:
    """Check a request against a plan.

    Args:
        deployment: the plan.
        body: all of it.
        address: of its first byte, 0 if inputs must be copied anyway.
        json_bytes: value of Inference-Header-Content-Length, None without that header.
        regions: registered shared memory, None where that is off.

    Raises:
        RequestError: 400, with what is wrong and what the plan wants.
    """
    if json_bytes is None:
        json_bytes = len(body)
    elif json_bytes > len(body):
        raise RequestError(
            400,
            f"Inference-Header-Content-Length is {json_bytes:,}, the body has {len(body):,} bytes",
        )
    elif json_bytes == 0:
        return _raw_request(deployment, body, address)
    text = bytes(body[:json_bytes])
    is_short = json_bytes <= MAX_KEY_BYTES  # longer ones may be parsed on another thread
    known = deployment.texts.get(text) if is_short else None
    if known is not None and known.body_bytes == len(body):
        return known.work(deployment, body, address)
    content = parse_json(text, "the request")
    if not isinstance(content, dict):
        raise RequestError(400, f"the request must be a JSON object, it is a {json_kind(content)}")
    reader = _Reader(deployment, body, address, json_bytes, regions)
    work = reader.checked(content)
    is_raw = len(reader.spans) == deployment.num_inputs
    if is_short and is_raw and not any(output.shared for output in work.outputs):
        work.text = RequestText(
            len(body),
            work.lane,
            work.rows,
            tuple(reader.spans[index] for index in range(deployment.num_inputs)),
            tuple(work.outputs),
            work.id,
            work.priority,
            work.timeout_us,
            work.nbytes,
        )
        deployment.texts.note(text, work.text)
    return work


def check_infer(
    deployment: Deployment,
    content: dict[str, Any],
    body: memoryview,
    address: int,
    at: int,
    regions: SharedMemoryRegions | None,
) -> InferWork:
    """Check the parsed form of a request.

    Args:
        deployment: the plan.
        content: as in the protocol's JSON.
        body: holds the raw tensors.
        address: of its first byte, 0 if inputs must be copied anyway.
        at: where the first raw tensor begins.
        regions: registered shared memory, None where that is off.

    Raises:
        RequestError: 400, with what is wrong and what the plan wants.
    """
    return _Reader(deployment, body, address, at, regions).checked(content)


class _Reader:
    """One request on its way to `InferWork`.

    Attributes:
        spans: begin and end in the body of the inputs that are there, by binding.
    """

    def __init__(
        self,
        deployment: Deployment,
        body: memoryview,
        address: int,
        at: int,
        regions: SharedMemoryRegions | None,
    ) -> None:
        self._deployment = deployment
        self._bindings = deployment.bindings
        self._body = body
        self._address = address
        self._at = at
        self._regions = regions
        self.spans: dict[int, tuple[int, int]] = {}
        self._wanted_shared: list[SharedTensor] = []
        self._holds: list[Body | SharedTensor] = []
        self._mapped: list[SharedTensor] = []
        self._nbytes = 0

    def checked(self, content: dict[str, Any]) -> InferWork:
        """See `check_infer`."""
        try:
            return self._read(content)
        except BaseException:
            for hold in [*self._wanted_shared, *self._holds]:
                hold.release()
            raise

    def _read(self, content: dict[str, Any]) -> InferWork:
        parameters = parameters_of(content, "the request")
        num_inputs = self._deployment.num_inputs
        tensors: list[Tensor | None] = [None] * num_inputs
        shapes: list[tuple[int, ...]] = [()] * num_inputs
        for entry in objects_of(content, "inputs"):
            index = self._binding_index(entry, is_input=True)
            if tensors[index] is not None:
                raise RequestError(400, f"input '{self._bindings[index].name}' is given twice")
            shapes[index] = shape_of(entry, f"input '{self._bindings[index].name}'")
            tensors[index] = self._tensor(entry, index, shapes[index])
        if self._at != len(self._body):
            raise RequestError(
                400,
                f"{len(self._body) - self._at:,} bytes of the body belong to no tensor; the "
                "binary_data_size of the inputs must add up to all bytes behind the JSON",
            )
        missing = [b.name for b, t in zip(self._bindings, tensors, strict=False) if t is None]
        if missing:
            raise RequestError(400, f"input '{missing[0]}' is missing; {self._wanted()}")
        matched = self._deployment.match(shapes)
        if matched is None:
            given = ", ".join(
                f"{b.name} {list(s)}" for b, s in zip(self._bindings, shapes, strict=False)
            )
            raise RequestError(400, f"the plan does not take {given}; {self._wanted()}")
        is_binary = flag(parameters, "binary_data_output", "the request")
        lane, rows = matched
        outputs = self._outputs(content, is_binary, lane, rows)
        identifier = content.get("id")
        if identifier is not None and not (
            isinstance(identifier, str) and len(identifier) <= MAX_ID_CHARS
        ):
            raise RequestError(400, f"'id' must be a string of at most {MAX_ID_CHARS} characters")
        return InferWork(
            self._deployment,
            lane,
            rows,
            [tensor for tensor in tensors if tensor is not None],
            outputs,
            id=identifier,
            priority=whole_number(parameters, "priority", 1 << 31),
            timeout_us=whole_number(parameters, "timeout", MAX_TIMEOUT_US),
            nbytes=self._nbytes,
            holds=self._holds,
            mapped=self._mapped,
        )

    def _binding_index(self, entry: dict[str, Any], *, is_input: bool) -> int:
        name = entry.get("name")
        for index, binding in enumerate(self._bindings):
            if binding.name == name and binding.is_input is is_input:
                return index
        kind = "input" if is_input else "output"
        raise RequestError(400, f"the plan has no {kind} {quoted(name)}; {self._wanted()}")

    def _tensor(self, entry: dict[str, Any], index: int, shape: tuple[int, ...]) -> Tensor:
        binding = self._bindings[index]
        where = f"input '{binding.name}'"
        datatype = entry.get("datatype")
        if datatype != NAMES[binding.dtype]:
            raise RequestError(
                400, f"{where}: datatype is {quoted(datatype)}, expected {NAMES[binding.dtype]}"
            )
        parameters = parameters_of(entry, where)
        expected = math.prod(shape) * binding.dtype.size_bytes
        if "shared_memory_region" in parameters:
            shared = self._shared_tensor(parameters, expected, where)
            if "data" in entry:
                raise RequestError(400, f"{where}: has 'data' beside shared memory")
            return self._shared_input(shared)
        if "binary_data_size" in parameters:
            if "data" in entry:
                raise RequestError(400, f"{where}: has 'data' beside binary_data_size")
            size = whole_number(parameters, "binary_data_size", 1 << 62)
            if size != expected:
                raise RequestError(
                    400,
                    f"{where}: binary_data_size is {size:,}, shape {list(shape)} of "
                    f"{NAMES[binding.dtype]} has {expected:,} bytes",
                )
            self._nbytes += size
            begin, self._at = self._at, self._at + size
            if self._at > len(self._body):
                raise RequestError(
                    400, f"{where}: the body ends {self._at - len(self._body):,} bytes too early"
                )
            self.spans[index] = (begin, self._at)
            return Tensor(
                self._body[begin : self._at], self._address + begin if self._address else 0
            )
        if "data" not in entry:
            raise RequestError(400, f"{where}: neither 'data' nor binary_data_size")
        self._nbytes += expected
        return Tensor(elements_from_json(entry["data"], shape, binding.dtype, where))

    def _shared_input(self, shared: SharedTensor) -> Tensor:
        """In place where the region is mapped, else in memory of ours."""
        if shared.address:
            self._holds.append(shared)
            shared.check()
            self._mapped.append(shared)
            return Tensor(shared.view, shared.address)
        assert self._regions is not None
        try:
            body = shared.read(self._regions.bodies)
        finally:
            shared.release()
        self._nbytes += shared.nbytes
        self._holds.append(body)
        return Tensor(body.view, body.address)

    def _outputs(
        self, content: dict[str, Any], is_binary: bool, lane: Lane, rows: int
    ) -> list[WantedOutput]:
        num_inputs = self._deployment.num_inputs
        if not content.get("outputs"):
            return [WantedOutput(i, is_binary) for i in range(num_inputs, len(self._bindings))]
        outputs: list[WantedOutput] = []
        for entry in objects_of(content, "outputs"):
            index = self._binding_index(entry, is_input=False)
            binding = self._bindings[index]
            where = f"output '{binding.name}'"
            if any(output.index == index for output in outputs):
                raise RequestError(400, f"{where} is asked for twice")
            parameters = parameters_of(entry, where)
            if parameters.get("classification"):
                raise RequestError(400, f"{where}: classification is not offered")
            wanted = WantedOutput(index, is_binary)
            if "binary_data" in parameters:
                wanted.is_binary = flag(parameters, "binary_data", where)
            if "shared_memory_region" in parameters:
                size = math.prod(lane.output_shape(index, rows)) * binding.dtype.size_bytes
                self._share(wanted, self._shared_tensor(parameters, None, where), size, where)
            outputs.append(wanted)
        return outputs

    def _share(self, wanted: WantedOutput, shared: SharedTensor, nbytes: int, where: str) -> None:
        """Have an output of nbytes put into shared memory."""
        wanted.shared = shared
        self._wanted_shared.append(shared)
        if nbytes > shared.nbytes:
            raise RequestError(
                400,
                f"{where}: has {nbytes:,} bytes, shared_memory_byte_size is {shared.nbytes:,}",
            )
        # Where tensors overlap, all inputs are read before anything is written.
        if shared.address and not any(shared.overlaps(other) for other in self._mapped):
            shared.check()
            self._mapped.append(shared)
            wanted.is_direct = True

    def _shared_tensor(
        self, parameters: dict[str, Any], expected: int | None, where: str
    ) -> SharedTensor:
        if self._regions is None:
            raise RequestError(400, f"{where}: shared memory is switched off here")
        size = whole_number(parameters, "shared_memory_byte_size", 1 << 62)
        if expected is not None and size != expected:
            raise RequestError(
                400, f"{where}: shared_memory_byte_size is {size:,}, the tensor has {expected:,}"
            )
        return self._regions.tensor(
            str(parameters["shared_memory_region"]),
            whole_number(parameters, "shared_memory_offset", 1 << 62),
            size,
            where,
        )

    def _wanted(self) -> str:
        return describe_inputs(self._deployment)


def describe_inputs(deployment: Deployment) -> str:
    """What a plan takes, for messages."""
    texts = []
    for lane in deployment.lanes:
        parts = []
        for index in range(deployment.num_inputs):
            shape = [str(extent) for extent in lane.shapes[index]]
            if lane.is_batched:
                shape[0] = "batch"
            dtype = NAMES[deployment.bindings[index].dtype]
            parts.append(f"{deployment.bindings[index].name} {dtype} [{', '.join(shape)}]")
        texts.append(", ".join(parts))
    return "it takes " + " or ".join(texts)


def _raw_request(deployment: Deployment, body: memoryview, address: int) -> InferWork:
    """The whole body is the only input, one row or the profile's exact shape."""
    if deployment.num_inputs != 1:
        raise RequestError(
            400,
            f"a body without JSON is one input, the plan has {deployment.num_inputs}: send JSON "
            "with binary_data_size for each",
        )
    binding = deployment.bindings[0]
    for lane in deployment.lanes:
        row = math.prod(lane.shapes[0]) * binding.dtype.size_bytes
        if lane.is_batched:
            row //= max(1, lane.shapes[0][0])
        if row == len(body):
            outputs = [WantedOutput(i, True) for i in range(1, len(deployment.bindings))]
            return InferWork(
                deployment,
                lane,
                1,
                [Tensor(body, address)],
                outputs,
                nbytes=len(body),
            )
    raise RequestError(
        400, f"the body has {len(body):,} bytes, which fits no shape; {describe_inputs(deployment)}"
    )
