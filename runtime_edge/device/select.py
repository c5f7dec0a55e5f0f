"""Which device a plan is loaded on. Modules of devices are imported when they are wanted."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from planformat.fingerprint import compare
from planformat.plan import Plan
from runtime_edge.errors import DeviceError, LoadError

if TYPE_CHECKING:
    from planformat.fingerprint import DeviceFingerprint
    from runtime_edge.device.base import Device

_log = logging.getLogger(__name__)


def parse_device(text: str) -> tuple[str, int]:
    """Kind and number of a device name: `cpu`, `cuda`, `cuda:1`.

    Raises:
        ValueError: no such name.
    """
    found = re.fullmatch(r"(cpu)|(cuda)(?::(\d+))?", text)
    if found is None:
        raise ValueError(f"device '{text}' is unknown; known are cpu, cuda (the first GPU), cuda:N")
    return (found[1] or found[2]), int(found[3] or 0)


def open_device(text: str) -> Device:
    """The device with this name.

    Raises:
        ValueError: no such name; LoadError, DeviceError: it is not there.
    """
    kind, number = parse_device(text)
    if kind == "cpu":
        from runtime_edge.device.cpu import CpuDevice

        return CpuDevice()
    from runtime_edge.device.cuda import CudaDevice

    return CudaDevice(number)


def choose_device(
    plan: Plan,
    wanted: Device | str | None,
    *,
    allow: Collection[str] = (),
    source: str = "plan",
) -> Device:
    """The device to load a plan on.

    Args:
        plan: with code for one or more kinds of device.
        wanted: a device, the name of one, or None: the first GPU that the plan was built for, else
            the CPU if the plan has code for it, else the first GPU, whose differences from the plan
            are then reported by the caller.
        allow: fingerprint fields that may differ.
        source: name of the plan for messages.

    Raises:
        LoadError, DeviceError: the plan needs a GPU and none can be used.
    """
    if wanted is not None:
        return open_device(wanted) if isinstance(wanted, str) else wanted
    fingerprints = [variant.fingerprint for variant in plan.variants]
    kinds = {fingerprint.device_kind for fingerprint in fingerprints}
    if "cuda" in kinds:
        try:
            number = _fitting_gpu(fingerprints, allow)
            if number is not None:
                return open_device(f"cuda:{number}")
        except (LoadError, DeviceError) as error:
            if "cpu" not in kinds:
                raise LoadError(
                    f"plan {source}: has code for {', '.join(sorted(kinds))} only: {error}"
                ) from error
            _log.info("plan %s: no GPU is used: %s", source, error)
    return open_device("cpu" if "cpu" in kinds else "cuda")


def _fitting_gpu(fingerprints: Collection[DeviceFingerprint], allow: Collection[str]) -> int | None:
    from runtime_edge.device.cuda_driver import open_driver
    from runtime_edge.device.cuda_probe import num_gpus, probe_gpu

    for number in range(num_gpus(open_driver())):
        live = probe_gpu(number)
        if any(not compare(candidate, live, allow=allow) for candidate in fingerprints):
            return number
    return None
