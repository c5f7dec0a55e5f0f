"""Float64 outputs of networks, kept in the artifact store.

The reference of an unchanged network takes longer than the rest of a build from the cache. What a
plan computes is compared with it every time; the reference itself is computed once.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host import expressions, network
from builder_host.codegen.artifacts import ArtifactStore
from builder_host.emit import verification
from builder_host.emit.verification import CANARY_SEED, reference_outputs
from builder_host.network.network import Network, Tensor
from planformat import canary

_FILE = "outputs.npz"


def remembered_outputs(net: Network, store: ArtifactStore | None) -> dict[str, npt.NDArray[Any]]:
    """What `reference_outputs` gives, from the store where it is there.

    Plugins run code that no hash covers: a network with one is always evaluated.

    Args:
        net: in topological order.
        store: where outputs are kept; None: nothing is remembered.
    """
    if store is None or any(layer.kind == "plugin" for layer in net.layers):
        return reference_outputs(net)
    key = network_hash(net)
    names = list(dict.fromkeys(tensor.name for tensor in net.outputs))
    folder = store.get(key)
    if folder is not None:
        try:
            return _read(folder / _FILE, names)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            store.remove(key)  # cut short by a power cut or a full disk
    outputs = reference_outputs(net)
    stream = io.BytesIO()
    np.savez(stream, *(outputs[name] for name in names))
    store.put(key, {_FILE: stream.getvalue()})
    return outputs


def _read(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}


def network_hash(net: Network) -> str:
    """Hash of all that decides the reference: layers, shapes, constants, and the code of both."""
    digest = hashlib.sha256(f"reference\0{CANARY_SEED}\0{_code_hash()}".encode())
    for part in _parts(net):
        digest.update(part)
    return digest.hexdigest()


def _parts(net: Network) -> Iterator[bytes | memoryview]:
    """The network piece by piece, each with its length told ahead of it."""
    numbers: dict[Tensor, int] = {}

    def number(tensor: Tensor) -> int:
        return numbers.setdefault(tensor, len(numbers))

    def described(tensor: Tensor) -> list[Any]:
        return [number(tensor), tensor.dtype.text, list(tensor.shape), tensor.is_constant]

    rows: list[Any] = [[described(tensor) for tensor in net.inputs]]
    for layer in net.layers:
        epilogue = layer.epilogue
        rows.append(
            [
                layer.kind,
                repr(layer.params),
                [described(tensor) for tensor in layer.inputs],
                [described(tensor) for tensor in layer.outputs],
                [expressions.text(epilogue.expr), epilogue.num_operands] if epilogue else None,
            ]
        )
    rows.append([described(tensor) for tensor in net.outputs])
    yield json.dumps(rows).encode()
    for tensor in numbers:
        if tensor.values is not None:
            values = np.ascontiguousarray(tensor.values)
            yield f"\0{values.dtype.str} {values.nbytes}\0".encode()
            yield values.reshape(-1).view(np.uint8).data


@functools.cache
def _code_hash() -> str:
    """Of the sources that evaluate networks and make the canary's inputs."""
    folder = Path(next(iter(network.__path__)))
    modules = (expressions, verification, canary)
    files = [*sorted(folder.rglob("*.py")), *(Path(str(one.__file__)) for one in modules)]
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\0".encode() + content)
    return digest.hexdigest()
