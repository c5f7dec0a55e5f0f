"""Writes candidates into a tuning bundle, to be timed by `edgeplan tune` on another machine."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder_host.kernels.family import GridLaunch, Launch
from builder_host.measure.base import MeasureJob
from builder_host.tune.timing_cache import TimingKey
from planformat.fingerprint import DeviceFingerprint

FORMAT, VERSION = "edgeplan-tuning-bundle", 1
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # equal candidates give equal bytes


def write_bundle(
    path: str | os.PathLike[str],
    jobs: Sequence[MeasureJob],
    keys: Sequence[TimingKey],
    failed: Sequence[tuple[TimingKey, str]],
    *,
    fingerprint: DeviceFingerprint,
    num_workers: int,
    flush_bytes: int,
    support: bytes,
) -> None:
    """Write a bundle; its layout is stated in `runtime_edge/bundle.py`.

    Args:
        path: zip file to write.
        jobs: compiled candidates.
        keys: the timing cache key of each job.
        failed: candidates that cannot run, and why; they pass through into the timings.
        fingerprint: of the device that they are for.
        num_workers: threads to time with (CPU).
        flush_bytes: memory to overwrite before each run; 0: none.
        support: CPU support code, empty for CUDA.
    """
    names: dict[str, str] = {}
    rows = []
    for job, key in zip(jobs, keys, strict=True):
        name = names.setdefault(job.object_path, f"code/{len(names):05d}")
        rows.append(
            {
                "key": asdict(key),
                "code": name,
                "launches": [_launch(launch) for launch in job.launches],
                "argument_bytes": list(job.argument_bytes),
                "group": job.group,
            }
        )
    index: Mapping[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": {
            "device_kind": fingerprint.device_kind,
            "fields": dict(fingerprint.fields),
        },
        "num_workers": num_workers,
        "flush_bytes": flush_bytes,
        "support": "code/support" if support else "",
        "jobs": rows,
        "failed": [{"key": asdict(key), "error": error} for key, error in failed],
    }
    temporary = Path(f"{path}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "bundle.json", json.dumps(index, indent=1).encode())
        if support:
            _add(archive, "code/support", support)
        for source, name in names.items():
            _add(archive, name, Path(source).read_bytes())
    os.replace(temporary, path)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _TIMESTAMP), data, zipfile.ZIP_DEFLATED)


def _launch(launch: Launch | GridLaunch) -> dict[str, object]:
    if isinstance(launch, Launch):
        return {
            "symbol": launch.symbol,
            "grid": [launch.num_units, 1, 1],
            "block": [1, 1, 1],
            "cluster": [1, 1, 1],
            "shared_memory_bytes": 0,
            "is_dependent": False,
            "scratch_bytes_per_worker": launch.scratch_bytes_per_worker,
        }
    return {
        "symbol": launch.symbol,
        "grid": list(launch.grid),
        "block": list(launch.block),
        "cluster": list(launch.cluster),
        "shared_memory_bytes": launch.shared_memory_bytes,
        "is_dependent": launch.is_dependent,
        "scratch_bytes_per_worker": 0,
    }
