"""What the status page shows."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from runtime_edge.serve.config import ServeConfig, split_address
from runtime_edge.serve.inference import InferenceService
from runtime_edge.serve.metadata import server_version
from runtime_edge.serve.metrics import Exposition
from runtime_edge.serve.repository import ServedPlan
from runtime_edge.serve.statistics import quantile
from runtime_edge.serve.sysfs import Reading, process_use

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_RATE_WINDOW_S = 5.0


def local_names(config: ServeConfig) -> frozenset[str]:
    """Host names under which this daemon answers without a token."""
    names = {"localhost", "127.0.0.1", "::1"}
    if config.http:
        host, _ = split_address(config.http, "http")
        names.add(host)
        if config.allow_unauthenticated:
            names |= {socket.gethostname(), socket.getfqdn(), *_own_addresses()}
    return frozenset(names)


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def status_json(
    service: InferenceService, exposition: Exposition, readings: Sequence[Reading]
) -> dict[str, Any]:
    """Everything that the page shows, at this moment."""
    repository = service.repository
    use = process_use()
    return {
        "version": server_version(),
        "uptime_s": round(time.monotonic() - exposition.started_s, 1),
        "ready": repository.is_ready and not service.is_draining,
        "draining": service.is_draining,
        "pending": service.num_pending,
        "connections": exposition.num_connections(),
        "process": {
            "resident_bytes": use.resident_bytes,
            "cpu_seconds": round(use.cpu_seconds, 2),
            "threads": use.num_threads,
        },
        "machine": {"total_bytes": use.total_bytes, "available_bytes": use.available_bytes},
        "devices": [
            {
                "name": entry.name,
                "used": repository.devices.used_bytes(entry),
                "available_bytes": entry.available_bytes,
                "streams": [
                    {"name": w.name, "waiting": w.num_waiting} for w in list(entry.streams.values())
                ],
            }
            for entry in repository.devices.entries
        ],
        "sensors": [
            {"metric": r.metric, "label": r.label, "value": round(r.value, 3)} for r in readings
        ],
        "plans": [_plan(plan) for plan in repository.plans.values()],
    }


def _plan(plan: ServedPlan) -> dict[str, Any]:
    statistics = plan.statistics
    since = time.monotonic() - _RATE_WINDOW_S
    recent = [row for row in list(statistics.recent) if row[0] >= since]
    total = sorted(row[1] for row in recent)
    queue = sorted(row[2] for row in recent)
    infer = sorted(row[3] for row in recent)
    window = _RATE_WINDOW_S
    if len(recent) == statistics.recent.maxlen:  # the ring holds less than the window
        window = max(1e-3, time.monotonic() - recent[0][0])
    return {
        "name": plan.config.name,
        "state": plan.state,
        "reason": plan.reason,
        "generation": plan.generation,
        "queued": plan.queue.num_queued,
        "coming": plan.queue.num_coming,
        "queue_limit": plan.config.queue_requests,
        "queued_bytes": plan.queue.queued_bytes,
        "success": statistics.success.count,
        "refused": sum(statistics.refusals.values()),
        "failed": sum(statistics.failures.values()) - statistics.failures["REJECTED"],
        "late": statistics.missed_deadlines,
        "per_s": round(len(recent) / window, 2),
        "p50_us": round(quantile(total, 0.50), 1),
        "p99_us": round(quantile(total, 0.99), 1),
        "queue_p50_us": round(quantile(queue, 0.50), 1),
        "infer_p50_us": round(quantile(infer, 0.50), 1),
    }


def _own_addresses() -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
