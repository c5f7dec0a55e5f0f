"""An inference request as the executor takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime_edge.serve.deployment import Deployment, Tensor
from runtime_edge.serve.lanes import Lane

if TYPE_CHECKING:
    from runtime_edge.serve.bodies import Body
    from runtime_edge.serve.shared_memory import SharedTensor


@dataclass(slots=True)
class WantedOutput:
    """One output that the client asked for.

    Attributes:
        index: of the binding; is_binary: raw bytes behind the JSON.
        shared: where to put it instead of sending it.
        is_direct: the plan may write it there itself.
    """

    index: int
    is_binary: bool = False
    shared: SharedTensor | None = None
    is_direct: bool = False


@dataclass(slots=True)
class RequestText:
    """What a request's JSON says, where all inputs are raw and nothing is in shared memory.

    Attributes:
        body_bytes: of the requests that it holds for.
        lane, rows, id, priority, timeout_us, nbytes: as in `InferWork`.
        spans: begin and end in the body of each input, in binding order.
        outputs: likewise; read only.
        answer: JSON of the answer where all outputs are raw too, None before the first.
    """

    body_bytes: int
    lane: Lane
    rows: int
    spans: tuple[tuple[int, int], ...]
    outputs: tuple[WantedOutput, ...]
    id: str | None
    priority: int
    timeout_us: int
    nbytes: int
    answer: bytes | None = None

    def work(self, deployment: Deployment, body: memoryview, address: int) -> InferWork:
        """A request with this text.

        Args:
            deployment: for which the text was checked.
            body: of body_bytes.
            address: of its first byte, 0 if inputs must be copied anyway.
        """
        return InferWork(
            deployment,
            self.lane,
            self.rows,
            [
                Tensor(body[begin:end], address + begin if address else 0)
                for begin, end in self.spans
            ],
            list(self.outputs),
            id=self.id,
            priority=self.priority,
            timeout_us=self.timeout_us,
            nbytes=self.nbytes,
            text=self,
        )


@dataclass(slots=True)
class InferWork:
    """A checked request.

    Attributes:
        deployment: version of the plan that was current when the request came.
        lane, rows: see lanes.py.
        tensors: one per input, in binding order.
        outputs: in the order in which they are answered.
        id: of the client, echoed; priority, timeout_us: 0 is the plan's default.
        nbytes: of all inputs that take memory of the daemon.
        holds: memory that tensors point into, released when the inputs have been read.
        mapped: memory of the client's that the plan reads or writes in place.
        text: that said so, where it is shared with other requests.
    """

    deployment: Deployment
    lane: Lane
    rows: int
    tensors: list[Tensor]
    outputs: list[WantedOutput]
    id: str | None = None
    priority: int = 0
    timeout_us: int = 0
    nbytes: int = 0
    holds: list[Body | SharedTensor] = field(default_factory=list)
    mapped: list[SharedTensor] = field(default_factory=list)
    text: RequestText | None = None

    def direct_outputs(self) -> dict[int, int]:
        """Addresses by binding index of outputs that the plan may write where they belong."""
        return {
            output.index: output.shared.address
            for output in self.outputs
            if output.shared is not None and output.is_direct
        }

    def check_memory(self) -> None:
        """See that what is used in place is still there.

        Raises:
            RequestError: 400: a region was made shorter.
        """
        for tensor in self.mapped:
            tensor.check()

    def release_inputs(self) -> None:
        """Let go of the memory behind the tensors."""
        self.tensors = []
        holds, self.holds = self.holds, []
        for hold in holds:
            hold.release()

    def release(self) -> None:
        """Let go of everything; doing so twice is fine."""
        self.release_inputs()
        for output in self.outputs:
            shared, output.shared = output.shared, None
            if shared is not None:
                shared.release()
