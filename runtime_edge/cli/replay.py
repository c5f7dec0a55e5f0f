"""Run a captured run again and tell what is different: outcome, outputs, device, plan.

FOLDER was written by 'edgeplan run --capture'. Exit status 0: the same outcome (the same outputs,
or an error of the same kind), 3: another one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planformat.canary import compare_output
from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint, compare
from runtime_edge.capture import (
    UNFINISHED,
    Capture,
    CapturedError,
    CapturedTensor,
    captured_plan,
    read_capture,
)
from runtime_edge.cli import CommandError, is_user_error, version
from runtime_edge.cli._running import runner
from runtime_edge.engine import load

_SAME, _OTHER = 0, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="folder of 'edgeplan run --capture'")
    parser.add_argument("--plan", metavar="P", help="plan to run (default: FOLDER says where)")
    parser.add_argument("--key", metavar="PUB", help="public key file; the plan must be signed")
    parser.add_argument(
        "--allow", metavar="FIELDS", help="fingerprint fields that may differ (default: as then)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 ... (default: as then)")
    for name, text in (("rtol", "of the value then"), ("atol", "")):
        parser.add_argument(
            f"--{name}",
            type=_tolerance,
            default=0.0,
            metavar="X",
            help=f"difference of an element that still counts as the same {text}".strip()
            + " (default: 0, the same bytes)",
        )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the run ended now. device: None when loading failed; types: of elements by output."""

    device: DeviceFingerprint | None
    types: Mapping[str, DataType]
    outputs: Mapping[str, Any]
    error: CapturedError | None


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from runtime_edge.cli._loading import read_public_key

    capture = read_capture(args.folder)
    path = args.plan or capture.plan.path
    try:
        plan = captured_plan(path)
    except (OSError, ValueError) as error:  # ValueError: the path is none
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(
            f"plan {_shown(path)}: {reason}; name the plan that was captured with --plan (SHA-256 "
            f"{_shown(capture.plan.sha256)})"
        ) from error
    outcome = _outcome(args, capture, path, read_public_key(args.key))
    differences = []
    if plan.sha256 != capture.plan.sha256:
        differences.append(
            f"plan: SHA-256 was {capture.plan.sha256} ({capture.plan.num_bytes:,} bytes), is "
            f"{plan.sha256} ({plan.num_bytes:,} bytes)"
        )
    if version() != capture.version:
        differences.append(f"edgeplan: was {capture.version}, is {version()}")
    if outcome.device is not None:
        differences += _device_differences(capture, outcome.device)
    results = _results(args, capture, outcome)
    is_same = all(row["is_same"] for row in results)
    if args.json:
        report = {"is_same": is_same, "results": results, "differences": differences}
        print(json.dumps(report, ensure_ascii=False))
    else:
        for row in results:
            print(_shown(row["text"]))
        print("the same outcome" if is_same else "ANOTHER outcome")
        for text in differences:
            print(f"different: {_shown(text)}")
    return _SAME if is_same else _OTHER


def _outcome(
    args: argparse.Namespace, capture: Capture, path: str, public_key: bytes | None
) -> _Outcome:
    options, device = capture.options, None
    types: dict[str, DataType] = {}
    allow = options.allow if args.allow is None else args.allow.split(",")
    try:
        engine = load(
            path,
            public_key=public_key,
            allow=[name for name in allow if name],
            canary=options.canary,
            num_workers=options.threads or None,
            device=args.device or options.device,
        )
        device = engine.fingerprint
        types = {binding.name: binding.dtype for binding in engine.bindings}
        inputs = {tensor.name: _array(tensor) for tensor in capture.inputs}
        with runner(engine, options.profile, inputs) as execute:
            return _Outcome(device, types, execute(inputs), None)
    except Exception as error:
        if not is_user_error(error) and not isinstance(error, KeyError | ValueError):
            raise
        return _Outcome(device, types, {}, CapturedError(type(error).__name__, str(error)))


def _device_differences(capture: Capture, device: DeviceFingerprint) -> list[str]:
    then = DeviceFingerprint(capture.device_kind, dict(capture.fingerprint))
    if then.device_kind != device.device_kind:
        return [f"device: was of kind {then.device_kind}, is {device.device_kind}"]
    return [
        f"device {found.field}: was '{found.plan_value}', is '{found.device_value}'"
        for found in compare(then, device)
    ]


def _results(args: argparse.Namespace, capture: Capture, outcome: _Outcome) -> list[dict[str, Any]]:
    if capture.error is not None or outcome.error is not None:
        return [_error_result(capture.error, outcome.error)]
    rows = []
    for tensor in capture.outputs:
        found = outcome.outputs.get(tensor.name)
        if found is None:
            rows.append({"is_same": False, "text": f"{tensor.name}: the plan has no such output"})
        else:
            kind = outcome.types[tensor.name]
            rows.append(output_result(tensor, found, kind, rtol=args.rtol, atol=args.atol))
    return rows


def _error_result(then: CapturedError | None, now: CapturedError | None) -> dict[str, Any]:
    was = "it went well" if then is None else f"{then.type}: {then.message}"
    has = "it goes well" if now is None else f"{now.type}: {now.message}"
    is_same = then is not None and now is not None and then.type == now.type
    if then is not None and then.type == UNFINISHED:
        has += "; this process is still there"
    return {"is_same": is_same, "text": f"then: {was}\nnow:  {has}"}


def output_result(
    then: CapturedTensor, now: Any, kind: DataType, *, rtol: float, atol: float
) -> dict[str, Any]:
    """Compare an output with what it was.

    Args:
        then: captured; bfloat16 is uint16.
        now: array, of elements that NumPy knows as well.
        kind: what the elements are to the plan.
        rtol: difference that still counts as the same, of the value then.
        atol: that of any value.
    """
    row: dict[str, Any] = {"output": then.name}
    if (now.dtype.name, tuple(now.shape)) != (then.dtype, then.shape):
        text = f"was {then.dtype} {list(then.shape)}, is {now.dtype.name} {list(now.shape)}"
        return row | {"is_same": False, "text": f"{then.name}: {text}"}
    expected, actual = bytes(then.data), now.tobytes()
    if expected == actual:
        return row | {"is_same": True, "text": f"{then.name}: the same {len(actual):,} bytes"}
    found = compare_output(expected, actual, kind, absolute_tolerance=atol, relative_tolerance=rtol)
    if found is None:
        text = f"other bytes, within {atol:g} + {rtol:g} of the value"
        return row | {"is_same": True, "text": f"{then.name}: {text}"}
    text = f"element {found.index:,} was {found.expected:.9g}, is {found.actual:.9g}"
    return row | {"is_same": False, "text": f"{then.name}: {text}"}


def _shown(text: str) -> str:
    """A text of somebody else's folder, as no terminal takes it for commands."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def _array(tensor: CapturedTensor) -> Any:
    import numpy as np

    return np.frombuffer(bytes(tensor.data), tensor.dtype).reshape(tensor.shape)


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value
