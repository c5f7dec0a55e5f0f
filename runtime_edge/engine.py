"""Engine: a loaded plan. Immutable, shared by threads; contexts do the work."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Collection, Mapping
from typing import Any

from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint, compare, select_match
from planformat.plan import Binding, Plan, Profile, Variant
from planformat.reader import OpenPlan, open_plan, read_plan
from planformat.tensors import storage_bytes
from planformat.validate import check_plan
from runtime_edge.canary import CanaryReport, binding_region_bytes, run_canary
from runtime_edge.config import RuntimeConfig
from runtime_edge.context import ExecutionContext
from runtime_edge.device.base import Code, Device, Event, Stream
from runtime_edge.device.select import choose_device
from runtime_edge.errors import ContextBusyError
from runtime_edge.memory import ALIGNMENT_BYTES, Allocator, round_up

_log = logging.getLogger(__name__)


def load(
    plan: str | os.PathLike[str] | bytes | bytearray | memoryview | Plan,
    *,
    public_key: bytes | None = None,
    allow: Collection[str] = (),
    canary: bool = True,
    num_workers: int | None = None,
    config: RuntimeConfig | None = None,
    device: Device | str | None = None,
    weights_memory: Any = None,
) -> Engine:
    """Load a plan: verify, choose the variant for this device, map the code, run the canary.

    The plan's machine code runs in this process: load plans from elsewhere with a public key.

    Args:
        plan: path of a PLAN file (mapped, weights are used in place), its content, or a plan that
            this process has just made: its rules are checked, there is nothing to hash.
        public_key: 32 bytes; the plan must be signed with its private half. Files only.
        allow: fingerprint fields that may differ (`board.*` names a group).
        canary: run the canary inference of the first profile that has one and compare.
        num_workers: threads per context; None uses the number that the plan was tuned for, limited
            to the cores that the process may use.
        config: options; None is RuntimeConfig().
        device: `cpu`, `cuda`, `cuda:1` and so on, or a device object; None picks one that the plan
            was built for, a GPU before the CPU.
        weights_memory: the caller's memory for the weights (on a GPU: device memory), of as many
            bytes as the plan has weights: address, pair (address, nbytes) or object. The caller
            keeps it until the engine is closed. None: where the device wants them.

    Raises:
        ValueError: a public key for a plan that is no file.
        planformat.errors.PlanError: the file is damaged, not signed as wanted, or made for another
            device (every differing field is listed).
        LoadError: its code cannot be loaded.
        CanaryError: it computes other numbers here than at build time.
    """
    opened: OpenPlan | None = None
    if isinstance(plan, Plan):
        if public_key is not None:
            raise ValueError(
                f"plan '{plan.name}' was made in this process: it has no signature to check with a "
                "public key; write it with save_plan and load the file"
            )
        source, content = "(built)", plan
        check_plan(content, source=source)
    elif isinstance(plan, (bytes, bytearray, memoryview)):
        source = "(bytes)"
        content = read_plan(plan, public_key=public_key, source=source)
    else:
        source = os.fspath(plan)
        opened = open_plan(plan, public_key=public_key)
        content = opened.plan
    return Engine(
        content,
        source=source,
        opened=opened,
        device=choose_device(content, device, allow=allow, source=source),
        weights_memory=weights_memory,
        allow=allow,
        canary=canary,
        num_workers=num_workers,
        config=config or RuntimeConfig(),
    )


class Engine:
    """A plan on a device. Made by `load`; every method may be called from any thread.

    Attributes:
        plan: everything that the file says.
        device: where it runs.
        config: options given to `load`.
        fingerprint: of the live device.
        variant_index: of the plan's variant that runs; selection: why it was chosen.
        canary_report: of the canary run at load, None if there was none.
        is_loaded: false only while `load` is at work.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        source: str,
        opened: OpenPlan | None,
        device: Device,
        allow: Collection[str],
        canary: bool,
        num_workers: int | None,
        config: RuntimeConfig,
        weights_memory: Any = None,
    ) -> None:
        """See `load`."""
        self.plan = plan
        self.device = device
        self.config = config
        self.is_loaded = False
        self._source = source
        self._opened = opened
        self._num_workers = num_workers
        self._is_closed = False
        self._contexts: weakref.WeakSet[ExecutionContext] = weakref.WeakSet()
        self.fingerprint: DeviceFingerprint = device.probe()
        index = select_match(
            [variant.fingerprint for variant in plan.variants],
            self.fingerprint,
            allow=allow,
            source=source,
        )
        self.variant_index = index
        self._variant: Variant = plan.variants[index]
        self.selection = self._describe_selection(index)
        _log.info("plan %s: %s", source, self.selection)
        self._code: Code = device.load_code(
            self._variant.code_objects, self._variant.kernels, source=source
        )
        tuned, usable = max(p.num_workers for p in self._variant.profiles), device.usable_workers()
        if num_workers is None and tuned > usable:
            _log.warning(
                "plan %s: tuned for %d threads, the process may use %d cores: contexts get %d",
                source,
                tuned,
                usable,
                usable,
            )
        is_own = config.allocator is None and not config.strict
        self._weights_address, self._weights_holder = device.map_weights(
            plan.weights,
            weights_memory,
            config.allocator,
            context_bytes=self.context_bytes() if is_own else 0,
        )
        self.canary_report: CanaryReport | None = self._run_canary() if canary else None
        self.is_loaded = True

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.plan.name

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """Inputs, then outputs."""
        return self.plan.bindings

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of the profiles; the first is the default."""
        return tuple(profile.name for profile in self._variant.profiles)

    @property
    def weights_bytes(self) -> int:
        """Size of the weights, shared by all contexts."""
        return len(self.plan.weights)

    def profile(self, name: str | None = None) -> Profile:
        """A profile by name; None is the first.

        Raises:
            KeyError: no such profile; the text lists those that exist.
        """
        if name is None:
            return self._variant.profiles[0]
        for profile in self._variant.profiles:
            if profile.name == name:
                return profile
        raise KeyError(f"no profile '{name}'; the plan has {', '.join(self.profiles)}")

    def smallest_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Name of the profile with the fewest input bytes into which the given shapes fit.

        A shape fits when the ranks are equal, dimension 0 is not larger, and the others are equal.

        Raises:
            LookupError: none fits; the text lists the shapes of every profile.
        """
        inputs = [(i, b) for i, b in enumerate(self.plan.bindings) if b.is_input]
        fitting = []
        for order, profile in enumerate(self._variant.profiles):
            rows = [(shapes.get(b.name), profile.shapes[i]) for i, b in inputs]
            if all(given is not None and _fits(given, own) for given, own in rows):
                size = sum(self.binding_bytes(b.name, profile.name) for _, b in inputs)
                fitting.append((size, order, profile.name))
        if fitting:
            return min(fitting)[2]
        known = "; ".join(
            f"{p.name}: " + ", ".join(f"{b.name} {list(p.shapes[i])}" for i, b in inputs)
            for p in self._variant.profiles
        )
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise LookupError(f"no profile takes {given}; the plan has {known}")

    def binding_shape(self, name: str, profile: str | None = None) -> tuple[int, ...]:
        """Logical shape of a binding.

        Args:
            name: of the binding.
            profile: its name; None: the default profile.

        Raises:
            KeyError: no such binding or profile.
        """
        return self.profile(profile).shapes[self._binding_index(name)]

    def binding_dtype(self, name: str) -> DataType:
        """Element type of a binding.

        Args:
            name: of the binding.

        Raises:
            KeyError: no such binding.
        """
        return self.plan.bindings[self._binding_index(name)].dtype

    def binding_bytes(self, name: str, profile: str | None = None) -> int:
        """Bytes that a binding needs in memory.

        Args:
            name: of the binding.
            profile: its name; None: the default profile.

        Raises:
            KeyError: no such binding or profile.
        """
        binding = self.plan.bindings[self._binding_index(name)]
        return storage_bytes(self.binding_shape(name, profile), binding.dtype, binding.format)

    def arena_bytes(self, profile: str | None = None) -> int:
        """Activation arena of a profile, a multiple of 64."""
        return round_up(self.profile(profile).arena_bytes, ALIGNMENT_BYTES)

    def scratch_bytes(self, profile: str | None = None, *, num_workers: int | None = None) -> int:
        """Scratch of all workers of one context, a multiple of 64.

        Args:
            profile: its name; None: the default profile.
            num_workers: worker threads; None: as many as the engine has.
        """
        steps = self.profile(profile).steps
        per_worker = max((step.scratch_bytes_per_worker for step in steps), default=0)
        return round_up(per_worker, ALIGNMENT_BYTES) * self._workers(profile, num_workers)

    def context_bytes(self, profile: str | None = None, *, num_workers: int | None = None) -> int:
        """What `create_context` needs: arena and scratch. Must start at a multiple of 64.

        Args:
            profile: its name; None: the default profile.
            num_workers: worker threads; None: as many as the engine has.
        """
        return self.arena_bytes(profile) + self.scratch_bytes(profile, num_workers=num_workers)

    def create_context(
        self,
        *,
        profile: str | None = None,
        arena: Any = None,
        num_workers: int | None = None,
    ) -> ExecutionContext:
        """Make a context.

        Args:
            profile: name; None is the first.
            arena: memory to work in: an address (of context_bytes, multiple of 64), a
                `MemoryRegion` or pair (address, nbytes), a writable buffer, or an `Allocator`. The
                caller keeps it until the context is closed; contexts that never run at the same
                time may share it. None: the config's allocator, or the runtime's own memory.
            num_workers: threads; None is what was given to `load`.

        Raises:
            KeyError: no such profile.
            MemoryRegionError: the arena is too small or misaligned.
            StrictModeError: strict mode and no arena.
            DeviceError: memory or threads were refused.
            ContextBusyError: the engine is closed.
        """
        self._require_open()
        return ExecutionContext(
            self,
            self.profile(profile),
            arena=arena,
            num_workers=self._workers(profile, num_workers),
        )

    def create_stream(self) -> Stream:
        """A stream on this device; it also takes work of other engines of the same kind.

        Raises:
            ContextBusyError: the engine is closed.
        """
        self._require_open()
        return self._code.create_stream()

    def create_event(self) -> Event:
        """An event for streams of this device.

        Raises:
            ContextBusyError: the engine is closed.
        """
        self._require_open()
        return self._code.create_event()

    def close(self) -> None:
        """Unmap the file and unload the code, as soon as streams and events made here are gone.

        Without a call this happens when the engine and all that it made are garbage. Does nothing
        the second time.

        Raises:
            ContextBusyError: contexts are still open.
        """
        if self._contexts:
            raise ContextBusyError(
                f"plan {self._source}: {len(self._contexts)} contexts are still open; close them "
                "before the engine"
            )
        if self._is_closed:
            return
        self._is_closed = True
        self._code.close()
        self._weights_holder = None
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Engine:
        """The engine itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ContextBusyError(f"plan {self._source}: the engine is closed; load it again")

    def _register(self, context: ExecutionContext) -> None:
        self._contexts.add(context)

    def _unregister(self, context: ExecutionContext) -> None:
        self._contexts.discard(context)

    def _binding_index(self, name: str) -> int:
        for index, binding in enumerate(self.plan.bindings):
            if binding.name == name:
                return index
        known = ", ".join(binding.name for binding in self.plan.bindings)
        raise KeyError(f"no binding '{name}'; the plan has {known}")

    def _workers(self, profile: str | None, num_workers: int | None) -> int:
        chosen = num_workers if num_workers is not None else self._num_workers
        if chosen is None:
            chosen = min(self.profile(profile).num_workers, self.device.usable_workers())
        if chosen < 1:
            raise ValueError(f"num_workers is {chosen}, it must be at least 1")
        return chosen

    def _describe_selection(self, index: int) -> str:
        relaxed = compare(self._variant.fingerprint, self.fingerprint)
        text = f"variant {index} of {len(self.plan.variants)}: "
        if not relaxed:
            return text + "every fingerprint field matches"
        fields = ", ".join(
            f"{d.field} (plan '{d.plan_value}', device '{d.device_value}')" for d in relaxed
        )
        return text + f"matches but for allowed fields: {fields}"

    def _run_canary(self) -> CanaryReport | None:
        profile = next((p for p in self._variant.profiles if p.canary is not None), None)
        if profile is None:
            _log.info("plan %s: has no canary", self._source)
            return None
        allocator: Allocator | Device = self.config.allocator or self.device
        region = allocator.allocate(
            binding_region_bytes(self.plan.bindings, profile), ALIGNMENT_BYTES
        )
        try:
            with self.create_context(profile=profile.name) as context:
                report = run_canary(
                    self.device,
                    context._program,
                    self.plan.bindings,
                    profile,
                    region,
                    source=self._source,
                )
        finally:
            allocator.free(region)
        _log.info("plan %s: %s", self._source, report.text())
        return report


def _fits(given: tuple[int, ...], own: tuple[int, ...]) -> bool:
    if len(given) != len(own):
        return False
    return given == own or (bool(own) and given[0] <= own[0] and given[1:] == own[1:])
