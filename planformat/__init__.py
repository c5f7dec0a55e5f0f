"""The PLAN file: what the builder writes and the edge runtime reads. SPEC.md is the truth.

Names are imported on first use, so that `import planformat` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planformat.canary import canary_input
    from planformat.datatypes import DataType, TensorFormat
    from planformat.errors import (
        FingerprintMismatchError,
        PlanError,
        PlanFormatError,
        PlanSignatureError,
        PlanVersionError,
    )
    from planformat.fingerprint import DeviceFingerprint, FieldDifference, compare, require_match
    from planformat.plan import (
        Argument,
        ArgumentKind,
        Binding,
        Canary,
        CodeKind,
        CodeObject,
        Kernel,
        Plan,
        Profile,
        Step,
        Variant,
    )
    from planformat.reader import OpenPlan, open_plan, read_plan
    from planformat.writer import plan_bytes, save_plan, sign_plan

_MODULES = {
    "canary": ("canary_input",),
    "datatypes": ("DataType", "TensorFormat"),
    "errors": (
        "FingerprintMismatchError",
        "PlanError",
        "PlanFormatError",
        "PlanSignatureError",
        "PlanVersionError",
    ),
    "fingerprint": ("DeviceFingerprint", "FieldDifference", "compare", "require_match"),
    "plan": (
        "Argument",
        "ArgumentKind",
        "Binding",
        "Canary",
        "CodeKind",
        "CodeObject",
        "Kernel",
        "Plan",
        "Profile",
        "Step",
        "Variant",
    ),
    "reader": ("OpenPlan", "open_plan", "read_plan"),
    "writer": ("plan_bytes", "save_plan", "sign_plan"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Argument",
    "ArgumentKind",
    "Binding",
    "Canary",
    "CodeKind",
    "CodeObject",
    "DataType",
    "DeviceFingerprint",
    "FieldDifference",
    "FingerprintMismatchError",
    "Kernel",
    "OpenPlan",
    "Plan",
    "PlanError",
    "PlanFormatError",
    "PlanSignatureError",
    "PlanVersionError",
    "Profile",
    "Step",
    "TensorFormat",
    "Variant",
    "canary_input",
    "compare",
    "open_plan",
    "plan_bytes",
    "read_plan",
    "require_match",
    "save_plan",
    "sign_plan",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'planformat' has no attribute '{name}'")
    return getattr(importlib.import_module(f"planformat.{module}"), name)
