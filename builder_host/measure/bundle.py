"""Writes candidates into a tuning bundle, to be timed by `edgeplan tune` on another machine."""

from __future__ import annotations

import hashlib
import io
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
    codes, rows = _rows(jobs, keys)
    index = _index(
        rows,
        [{"key": asdict(key), "error": error} for key, error in failed],
        fingerprint=fingerprint,
        num_workers=num_workers,
        flush_bytes=flush_bytes,
        has_support=bool(support),
    )
    temporary = Path(f"{path}.part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "bundle.json", index, zipfile.ZIP_DEFLATED)
        if support:
            _add(archive, "code/support", support, zipfile.ZIP_DEFLATED)
        for name, data in codes.items():
            _add(archive, name, data, zipfile.ZIP_DEFLATED)
    os.replace(temporary, path)


def bundle_pieces(
    jobs: Sequence[MeasureJob],
    *,
    fingerprint: DeviceFingerprint,
    num_workers: int,
    flush_bytes: int,
    support: bytes,
) -> tuple[bytes, tuple[int, ...]]:
    """A bundle for a board at the other end of a link, which knows its candidates by position.

    Nothing is packed and every member is named for its content, so that code which the board has
    from an earlier bundle need not travel again.

    Args:
        jobs: compiled candidates.
        fingerprint: as for `write_bundle`; so are num_workers, flush_bytes and support.
        num_workers: see above.
        flush_bytes: see above.
        support: see above.

    Returns:
        The bundle's bytes, and the offsets where its members begin.
    """
    codes, rows = _rows(jobs, None)
    index = _index(
        rows,
        [],
        fingerprint=fingerprint,
        num_workers=num_workers,
        flush_bytes=flush_bytes,
        has_support=bool(support),
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        if support:
            _add(archive, "code/support", support, zipfile.ZIP_STORED)
        for name, data in codes.items():
            _add(archive, name, data, zipfile.ZIP_STORED)
        _add(archive, "bundle.json", index, zipfile.ZIP_STORED)
        edges = tuple(info.header_offset for info in archive.infolist())
        end = archive.start_dir
    return stream.getvalue(), (*edges, end)


def _rows(
    jobs: Sequence[MeasureJob], keys: Sequence[TimingKey] | None
) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Code by member name, and the rows of the jobs."""
    names: dict[str, str] = {}
    codes: dict[str, bytes] = {}
    rows = []
    for position, job in enumerate(jobs):
        if job.object_path not in names:
            data = Path(job.object_path).read_bytes()
            name = f"code/{hashlib.sha256(data).hexdigest()[:24]}"
            names[job.object_path] = name
            codes[name] = data
        rows.append(
            {
                "key": asdict(keys[position]) if keys is not None else {},
                "code": names[job.object_path],
                "launches": [_launch(launch) for launch in job.launches],
                "argument_bytes": list(job.argument_bytes),
                "group": job.group,
            }
        )
    return codes, rows


def _index(
    rows: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
    *,
    fingerprint: DeviceFingerprint,
    num_workers: int,
    flush_bytes: int,
    has_support: bool,
) -> bytes:
    content: Mapping[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": {
            "device_kind": fingerprint.device_kind,
            "fields": dict(fingerprint.fields),
        },
        "num_workers": num_workers,
        "flush_bytes": flush_bytes,
        "support": "code/support" if has_support else "",
        "jobs": rows,
        "failed": failed,
    }
    return json.dumps(content, indent=1).encode()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    archive.writestr(zipfile.ZipInfo(name, _TIMESTAMP), data, method)


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
