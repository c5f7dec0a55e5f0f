"""Routes of the Open Inference Protocol and of the daemon's own pages."""

# ruff: noqa: ARG002 (all handlers have the same signature)

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from runtime_edge.serve import metadata, status
from runtime_edge.serve.config import ServeConfig
from runtime_edge.serve.devices import LOAD_ERRORS
from runtime_edge.serve.errors import RequestError
from runtime_edge.serve.http_messages import (
    JSON_TYPE,
    Request,
    Response,
    error_response,
    json_response,
)
from runtime_edge.serve.infer_route import InferRoute
from runtime_edge.serve.inference import InferenceService
from runtime_edge.serve.json_text import parse_json
from runtime_edge.serve.later import LaterAnswers
from runtime_edge.serve.metrics import Exposition
from runtime_edge.serve.metrics_api import metrics_response
from runtime_edge.serve.repository import ServedPlan
from runtime_edge.serve.shared_memory import SharedMemoryRegions
from runtime_edge.serve.trace import trace_text

_log = logging.getLogger(__name__)

MAX_CONTROL_BYTES = 64 << 10
"""Bodies of everything but inference."""

Handler = Callable[[Request, tuple[str, ...]], "Response | None"]


@dataclass(frozen=True, slots=True)
class _Route:
    """What a path leads to.

    Attributes:
        handler: answers; arguments: parts of the path.
        is_open: needs no token.
    """

    handler: Handler
    arguments: tuple[str, ...] = ()
    is_open: bool = False


class Api:
    """Answers every request. See `Application` in http_messages.py."""

    def __init__(
        self,
        config: ServeConfig,
        service: InferenceService,
        regions: SharedMemoryRegions,
        exposition: Exposition,
        token: bytes | None,
    ) -> None:
        """Routes to the parts of a daemon."""
        self._config = config
        self._service = service
        self._repository = service.repository
        self._regions = regions if config.allow_shared_memory else None
        self._exposition = exposition
        self._token = token
        self._local_names = status.local_names(config)
        self._inference = InferRoute(config, service, self._regions)
        self._later = LaterAnswers()

    def close(self) -> None:
        """End the threads for large JSON and pages."""
        self._inference.close()
        self._later.close()

    def begin(self, request: Request) -> Response | None:
        """Authorise, find the route, refuse what is not worth its body."""
        try:
            route: _Route | None = request.head.route
            if route is None:
                request.head.route = route = self._route(request)
            if not route.is_open:
                self._authorise(request)
            self._check_origin(request)
            request.body_limit_bytes = MAX_CONTROL_BYTES
            if route.handler == self._inference.handle:
                self._inference.begin(request, route.arguments)
        except RequestError as error:
            return error_response(error)
        return None

    def handle(self, request: Request) -> Response | None:
        """Answer a request whose body is here."""
        route: _Route = request.head.route
        try:
            return route.handler(request, route.arguments)
        except RequestError:
            raise
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return error_response(RequestError(500, "internal error; the daemon's log tells more"))

    def take_more(self, request: Request, nbytes: int) -> None:
        """See `Application`."""
        route: _Route = request.head.route
        if route.handler == self._inference.handle:
            self._inference.take_more(request, route.arguments, nbytes)

    def make_room(self, spare: Request) -> bool:
        """See `Application`."""
        return self._service.places.make_room(spare=spare.place)

    def _authorise(self, request: Request) -> None:
        if self._token is None:
            return
        given = request.headers.get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise RequestError(401, "this daemon wants a token: Authorization: Bearer TOKEN")

    def _check_origin(self, request: Request) -> None:
        """Pages in a browser on this machine must not command the daemon behind its user's back."""
        origin = request.headers.get(b"origin")
        host = request.headers.get(b"host", b"")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise RequestError(403, "requests from other sites' pages are refused")
        if self._token is not None or request.is_trusted_peer or not host:
            return
        name = status.host_name(host.decode("latin-1"))
        if name not in self._local_names:
            raise RequestError(
                403,
                f"host '{name:.128}' is not one of this daemon's names; without a token only those "
                "are answered (DNS rebinding)",
            )

    def _route(self, request: Request) -> _Route:
        methods = self._find(tuple(request.path.split("/")[1:]))
        if methods is None:
            raise RequestError(404, f"there is nothing at {request.path:.256}")
        method = "GET" if request.method == "HEAD" else request.method
        route = methods.get(method)
        if route is None:
            known = ", ".join(methods)
            raise RequestError(405, f"{request.method} is not possible here; use {known}")
        return route

    def _find(self, parts: tuple[str, ...]) -> dict[str, _Route] | None:
        """Routes by method of a path, None when there is nothing."""
        match parts:
            case ("v2",) | ("v2", ""):
                return {"GET": _Route(self._server_metadata)}
            case ("v2", "health", "live"):
                return {"GET": _Route(self._live, is_open=True)}
            case ("v2", "health", "ready"):
                return {"GET": _Route(self._ready, is_open=True)}
            case ("v2", "models", "stats"):
                return {"GET": _Route(self._statistics)}
            case ("v2", "models", name, "versions", version, *rest):
                return self._find_model(name, version, rest)
            case ("v2", "models", name, *rest):
                return self._find_model(name, None, rest)
            case ("v2", "repository", "index"):
                return {"POST": _Route(self._index)}
            case ("v2", "repository", "models", name, ("load" | "unload") as verb):
                return {"POST": _Route(self._load if verb == "load" else self._unload, (name,))}
            case ("v2", "systemsharedmemory", "status"):
                return {"GET": _Route(self._shared_status)}
            case ("v2", "systemsharedmemory", "unregister"):
                return {"POST": _Route(self._shared_unregister)}
            case ("v2", "systemsharedmemory", "region", name, "status"):
                return {"GET": _Route(self._shared_status, (name,))}
            case ("v2", "systemsharedmemory", "region", name, "register"):
                return {"POST": _Route(self._shared_register, (name,))}
            case ("v2", "systemsharedmemory", "region", name, "unregister"):
                return {"POST": _Route(self._shared_unregister, (name,))}
            case ("v2", "cudasharedmemory", *_):
                return {"GET": _Route(self._no_cuda), "POST": _Route(self._no_cuda)}
            case ("",):
                return {"GET": _Route(self._page, is_open=True)}
            case ("status.json",):
                return {"GET": _Route(self._status)}
            case ("trace.json",):
                return {"GET": _Route(self._trace)}
            case ("metrics",):
                return {"GET": _Route(self._metrics)}
            case ("openapi.json",):
                return {"GET": _Route(self._openapi, is_open=True)}
        return None

    def _find_model(
        self, name: str, version: str | None, rest: list[str]
    ) -> dict[str, _Route] | None:
        arguments = (name,) if version is None else (name, version)
        match rest:
            case []:
                return {"GET": _Route(self._model_metadata, arguments)}
            case ["ready"]:
                return {"GET": _Route(self._model_ready, arguments, is_open=True)}
            case ["config"]:
                return {"GET": _Route(self._model_config, arguments)}
            case ["stats"]:
                return {"GET": _Route(self._statistics, arguments)}
            case ["infer"]:
                return {"POST": _Route(self._inference.handle, arguments)}
        return None

    def _plan(self, arguments: tuple[str, ...]) -> ServedPlan:
        return self._repository.plan(*arguments)

    # -- health and metadata

    def _live(self, request: Request, arguments: tuple[str, ...]) -> Response:
        return json_response({"live": True})

    def _ready(self, request: Request, arguments: tuple[str, ...]) -> Response:
        is_ready = self._repository.is_ready and not self._service.is_draining
        return json_response({"live": True, "ready": is_ready}, 200 if is_ready else 400)

    def _model_ready(self, request: Request, arguments: tuple[str, ...]) -> Response:
        plan = self._plan(arguments)
        is_ready = plan.deployment is not None and not self._service.is_draining
        content = {"name": plan.config.name, "ready": is_ready}
        return json_response(content, 200 if is_ready else 400)

    def _server_metadata(self, request: Request, arguments: tuple[str, ...]) -> Response:
        return json_response(metadata.server_metadata())

    def _model_metadata(self, request: Request, arguments: tuple[str, ...]) -> Response:
        return json_response(metadata.model_metadata(self._plan(arguments)))

    def _model_config(self, request: Request, arguments: tuple[str, ...]) -> Response:
        return json_response(metadata.model_config(self._plan(arguments)))

    def _statistics(self, request: Request, arguments: tuple[str, ...]) -> Response:
        plans = [self._plan(arguments)] if arguments else list(self._repository.plans.values())
        stats = [p.statistics.json(p.config.name, p.config.version) for p in plans]
        return json_response({"model_stats": stats})

    # -- repository

    def _index(self, request: Request, arguments: tuple[str, ...]) -> Response:
        content = _control_json(request)
        only_ready = content.get("ready") is True
        plans = self._repository.plans.values()
        return json_response(
            [metadata.index_entry(p) for p in plans if p.state == "READY" or not only_ready]
        )

    def _load(self, request: Request, arguments: tuple[str, ...]) -> Response | None:
        self._require_repository()
        parameters = _control_json(request).get("parameters") or {}
        if parameters:
            raise RequestError(
                400, "load takes no parameters here: plans and their options are in serve.toml"
            )
        (name,) = arguments
        self._repository.plan(name)
        self._answer_later(request, self._repository.load(name))
        return None

    def _unload(self, request: Request, arguments: tuple[str, ...]) -> Response | None:
        self._require_repository()
        _control_json(request)
        (name,) = arguments
        self._repository.plan(name)
        self._answer_later(request, self._repository.unload(name))
        return None

    def _require_repository(self) -> None:
        if not self._config.allow_repository:
            raise RequestError(403, "loading and unloading over the network is switched off here")

    def _answer_later(self, request: Request, action: Coroutine[Any, Any, None]) -> None:
        async def run() -> Response:
            try:
                await action
            except LOAD_ERRORS as error:
                raise RequestError(400, str(error)) from error
            return Response(200)

        self._later.answer(request, run())

    # -- shared memory

    def _shared(self) -> SharedMemoryRegions:
        if self._regions is None:
            raise RequestError(400, "shared memory is switched off here")
        return self._regions

    def _shared_status(self, request: Request, arguments: tuple[str, ...]) -> Response:
        return json_response(self._shared().status(*arguments))

    def _shared_register(self, request: Request, arguments: tuple[str, ...]) -> Response:
        content = _control_json(request)
        key, offset, size = content.get("key"), content.get("offset", 0), content.get("byte_size")
        if not isinstance(key, str) or type(offset) is not int or type(size) is not int:
            raise RequestError(400, "give key (a string), offset and byte_size (whole numbers)")
        if not (0 <= offset < 1 << 62 and 0 <= size < 1 << 62):
            raise RequestError(400, "offset or byte_size is out of range")
        self._shared().register(arguments[0], key, offset, size)
        return Response(200)

    def _shared_unregister(self, request: Request, arguments: tuple[str, ...]) -> Response:
        self._shared().unregister(*arguments)
        return Response(200)

    def _no_cuda(self, request: Request, arguments: tuple[str, ...]) -> Response:
        if request.path.endswith("/status"):
            return json_response([])
        if request.path.endswith("/unregister"):
            return Response(200)
        raise RequestError(400, "CUDA shared memory is not offered; use system shared memory")

    # -- our own

    def _metrics(self, request: Request, arguments: tuple[str, ...]) -> None:
        self._later.answer(request, metrics_response(self._exposition))

    def _page(self, request: Request, arguments: tuple[str, ...]) -> Response:
        page = resources.files("runtime_edge.serve").joinpath("status_page.html").read_bytes()
        headers = (
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", status.PAGE_POLICY),
            ("X-Content-Type-Options", "nosniff"),
        )
        return Response(200, (page,), content_type="text/html; charset=utf-8", headers=headers)

    def _status(self, request: Request, arguments: tuple[str, ...]) -> None:
        async def make() -> Response:
            readings = await self._exposition.sensors.read()
            return json_response(status.status_json(self._service, self._exposition, readings))

        self._later.answer(request, make())

    def _trace(self, request: Request, arguments: tuple[str, ...]) -> None:
        seconds = parse_qs(request.query).get("seconds", ["60"])[-1]
        if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 6:
            raise RequestError(400, "seconds must be a whole number")
        requests = self._service.trace.since(time.monotonic_ns() - int(seconds) * 10**9)

        async def make() -> Response:
            text = await self._later.beside(lambda: trace_text(requests))
            return Response(200, (text,), content_type=JSON_TYPE)

        self._later.answer(request, make())

    def _openapi(self, request: Request, arguments: tuple[str, ...]) -> Response:
        text = resources.files("runtime_edge.serve").joinpath("openapi.json").read_bytes()
        return Response(200, (text,), content_type="application/json")


def _control_json(request: Request) -> dict[str, Any]:
    """The JSON object in a small body; nothing is an empty object."""
    if request.body is None:
        return {}
    text = bytes(request.body.view)
    content = parse_json(text, "the body") if text.strip() else {}
    if not isinstance(content, dict):
        raise RequestError(400, "the body must be a JSON object")
    return content
