"""The listener for monitoring, and metrics as an answer."""

from __future__ import annotations

from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.http_messages import Request, Response, error_response, json_response
from runtime_edge.serve.inference import InferenceService
from runtime_edge.serve.later import LaterAnswers
from runtime_edge.serve.metrics import Exposition


class MetricsApi:
    """The listener for monitoring: /metrics and health, nothing else, no token."""

    def __init__(self, service: InferenceService, exposition: Exposition) -> None:
        """Shows what the daemon does."""
        self._service = service
        self._exposition = exposition
        self._later = LaterAnswers()

    def close(self) -> None:
        """End the thread for pages."""
        self._later.close()

    def begin(self, request: Request) -> Response | None:
        """Nothing here has a body."""
        request.body_limit_bytes = 0
        return None

    def take_more(self, request: Request, nbytes: int) -> None:
        """Nothing is let in: see `begin`."""

    def make_room(self, spare: Request) -> bool:
        """Nobody's: see `begin`."""
        del spare
        return False

    def handle(self, request: Request) -> Response | None:
        """Answer."""
        if request.method not in ("GET", "HEAD"):
            return error_response(RequestError(405, "use GET"))
        if request.path == "/metrics":
            self._later.answer(request, metrics_response(self._exposition))
            return None
        if request.path == "/v2/health/live":
            return json_response({"live": True})
        if request.path == "/v2/health/ready":
            is_ready = self._service.repository.is_ready and not self._service.is_draining
            return json_response({"live": True, "ready": is_ready}, 200 if is_ready else 400)
        return error_response(RequestError(404, "here are /metrics and /v2/health only"))


async def metrics_response(exposition: Exposition) -> Response:
    """Prometheus text."""
    readings = await exposition.sensors.read()
    return Response(
        200,
        (exposition.text(readings).encode(),),
        content_type="text/plain; version=0.0.4; charset=utf-8",
    )
