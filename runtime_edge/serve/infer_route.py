"""The infer endpoint over HTTP: limits, parsing here or beside the event loop, answers."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runtime_edge.serve.config import ServeConfig
from runtime_edge.serve.deployment import Deployment
from runtime_edge.serve.errors import OverloadError, Refusal, RequestError
from runtime_edge.serve.http_messages import Request, Response, error_response
from runtime_edge.serve.infer_request import parse_infer
from runtime_edge.serve.infer_response import infer_response, num_json_elems
from runtime_edge.serve.infer_work import InferWork
from runtime_edge.serve.inference import Answer, InferenceService
from runtime_edge.serve.json_text import LARGE_BYTES
from runtime_edge.serve.repository import ServedPlan
from runtime_edge.serve.shared_memory import SharedMemoryRegions
from runtime_edge.serve.tensor_types import has_json_form

_log = logging.getLogger(__name__)

_HEAD_ROOM_BYTES = 64 << 10
_JSON_BYTES_PER_ELEM = 32
_LARGE_JSON_ELEMS = 2048  # a millisecond of the event loop
_BATCHES_PER_BODY = 4


class InferRoute:
    """Handler of `POST .../infer`. On the event loop's thread."""

    def __init__(
        self, config: ServeConfig, service: InferenceService, regions: SharedMemoryRegions | None
    ) -> None:
        """Start no thread yet.

        Args:
            config: limits.
            service: takes the requests.
            regions: shared memory, None where that is off.
        """
        self._config = config
        self._service = service
        self._repository = service.repository
        self._regions = regions
        self._parsers = ThreadPoolExecutor(1, thread_name_prefix="edgeplan-json")

    def close(self) -> None:
        """End the thread for large JSON."""
        self._parsers.shutdown(cancel_futures=True)

    def begin(self, request: Request, arguments: tuple[str, ...]) -> None:
        """Look at a request whose body is still to come; sets `body_limit_bytes`.

        Raises:
            RequestError: see `InferenceService.begin`.
        """
        name, version = (*arguments, None)[:2]
        assert name is not None
        plan = self._repository.plan(name, version)
        length = request.content_length or 0
        if plan.deployment is not None:
            request.body_limit_bytes = self._limit(plan.deployment)
            if length > request.body_limit_bytes:
                return  # no waiting makes it fit: the connection answers 413
        self._service.begin(name, version, length)
        request.place = self._service.places.take(plan.queue, length, request.connection.expire)

    def take_more(self, request: Request, arguments: tuple[str, ...], nbytes: int) -> None:
        """Let more of a chunked body in.

        Raises:
            OverloadError: see `InferenceService.grow`.
        """
        if request.place is not None:
            self._service.grow(self._repository.plan(*arguments), request.place, nbytes)

    def _limit(self, deployment: Deployment) -> int:
        """The largest body that can make sense for a plan."""
        binary = deployment.max_input_bytes
        text = sum(
            math.prod(lane.shapes[index]) * _JSON_BYTES_PER_ELEM * lane.max_rows
            for lane in deployment.lanes
            for index in range(deployment.num_inputs)
            if has_json_form(deployment.bindings[index].dtype)
        )
        batches = _BATCHES_PER_BODY if deployment.lanes[0].is_batched else 1
        limit = _HEAD_ROOM_BYTES + max(binary, text) * batches
        return min(limit, self._config.max_body_bytes, self._config.max_inflight_bytes)

    def handle(self, request: Request, arguments: tuple[str, ...]) -> Response | None:
        """Take a whole request; it is answered later.

        Raises:
            RequestError: wrong, or refused now.
        """
        plan = self._repository.plan(*arguments)
        deployment = plan.deployment
        if deployment is None:
            raise OverloadError(Refusal.NOT_READY, f"model '{plan.config.name}' is not ready", 5)
        body = request.body
        header = request.headers.get(b"inference-header-content-length")
        json_bytes = _json_bytes(header)
        if body is None:
            self._service.count_rejected(plan, request.begun_ns)
            raise RequestError(400, "the request has no body; send the inference request as JSON")
        size = len(body.view) if json_bytes is None else json_bytes
        if size >= LARGE_BYTES:
            self._handle_later(request, plan, deployment, json_bytes)
            return None
        try:
            work = parse_infer(deployment, body.view, body.address, json_bytes, self._regions)
        except RequestError:
            self._service.count_rejected(plan, request.begun_ns)
            raise
        self._submit(request, plan, work)
        return None

    def _handle_later(
        self,
        request: Request,
        plan: ServedPlan,
        deployment: Deployment,
        json_bytes: int | None,
    ) -> None:
        """Parse a large JSON text beside the event loop."""
        body, request.body = request.body, None
        assert body is not None
        deployment.num_pending += 1  # keeps this version alive until the request is queued
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(
            self._parsers,
            lambda: parse_infer(deployment, body.view, body.address, json_bytes, self._regions),
        )

        def parsed(done: asyncio.Future[InferWork]) -> None:
            try:
                work = done.result()
            except RequestError as error:
                body.release()
                self._service.count_rejected(plan, request.begun_ns)
                request.respond(error_response(error))
            except Exception:
                body.release()
                _log.exception("a request of plan %s could not be parsed", plan.config.name)
                request.respond(error_response(RequestError(500, "internal error")))
            else:
                request.body = body
                if request.connection.is_waiting_for(request):
                    try:
                        self._submit(request, plan, work)
                    except RequestError as error:
                        request.respond(error_response(error))
                else:
                    work.release()
                    request.release()
            finally:
                self._repository.finished(deployment)

        future.add_done_callback(parsed)

    def _submit(self, request: Request, plan: ServedPlan, work: InferWork) -> None:
        place, request.place = request.place, None
        if place is not None:
            place.give_back()  # from here on it counts as queued
        try:
            job = self._service.submit(
                plan, work, request.received_ns, lambda answer: self._finish(request, answer)
            )
        except BaseException:
            work.release()
            raise
        if request.body is not None:
            work.holds.append(request.body)  # from now on it lives as long as the work
            request.body = None
        request.on_cancel = lambda: self._service.cancel(plan, job)

    def _finish(self, request: Request, answer: Answer) -> None:
        if answer.error is not None:
            request.respond(error_response(answer.error))
            return
        if num_json_elems(answer) <= _LARGE_JSON_ELEMS:
            request.respond(_response(answer))
            return
        # Shared memory was written, or is not concerned: only numbers are left to print.
        outputs = answer.work.outputs
        answer.work.outputs = []
        later = Answer(answer.plan, _copied(answer.work, outputs), answer.outputs)
        future = asyncio.get_running_loop().run_in_executor(self._parsers, _response, later)

        def printed(done: asyncio.Future[Response]) -> None:
            later.work.release()
            request.respond(done.result())

        future.add_done_callback(printed)


def _response(answer: Answer) -> Response:
    try:
        return infer_response(answer)
    except RequestError as error:
        return error_response(error)


def _copied(work: InferWork, outputs: list[Any]) -> InferWork:
    """What an answer needs of a request that is over."""
    return InferWork(work.deployment, work.lane, work.rows, [], outputs, id=work.id)


def _json_bytes(header: bytes | None) -> int | None:
    if header is None:
        return None
    if not header.isdigit() or len(header) > 15:
        raise RequestError(400, "Inference-Header-Content-Length must be a whole number")
    return int(header)
