"""CudaProgram: the steps of one profile as one CUDA graph."""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Sequence
from typing import Any

from runtime_edge.device.cuda_codes import NOT_SUPPORTED
from runtime_edge.device.cuda_context import GpuContext
from runtime_edge.device.cuda_driver import (
    CAPTURE_THREAD_LOCAL,
    EVENT_DEFAULT,
    EVENT_RECORD_EXTERNAL,
    CudaError,
    Driver,
)
from runtime_edge.device.cuda_launch import CudaLaunch

_log = logging.getLogger(__name__)

_NON_BLOCKING = 1
_GRAPH_FUNCTIONS = ("begin_capture", "end_capture", "graph_instantiate", "set_kernel_node")


class CudaProgram:
    """Steps of one profile. See `Program` in base.py.

    The launches are captured once; a run is one graph launch, and changed binding addresses are
    written into the nodes that use them. Runs under way keep the addresses that they began with.

    Attributes:
        addresses: of the bindings, for the next run.
        is_graph: false when the driver refuses graphs; then every run launches step by step.
    """

    def __init__(
        self,
        context: GpuContext,
        launches: Sequence[CudaLaunch],
        *,
        num_bindings: int,
        keep: Any = None,
    ) -> None:
        """Capture the launches on a stream of the program's own.

        Raises:
            CudaError: a launch is refused; names the step.
        """
        self._context = context
        self._driver = context.driver
        self._launches = tuple(launches)
        self._keep = keep
        self.addresses: list[int] = [0] * num_bindings
        self._bound: list[int] = []
        self._users: list[list[CudaLaunch]] = [[] for _ in range(num_bindings)]
        for launch in self._launches:
            for binding in sorted({binding for _, binding, _ in launch.patches}):
                self._users[binding].append(launch)
        self._profile: _ProfileGraph | None = None
        self._executable = 0
        self._owned = context.own(self)
        with context.pycuda("a stream") as pycuda:
            self._stream: int = self._owned.add_stream(pycuda, _NON_BLOCKING)
        with context:
            self._executable = self._capture()
        self.is_graph = bool(self._executable)

    def enqueue_on(self, stream: int) -> None:
        """Enqueue one run with the present addresses; the context is current."""
        if self.addresses != self._bound:
            self._rebind()
        if self._executable:
            self._driver.graph_launch(self._executable, stream)
        else:
            for launch in self._launches:
                launch.launch(stream)

    def run(self) -> None:
        """One inference; returns when it is done."""
        with self._context:
            self.enqueue_on(self._stream)
            self._driver.stream_synchronize(self._stream)

    def run_between(self, before: Sequence[Any], after: Sequence[Any]) -> None:
        """One inference between copies.

        Args:
            before: callables of the stream's handle, enqueued before the run.
            after: likewise, after it.
        """
        with self._context:
            for copy in before:
                copy(self._stream)
            self.enqueue_on(self._stream)
            for copy in after:
                copy(self._stream)
            self._driver.stream_synchronize(self._stream)

    def run_timed(self) -> list[float]:
        """As `run`, with an event after each step; microseconds of each.

        The events are nodes of a second graph where the driver can do that (CUDA 11.1), so that the
        host's launch time does not show. What an event itself takes (1.3 µs on an H200) is measured
        beside the steps and taken off. Steps do not overlap here.
        """
        with self._context:
            if self._profile is None or self._profile.addresses != self.addresses:
                if self.addresses != self._bound:
                    self._rebind()
                self._profile = _ProfileGraph(
                    self._context, self._launches, self._stream, list(self.addresses)
                )
            return self._profile.run()

    def close(self) -> None:
        """Destroy graph and stream; nothing may be running."""
        self._executable = 0
        self._profile = None
        self._owned.close()

    def _rebind(self) -> None:
        bound, self._bound = self._bound, []  # so that a failure half way is repeated in full
        changed = [
            index
            for index, address in enumerate(self.addresses)
            if not bound or bound[index] != address
        ]
        for launch in {id(user): user for i in changed for user in self._users[i]}.values():
            launch.bind(self.addresses)
            if self._executable:
                launch.update_node(self._executable)
        self._bound = list(self.addresses)

    def _capture(self) -> int:
        """Executable graph, 0 when the driver refuses graphs."""
        driver = self._driver
        if not driver.has(*_GRAPH_FUNCTIONS) or not (
            driver.has("capture_info_v2") or driver.has("capture_info_v3")
        ):
            _log.warning(
                "the driver (CUDA %d.%d) has no usable graphs: every run launches %d steps one by "
                "one, which costs host time",
                *driver.version(),
                len(self._launches),
            )
            return 0
        try:
            executable = self._instantiate()
        except CudaError as error:
            if error.code != NOT_SUPPORTED:
                raise
            _log.warning("graphs are refused, steps are launched one by one: %s", error)
            return 0
        if driver.has("graph_upload"):
            driver.graph_upload(executable, self._stream)
            driver.stream_synchronize(self._stream)
        return executable

    def _instantiate(self) -> int:
        driver, stream = self._driver, self._stream
        graph = ctypes.c_void_p()
        driver.begin_capture(stream, CAPTURE_THREAD_LOCAL)
        try:
            for launch in self._launches:
                launch.launch(stream)
                launch.node = last_captured_node(driver, stream)
        except BaseException:
            abandon_capture(driver, stream)
            raise
        driver.end_capture(stream, ctypes.byref(graph))
        self._owned.add("graph_destroy", graph.value or 0)
        return self._owned.add(
            "graph_exec_destroy", driver.create("graph_instantiate", graph.value, 0)
        )


class _ProfileGraph:
    """The launches with an event after each."""

    def __init__(
        self,
        context: GpuContext,
        launches: Sequence[CudaLaunch],
        stream: int,
        addresses: list[int],
    ) -> None:
        driver = self._driver = context.driver
        self.addresses = addresses
        self._launches = launches
        self._stream = stream
        owned = context.own(self)
        self._events = [
            owned.add("event_destroy", driver.create("event_create", EVENT_DEFAULT))
            for _ in range(len(launches) + 3)
        ]
        self._executable = 0
        if driver.has(*_GRAPH_FUNCTIONS, "event_record_flags"):
            graph = ctypes.c_void_p()
            driver.begin_capture(stream, CAPTURE_THREAD_LOCAL)
            try:
                self._enqueue(
                    lambda event: driver.event_record_flags(event, stream, EVENT_RECORD_EXTERNAL)
                )
            except BaseException:
                abandon_capture(driver, stream)
                raise
            driver.end_capture(stream, ctypes.byref(graph))
            owned.add("graph_destroy", graph.value or 0)
            self._executable = driver.create("graph_instantiate", graph.value, 0)
            owned.add("graph_exec_destroy", self._executable)

    def run(self) -> list[float]:
        driver = self._driver
        if self._executable:
            driver.graph_launch(self._executable, self._stream)
        else:
            self._enqueue(lambda event: driver.event_record(event, self._stream))
        driver.stream_synchronize(self._stream)
        events = self._events[1:]
        spans = [driver.elapsed_us(*pair) for pair in itertools.pairwise(events)]
        floor = spans.pop()
        return [max(0.0, span - floor) for span in spans]

    def _enqueue(self, record: Any) -> None:
        """One event before the first that counts (the graph's start is slower), one after all."""
        record(self._events[0])
        record(self._events[1])
        for launch, event in zip(self._launches, self._events[2:-1], strict=True):
            launch.launch(self._stream, is_dependent=False)
            record(event)
        record(self._events[-1])


def last_captured_node(driver: Driver, stream: int) -> int:
    """The graph node on which the next work of a stream that is being captured would depend."""
    status, number = ctypes.c_int(), ctypes.c_uint64()
    graph, nodes = ctypes.c_void_p(), ctypes.c_void_p()
    num_nodes = ctypes.c_size_t()
    arguments = [ctypes.byref(x) for x in (status, number, graph, nodes)]
    if driver.has("capture_info_v3"):
        edges = ctypes.c_void_p()
        driver.capture_info_v3(stream, *arguments, ctypes.byref(edges), ctypes.byref(num_nodes))
    else:
        driver.capture_info_v2(stream, *arguments, ctypes.byref(num_nodes))
    assert num_nodes.value == 1
    return ctypes.cast(nodes, ctypes.POINTER(ctypes.c_void_p))[0] or 0


def abandon_capture(driver: Driver, stream: int) -> None:
    """End a capture that failed half way."""
    graph = ctypes.c_void_p()
    try:
        driver.end_capture(stream, ctypes.byref(graph))
        if graph.value:
            driver.graph_destroy(graph)
    except CudaError as error:
        _log.debug("an abandoned capture ended with: %s", error)
