"""Capturing a run of the command line: written before, completed or removed after."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from planformat.fingerprint import DeviceFingerprint
from runtime_edge.capture import (
    UNFINISHED,
    Capture,
    CapturedError,
    CapturedOptions,
    CapturedTensor,
    captured_plan,
    has_capture,
    remove_capture,
    write_capture,
)
from runtime_edge.cli import CommandError, version
from runtime_edge.probe import probe_device

_R = TypeVar("_R")


def captured_run(
    args: argparse.Namespace,
    inputs: Mapping[str, Any],
    work: Callable[[Callable[[DeviceFingerprint], None]], tuple[Mapping[str, Any], _R]],
    *,
    keeps_success: bool,
) -> _R:
    """Run `work` and keep what it takes to repeat it, if it fails.

    Args:
        args: of a command that loads a plan; `capture` is the folder.
        inputs: arrays by name.
        work: loads the plan, tells the function that it gets which device that is, and runs; gives
            outputs and its result.
        keeps_success: keep a run that went well too, with its outputs.

    Raises:
        CaptureError, CommandError: the capture cannot be written; nothing was run then.
    """
    if has_capture(args.capture):
        raise CommandError(
            f"--capture {args.capture}: holds a captured run already; remove it, or name another "
            "folder"
        )
    here = probe_device()
    capture = Capture(
        version=version(),
        plan=captured_plan(args.plan),
        options=CapturedOptions(
            profile=args.profile,
            threads=args.threads,
            device=args.device,
            allow=tuple(field for field in args.allow.split(",") if field),
            canary=not args.no_canary,
        ),
        device_kind=here.device_kind,
        fingerprint=here.fields,
        inputs=_tensors(inputs),
        error=CapturedError(UNFINISHED, "the process ended during the run"),
    )

    def loaded(device: DeviceFingerprint) -> None:
        nonlocal capture
        capture = replace(capture, device_kind=device.device_kind, fingerprint=device.fields)
        write_capture(capture, args.capture, has_inputs=True)

    write_capture(capture, args.capture)
    try:
        outputs, result = work(loaded)
    except Exception as error:
        told = CapturedError(type(error).__name__, str(error))
        write_capture(replace(capture, error=told), args.capture, has_inputs=True)
        raise
    if keeps_success:
        capture = replace(capture, outputs=_tensors(outputs), error=None)
        write_capture(capture, args.capture, has_inputs=True)
    else:
        remove_capture(args.capture)
    return result


def _tensors(arrays: Mapping[str, Any]) -> tuple[CapturedTensor, ...]:
    return tuple(
        CapturedTensor(
            name,
            array.dtype.name,
            tuple(array.shape),
            array.tobytes(),
        )
        for name, array in arrays.items()
    )
