"""Prometheus text: Triton's names, and what Triton does not tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.metadata import server_version
from runtime_edge.serve.repository import Repository, ServedPlan
from runtime_edge.serve.sensor_reader import SensorReader
from runtime_edge.serve.statistics import HISTOGRAM_MS
from runtime_edge.serve.sysfs import Reading, process_use

_log = logging.getLogger(__name__)

_FAILURES = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
Labels = Mapping[str, str]
Sample = tuple[Labels, float]

_PLAN_COUNTERS: tuple[tuple[str, str, Callable[[ServedPlan], float]], ...] = (
    (
        "nv_inference_request_success",
        "Requests answered with 200",
        lambda p: p.statistics.success.count,
    ),
    ("nv_inference_count", "Inferences, a batch of n counts n", lambda p: p.statistics.inferences),
    ("nv_inference_exec_count", "Executions of the plan", lambda p: p.statistics.executions),
    (
        "nv_inference_request_duration_us",
        "Time from request to answer",
        lambda p: p.statistics.success.ns / 1e3,
    ),
    ("nv_inference_queue_duration_us", "Time waiting", lambda p: p.statistics.queue.ns / 1e3),
    (
        "nv_inference_compute_input_duration_us",
        "Time copying inputs",
        lambda p: p.statistics.input.ns / 1e3,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time of the plan itself",
        lambda p: p.statistics.infer.ns / 1e3,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time copying outputs",
        lambda p: p.statistics.output.ns / 1e3,
    ),
    (
        "edgeplan_padded_rows_total",
        "Rows that were computed and belonged to no request",
        lambda p: p.statistics.padded_rows,
    ),
    (
        "edgeplan_deadline_missed_total",
        "Accepted requests answered after their deadline",
        lambda p: p.statistics.missed_deadlines,
    ),
)
_PLAN_GAUGES: tuple[tuple[str, str, Callable[[ServedPlan], float]], ...] = (
    (
        "nv_inference_pending_request_count",
        "Requests that wait for execution",
        lambda p: p.queue.num_queued,
    ),
    ("edgeplan_queue_bytes", "Input bytes of waiting requests", lambda p: p.queue.queued_bytes),
    ("edgeplan_queue_limit_requests", "Bound of the queue", lambda p: p.config.queue_requests),
    ("edgeplan_queue_limit_bytes", "Bound of the queue", lambda p: p.config.queue_bytes),
    ("edgeplan_ready", "1 when the plan can be used", lambda p: float(p.deployment is not None)),
    ("edgeplan_generation", "Loads of the plan so far", lambda p: p.generation),
)


class Exposition:
    """Collects the daemon's metrics when they are asked for.

    Attributes:
        sensors: of the board.
        num_connections: open now; num_turned_away: for want of room; set by the daemon.
    """

    def __init__(self, repository: Repository, bodies: BodyPool, sensors: SensorReader) -> None:
        """Metrics of one daemon."""
        self.repository = repository
        self.bodies = bodies
        self.sensors = sensors
        self.num_connections: Callable[[], int] = lambda: 0
        self.num_turned_away: Callable[[], int] = lambda: 0
        self.started_s = time.monotonic()

    def text(self, readings: Sequence[Reading] = ()) -> str:
        """All metrics in the text format 0.0.4, with what the board's sensors show."""
        lines: list[str] = []
        plans = list(self.repository.plans.values())
        for name, text, value in _PLAN_COUNTERS:
            _add(lines, name, "counter", text, [(_labels(p), value(p)) for p in plans])
        _add(
            lines,
            "nv_inference_request_failure",
            "counter",
            "Requests not answered with 200",
            [
                (_labels(p, reason=reason), p.statistics.failures[reason])
                for p in plans
                for reason in _FAILURES
            ],
        )
        _add(
            lines,
            "edgeplan_refused_total",
            "counter",
            "503 answers",
            [
                (_labels(p, reason=reason), count)
                for p in plans
                for reason, count in sorted(p.statistics.refusals.items())
            ],
        )
        _add(
            lines,
            "edgeplan_loads_total",
            "counter",
            "Attempts to load the plan",
            [
                (_labels(p, result=result), p.statistics.reloads[result])
                for p in plans
                for result in ("loaded", "failed")
            ],
        )
        for name, text, value in _PLAN_GAUGES:
            _add(lines, name, "gauge", text, [(_labels(p), value(p)) for p in plans])
        self._add_histograms(lines, plans)
        self._add_latencies(lines, plans)
        self._add_memory(lines)
        self._add_machine(lines, readings)
        return "\n".join(lines) + "\n"

    def _add_histograms(self, lines: list[str], plans: list[ServedPlan]) -> None:
        name = "nv_inference_first_response_histogram_ms"
        lines += [f"# HELP {name} Time from request to answer", f"# TYPE {name} histogram"]
        for plan in plans:
            total = 0
            bounds = [*map(str, HISTOGRAM_MS), "+Inf"]
            for bound, count in zip(bounds, plan.statistics.histogram, strict=True):
                total += count
                lines.append(_line(name + "_bucket", _labels(plan, le=bound), total))
            lines.append(_line(name + "_sum", _labels(plan), plan.statistics.success.ns / 1e6))
            lines.append(_line(name + "_count", _labels(plan), plan.statistics.success.count))

    def _add_latencies(self, lines: list[str], plans: list[ServedPlan]) -> None:
        samples = []
        for plan in plans:
            deployment = plan.deployment
            for model in deployment.latencies.values() if deployment else ():
                samples += [
                    (_labels(plan, profile=p.name, rows=str(p.rows)), p.mean_us)
                    for p in model.profiles
                ]
        text = "Measured time of one execution, as admission uses it"
        _add(lines, "edgeplan_profile_latency_us", "gauge", text, samples)

    def _add_memory(self, lines: list[str]) -> None:
        repository = self.repository
        devices = repository.devices.entries
        used = [
            ({"device": entry.name, "use": use}, size)
            for entry in devices
            for use, size in repository.devices.used_bytes(entry).items()
        ]
        _add(lines, "edgeplan_device_memory_bytes", "gauge", "Device memory taken at load", used)
        limits = [
            ({"device": entry.name}, float(entry.available_bytes))
            for entry in devices
            if entry.available_bytes is not None
        ]
        text = "Device memory that plans may take"
        _add(lines, "edgeplan_device_memory_limit_bytes", "gauge", text, limits)
        self._add_gpu_memory(lines)
        text = "Memory of request bodies in work"
        _add(lines, "edgeplan_body_bytes", "gauge", text, [({}, self.bodies.used_bytes)])
        text = "Requests refused because there was no memory for their bodies"
        refused = self.bodies.num_refused
        _add(lines, "edgeplan_bodies_refused_total", "counter", text, [({}, refused)])
        text = "Bound of edgeplan_body_bytes"
        _add(lines, "edgeplan_body_limit_bytes", "gauge", text, [({}, self.bodies.limit_bytes)])

    def _add_gpu_memory(self, lines: list[str]) -> None:
        totals: list[Sample] = []
        used: list[Sample] = []
        for entry in self.repository.devices.entries:
            if entry.device.kind != "cuda":
                continue
            labels = {"gpu_uuid": entry.name}  # Triton's label; the device's name says more here
            try:
                free, total = entry.device.free_memory()  # type: ignore[attr-defined]
            except RuntimeEdgeError as error:  # a lost GPU has no counters
                _log.info("%s: no memory counters: %s", entry.name, error)
                continue
            totals.append((labels, total))
            used.append((labels, total - free))
        if totals:
            _add(lines, "nv_gpu_memory_total_bytes", "gauge", "Memory of the GPU", totals)
            text = "Memory of the GPU in use, by all processes"
            _add(lines, "nv_gpu_memory_used_bytes", "gauge", text, used)

    def _add_machine(self, lines: list[str], readings: Sequence[Reading]) -> None:
        use = process_use()
        text = "Version in the label"
        _add(lines, "edgeplan_build_info", "gauge", text, [({"version": server_version()}, 1)])
        uptime = time.monotonic() - self.started_s
        _add(lines, "edgeplan_uptime_seconds", "gauge", "Since the start", [({}, uptime)])
        connections = self.num_connections()
        _add(lines, "edgeplan_connections", "gauge", "Open connections", [({}, connections)])
        text = "Connections for which there was no room"
        turned_away = self.num_turned_away()
        name = "edgeplan_connections_turned_away_total"
        _add(lines, name, "counter", text, [({}, turned_away)])
        rows: tuple[tuple[str, str, str, float], ...] = (
            ("nv_cpu_memory_total_bytes", "gauge", "Memory of the machine", use.total_bytes),
            (
                "nv_cpu_memory_used_bytes",
                "gauge",
                "Memory of the machine in use",
                use.total_bytes - use.available_bytes,
            ),
            ("process_resident_memory_bytes", "gauge", "Resident memory", use.resident_bytes),
            ("process_cpu_seconds_total", "counter", "CPU time", use.cpu_seconds),
            ("process_threads", "gauge", "Threads", use.num_threads),
            ("process_open_fds", "gauge", "Open files", use.descriptors),
        )
        for name, kind, help_text, value in rows:
            _add(lines, name, kind, help_text, [({}, value)])
        for metric in sorted({reading.metric for reading in readings}):
            samples = [({"sensor": r.label}, r.value) for r in readings if r.metric == metric]
            _add(lines, f"edgeplan_board_{metric}", "gauge", "From sysfs", samples)


def _labels(plan: ServedPlan, **more: str) -> Labels:
    return {"model": plan.config.name, "version": plan.config.version, **more}


def _add(lines: list[str], name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    seen = set()
    for labels, value in samples:
        line = _line(name, labels, value)
        series = line.rpartition(" ")[0]
        if series not in seen:  # two sensors may have one name
            seen.add(series)
            lines.append(line)


def _line(name: str, labels: Labels, value: float) -> str:
    text = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
    number = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f"{name}{{{text}}} {number}" if text else f"{name} {number}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
