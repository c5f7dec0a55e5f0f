"""The weights region of a plan from other constants, every one where the plan has it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.emit.plan import emit_profile, packed_constants
from builder_host.emit.tuned import TunedProfile
from builder_host.emit.weights_region import CHUNK_ALIGN_BYTES
from builder_host.errors import RefitError
from builder_host.targets.backend import LinkedCode
from planformat.details import ProfileDetails
from planformat.plan import ArgumentKind, Plan, Profile


@dataclass(frozen=True, slots=True)
class _Piece:
    """A packed constant of a layer and where it lies."""

    layer: str
    offset: int
    data: npt.NDArray[np.uint8]
    digest: bytes

    @property
    def end(self) -> int:
        return self.offset + self.data.nbytes


def packed_region(
    plan: Plan, profiles: Sequence[TunedProfile], details: Sequence[ProfileDetails], target: Any
) -> npt.NDArray[np.uint8]:
    """Pack all constants into a region of the plan's layout.

    Args:
        plan: of one variant; its weights are not looked at.
        profiles: its operations with the model's constants, see `recorded_operations`.
        details: what the plan tells of the profiles.
        target: that the plan is for.

    Raises:
        RefitError: steps would differ from the plan's, constants that the plan stores once are no
            longer equal, or the pieces do not fit the plan's region.
    """
    pieces: dict[int, _Piece] = {}
    variant = plan.variants[0]
    code = LinkedCode(variant.code_objects, variant.kernels)
    for tuned, profile, own in zip(profiles, variant.profiles, details, strict=True):
        keys: list[list[bytes | None]] = []
        offsets: dict[bytes, int] = {}
        for item, operation in zip(tuned.operations, own.operations, strict=True):
            arguments = profile.steps[operation.steps[0]].arguments if operation.steps else ()
            row: list[bytes | None] = []
            for number, array in enumerate(packed_constants(item, target)):
                if array is None:
                    row.append(None)
                    continue
                has_place = number < len(arguments)
                argument = arguments[number] if has_place else None
                if argument is None or argument.kind is not ArgumentKind.WEIGHTS:
                    raise RefitError(
                        f"layer '{operation.name}': its input {number} is a constant in the model, "
                        "but not in the plan; build the plan again"
                    )
                key = f"{operation.name}\0{number}\0{len(keys)}".encode()
                offsets[key] = argument.value
                row.append(key)
                _put(pieces, operation.name, argument.value, array)
            keys.append(row)
        _check_steps(tuned, profile, keys, offsets, code)
    return _region(pieces, sum(plan.chunk_lengths))


def _put(pieces: dict[int, _Piece], layer: str, offset: int, array: npt.NDArray[Any]) -> None:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    piece = _Piece(layer, offset, data, hashlib.sha256(data.data).digest())
    known = pieces.setdefault(offset, piece)
    if known.digest != piece.digest:
        raise RefitError(
            f"layers '{known.layer}' and '{layer}' have a constant in common in the plan (byte "
            f"{offset:,} of the weights), because their values were equal; the model's values are "
            "not: build the plan again, with --refittable (BuilderFlag.REFIT)"
        )


def _check_steps(
    tuned: TunedProfile,
    profile: Profile,
    keys: Sequence[Sequence[bytes | None]],
    offsets: dict[bytes, int],
    code: LinkedCode,
) -> None:
    known = {kernel.symbol for kernel in code.kernels}
    for item in tuned.operations:
        for launch in item.program.launches:
            if launch.symbol not in known:
                raise RefitError(
                    f"layer '{item.operation.name}': the plan has no kernel '{launch.symbol}'; "
                    "build the plan again"
                )
    made, _ = emit_profile(tuned, keys, offsets, code)
    if len(made.steps) != len(profile.steps):
        raise RefitError(
            f"profile '{profile.name}': the plan has {len(profile.steps)} steps, the model gives "
            f"{len(made.steps)}; build the plan again"
        )
    for step, planned in zip(made.steps, profile.steps, strict=True):
        same_times = replace(
            step, measured_us=planned.measured_us, predicted_us=planned.predicted_us
        )
        if same_times != planned:
            raise RefitError(
                f"step '{planned.name}': its launch or its arguments would change; the plan was "
                "made by another version of edgeplan: build it again"
            )
    if (made.shapes, made.arena_bytes) != (profile.shapes, profile.arena_bytes):
        raise RefitError(
            f"profile '{profile.name}': shapes or arena would change ({made.arena_bytes:,} bytes "
            f"instead of {profile.arena_bytes:,}); build the plan again"
        )


def _region(pieces: dict[int, _Piece], num_bytes: int) -> npt.NDArray[np.uint8]:
    end = 0
    for piece in sorted(pieces.values(), key=lambda piece: piece.offset):
        if piece.offset < end:
            raise RefitError(
                f"layer '{piece.layer}': its constant at byte {piece.offset:,} of the weights "
                f"overlaps the one before it, which ends at {end:,}; the plan is damaged"
            )
        end = piece.end
    if not end <= num_bytes < end + CHUNK_ALIGN_BYTES:
        raise RefitError(
            f"the model's constants end at byte {end:,}, the plan's weights have {num_bytes:,} "
            "bytes; build the plan again"
        )
    region = np.zeros(num_bytes, np.uint8)
    for piece in pieces.values():
        region[piece.offset : piece.end] = piece.data
    return region
