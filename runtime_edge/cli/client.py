"""Ask a running daemon: infer on .npy files, health, models, statistics, load, unload.

Actions: `infer MODEL` (inputs with --input NAME=FILE.npy), `health`, `models`, `show MODEL`,
`stats [MODEL]`, `load MODEL`, `unload MODEL`, `status`, `metrics`, `trace` (save it to a file for
Perfetto). A refused inference is tried again when --retries says so, after the time that the daemon
advises.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from runtime_edge.cli import CommandError
from runtime_edge.cli._arrays import input_files, read_array

if TYPE_CHECKING:
    from runtime_edge.serve.client import Client, TensorValue

_ACTIONS = (
    "infer",
    "health",
    "models",
    "show",
    "stats",
    "load",
    "unload",
    "status",
    "metrics",
    "trace",
)
_NEED_MODEL = ("infer", "show", "load", "unload")
_NUMPY_TYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("action", choices=_ACTIONS)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name under which it is served")
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:8000",
        help="http://HOST:PORT, https://HOST:PORT or unix:PATH (default %(default)s)",
    )
    parser.add_argument("--token-file", metavar="F", help="file with the bearer token")
    parser.add_argument("--ca", metavar="PEM", help="certificate that the daemon's is checked with")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=F.npy", help="once per input"
    )
    parser.add_argument("--output-dir", metavar="D", help="folder for the outputs, made if missing")
    parser.add_argument("--priority", type=int, default=0, help="1 is the most urgent")
    parser.add_argument("--timeout-ms", type=float, default=0.0, help="deadline of an inference")
    parser.add_argument("--retries", type=int, default=0, help="after 503 (default: none)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from runtime_edge.serve.client import Client, ClientError

    if args.model is None and args.action in _NEED_MODEL:
        raise CommandError(f"{args.action} needs the name of a model")
    token = ""
    if args.token_file:
        with open(args.token_file, encoding="ascii") as file:
            token = file.read().strip()
    client = Client(args.url, token=token, ca_file=args.ca or "")
    try:
        if args.action == "infer":
            return _infer(client, args)
        if args.action == "health":
            try:
                client.get("/v2/health/ready")
            except ClientError as error:
                if error.status != 400:
                    raise
                print("alive, not ready")
                return 1
            print("ready")
            return 0
        if args.action == "metrics":
            print(client.text("/metrics"), end="")
            return 0
        print(json.dumps(_ask(client, args.action, args.model), indent=None if args.json else 1))
        return 0
    finally:
        client.close()


def _ask(client: Client, action: str, model: str | None) -> Any:
    from urllib.parse import quote

    name = quote(model or "", safe="")
    if action == "models":
        return client.post("/v2/repository/index")
    if action in ("load", "unload"):
        client.post(f"/v2/repository/models/{name}/{action}")
        return {action: model}
    paths = {
        "show": f"/v2/models/{name}",
        "stats": f"/v2/models/{name}/stats" if model else "/v2/models/stats",
        "status": "/status.json",
        "trace": "/trace.json",
    }
    return client.get(paths[action])


def _infer(client: Client, args: argparse.Namespace) -> int:
    inputs = _inputs(client, args)
    begin = time.perf_counter_ns()
    outputs = _infer_with_retries(client, args, inputs)
    latency_ms = (time.perf_counter_ns() - begin) / 1e6
    rows = []
    for tensor in outputs:
        array = _array(tensor)
        row: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if array.size:
            row.update(min=float(array.min()), max=float(array.max()), argmax=int(array.argmax()))
        if args.output_dir is not None:
            import numpy as np

            os.makedirs(args.output_dir, exist_ok=True)
            row["file"] = os.path.join(args.output_dir, tensor.name.replace("/", "_") + ".npy")
            np.save(row["file"], array)
        rows.append(row)
    if args.json:
        print(json.dumps({"latency_ms": round(latency_ms, 3), "outputs": rows}))
        return 0
    for row in rows:
        line = f"{row['name']}: {row['datatype']} {'x'.join(map(str, row['shape']))}"
        if "min" in row:
            line += f", {row['min']:.6g} to {row['max']:.6g}, largest at {row['argmax']}"
        print(line + (f" -> {row['file']}" if "file" in row else ""))
    print(f"{latency_ms:.3f} ms")
    return 0


def _inputs(client: Client, args: argparse.Namespace) -> list[TensorValue]:
    from runtime_edge.serve.client import TensorValue

    shown = _ask(client, "show", args.model)
    try:
        wanted = {str(row["name"]): str(row["datatype"]) for row in shown["inputs"]}
    except (KeyError, TypeError) as error:
        raise CommandError(
            f"{args.url} does not describe model '{args.model}' as the Open Inference Protocol "
            f"does: {error!r:.200}"
        ) from error
    inputs = []
    for name, path in input_files(args.input):
        where = f"--input {name}={path}"
        if name not in wanted:
            raise CommandError(f"{where}: model '{args.model}' has the inputs {', '.join(wanted)}")
        array = read_array(name, path)
        datatype = wanted[name]
        if datatype not in _NUMPY_TYPES or array.dtype != _NUMPY_TYPES[datatype]:
            raise CommandError(f"{where}: elements are {array.dtype}, the model takes {datatype}")
        data = array.tobytes()
        inputs.append(TensorValue(name, datatype, tuple(array.shape), data))
    return inputs


def _array(tensor: TensorValue) -> Any:
    """An output as an array; its server may be anybody's."""
    import numpy as np

    try:
        return np.frombuffer(tensor.data, _NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape)
    except (KeyError, ValueError) as error:
        raise CommandError(
            f"output '{tensor.name}': {len(tensor.data):,} bytes cannot be {tensor.datatype} of "
            f"shape {list(tensor.shape)}: {error}"
        ) from error


def _infer_with_retries(
    client: Client, args: argparse.Namespace, inputs: list[TensorValue]
) -> list[TensorValue]:
    from runtime_edge.serve.client import ClientError

    left = args.retries
    while True:
        try:
            return client.infer(
                args.model,
                inputs,
                priority=args.priority,
                timeout_us=int(args.timeout_ms * 1000),
            )
        except ClientError as error:
            if error.status != 503 or left <= 0:
                raise
            left -= 1
            time.sleep(error.retry_after_s or 1)
