"""Device fingerprints: what identifies the device that a plan was built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DeviceFingerprint:
    """Facts about one device.

    Attributes:
        device_kind: `cpu` or `cuda`.
        fields: name to canonical text, e.g. `cpu.model` -> `AMD EPYC 25/17/1`. Field names and
            their meaning are listed in SPEC.md section 6.
    """

    device_kind: str
    fields: Mapping[str, str] = field(default_factory=dict)
