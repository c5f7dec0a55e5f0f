"""Tuning bundles: candidates that a builder compiled, timed here without the builder.

A bundle is a zip archive of `bundle.json` and the members `code/NNNN` that it names. Nothing is
extracted: members are read into memory, within limits. The result is a timing cache file: a header
line, then one JSON record per line with the keys that the bundle states.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from planformat.fingerprint import DeviceFingerprint
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.tuning import TuneJob, TuneLaunch, TuneResult

FORMAT, VERSION = "edgeplan-tuning-bundle", 1
MAX_INDEX_BYTES = 64 << 20
MAX_CODE_BYTES = 64 << 20
MAX_JOBS = 1 << 16
MAX_BUFFER_BYTES = 1 << 33


class BundleError(RuntimeEdgeError):
    """A bundle that cannot be read; the text names member and value."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Content of a bundle.

    Attributes:
        fingerprint: device that the candidates were compiled for.
        num_workers: threads to time with (CPU).
        flush_bytes: memory to overwrite before each run; 0: none.
        support: shared object with the CPU support code, empty for CUDA.
        jobs: the candidates; keys: the timing cache key of each.
        failed: keys of candidates that the builder found unable to run, and why.
    """

    fingerprint: DeviceFingerprint
    num_workers: int
    flush_bytes: int
    support: bytes
    jobs: tuple[TuneJob, ...]
    keys: tuple[Mapping[str, str], ...]
    failed: tuple[tuple[Mapping[str, str], str], ...]


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: not a bundle, another version, or beyond the limits.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index = json.loads(_member(archive, "bundle.json", MAX_INDEX_BYTES))
            return _parsed(index, lambda name: _member(archive, name, MAX_CODE_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BundleError(f"{path}: not a tuning bundle: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: bundle.json is malformed: {error}") from error


def cache_text(bundle: Bundle, results: list[TuneResult]) -> str:
    """Text of the timing cache file for the results, in the order of the keys."""
    rows = []
    refused = [(key, TuneResult(None, error=error)) for key, error in bundle.failed]
    for key, result in [*zip(bundle.keys, results, strict=True), *refused]:
        timing = {
            "median_us": result.median_us,
            "p20_us": result.p20_us,
            "p80_us": result.p80_us,
            "num_repeats": result.num_repeats,
            "error": result.error,
        }
        rows.append(json.dumps({**key, **timing}, sort_keys=True))
    head = json.dumps({"format": "edgeplan-timing-cache", "version": 1})
    return "\n".join([head, *sorted(rows)]) + "\n"


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise BundleError(f"member '{name}' has {info.file_size:,} bytes, the limit is {limit:,}")
    with archive.open(info) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"member '{name}' is larger than it says; the limit is {limit:,} bytes")
    return data


def _parsed(index: Any, read: Callable[[str], bytes]) -> Bundle:
    if index["format"] != FORMAT or index["version"] != VERSION:
        raise BundleError(
            f"format '{index['format']}' version {index['version']}; "
            f"this runtime reads '{FORMAT}' version {VERSION}"
        )
    rows = index["jobs"]
    if len(rows) > MAX_JOBS:
        raise BundleError(f"{len(rows):,} candidates, the limit is {MAX_JOBS:,}")
    codes: dict[str, bytes] = {}
    jobs, keys = [], []
    for row in rows:
        name = str(row["code"])
        if name not in codes:
            codes[name] = read(name)
        sizes = tuple(_bounded(size, MAX_BUFFER_BYTES) for size in row["argument_bytes"])
        launches = tuple(_launch(launch) for launch in row["launches"])
        jobs.append(TuneJob(codes[name], launches, sizes, int(row["group"])))
        keys.append(_key(row["key"]))
    device = index["fingerprint"]
    return Bundle(
        DeviceFingerprint(
            str(device["device_kind"]), {str(k): str(v) for k, v in device["fields"].items()}
        ),
        _bounded(index["num_workers"], 1024),
        _bounded(index["flush_bytes"], MAX_BUFFER_BYTES),
        read(index["support"]) if index["support"] else b"",
        tuple(jobs),
        tuple(keys),
        tuple((_key(row["key"]), str(row["error"])) for row in index["failed"]),
    )


def _key(row: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in row.items()}


def _launch(row: Any) -> TuneLaunch:
    return TuneLaunch(
        str(row["symbol"]),
        _triple(row["grid"]),
        _triple(row["block"]),
        _triple(row["cluster"]),
        _bounded(row["shared_memory_bytes"], 1 << 20),
        bool(row["is_dependent"]),
        _bounded(row["scratch_bytes_per_worker"], 1 << 32),
    )


def _triple(values: Any) -> tuple[int, int, int]:
    x, y, z = (_bounded(value, (1 << 31) - 1) for value in values)
    return x, y, z


def _bounded(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is not a whole number from 0 to {limit:,}")
    return value
