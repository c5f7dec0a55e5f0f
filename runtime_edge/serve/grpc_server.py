"""The Open Inference Protocol over gRPC. Needs the extra `grpc`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from runtime_edge.serve import metadata
from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.config import ServeConfig, split_address
from runtime_edge.serve.devices import LOAD_ERRORS
from runtime_edge.serve.errors import ConfigError, OverloadError, RequestError
from runtime_edge.serve.grpc_messages import SERVICE, message_class
from runtime_edge.serve.grpc_tensors import infer_message, infer_work
from runtime_edge.serve.inference import Answer, InferenceService
from runtime_edge.serve.repository import ServedPlan
from runtime_edge.serve.shared_memory import SharedMemoryRegions

_log = logging.getLogger(__name__)

_HEAD_BYTES = 1 << 16
_MAX_STREAMS = 64
_STOP_S = 2.0
_OPEN_METHODS = ("ServerLive", "ServerReady", "ModelReady")

Handler = Callable[[Any, Any], Awaitable[Any]]


class GrpcServer:
    """The service on one address. Belongs to the event loop."""

    def __init__(
        self,
        service: InferenceService,
        bodies: BodyPool,
        regions: SharedMemoryRegions,
        config: ServeConfig,
        token: bytes | None,
    ) -> None:
        """Prepare the server.

        Raises:
            ConfigError: grpcio is missing.
        """
        try:
            import grpc
        except ImportError as error:
            raise ConfigError(
                "gRPC needs grpcio; install it with: pip install 'edgeplan[grpc]'"
            ) from error
        self._grpc = grpc
        self._service = service
        self._repository = service.repository
        self._bodies = bodies
        self._regions = regions if config.allow_shared_memory else None
        self._config = config
        self._token = token
        self._server: Any = None

    async def start(self) -> tuple[str, int]:
        """Listen; returns the address with the port that the system chose.

        Raises:
            ConfigError: the address or the certificate cannot be used.
        """
        grpc, config = self._grpc, self._config
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", config.max_body_bytes + _HEAD_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=config.max_connections,
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        host, port = split_address(config.grpc, "grpc")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if config.tls_cert:
                with open(config.tls_key, "rb") as key, open(config.tls_cert, "rb") as cert:
                    credentials = grpc.ssl_server_credentials(((key.read(), cert.read()),))
                bound = self._server.add_secure_port(address, credentials)
            else:
                bound = self._server.add_insecure_port(address)
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"grpc = '{config.grpc}': cannot listen there: {error}") from error
        await self._server.start()
        return host, int(bound)

    async def stop(self) -> None:
        """Stop listening; calls under way get a moment."""
        await self._server.stop(_STOP_S)

    def _handlers(self) -> Any:
        grpc = self._grpc
        methods: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._statistics,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._shared_status,
            "SystemSharedMemoryRegister": self._shared_register,
            "SystemSharedMemoryUnregister": self._shared_unregister,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, method),
                request_deserializer=message_class(f"{name}Request").FromString,
                response_serializer=message_class(f"{name}Response").SerializeToString,
            )
            for name, method in methods.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream_infer,
            request_deserializer=message_class("ModelInferRequest").FromString,
            response_serializer=message_class("ModelStreamInferResponse").SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _guarded(self, name: str, method: Handler) -> Handler:
        """The method with authorisation, and errors as gRPC status."""

        async def call(request: Any, context: Any) -> Any:
            try:
                if name not in _OPEN_METHODS:
                    self._authorise(context)
                return await method(request, context)
            except RequestError as error:
                if isinstance(error, OverloadError):
                    context.set_trailing_metadata((("retry-after", str(error.retry_after_s)),))
                await context.abort(self._status(error.status), str(error))
            except LOAD_ERRORS as error:
                await context.abort(self._grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return call

    def _authorise(self, context: Any) -> None:
        if self._token is None:
            return
        given = dict(context.invocation_metadata()).get("authorization", "")
        scheme, _, token = str(given).partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._token):
            raise RequestError(401, "this daemon wants a token: authorization: Bearer TOKEN")

    def _status(self, status: int) -> Any:
        codes = self._grpc.StatusCode
        return {
            400: codes.INVALID_ARGUMENT,
            401: codes.UNAUTHENTICATED,
            403: codes.PERMISSION_DENIED,
            404: codes.NOT_FOUND,
            413: codes.INVALID_ARGUMENT,
            503: codes.UNAVAILABLE,
        }.get(status, codes.INTERNAL)

    # -- health and metadata

    async def _live(self, request: Any, context: Any) -> Any:
        del request, context
        return message_class("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        del request, context
        is_ready = self._repository.is_ready and not self._service.is_draining
        return message_class("ServerReadyResponse")(ready=is_ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        del context
        plan = self._plan(request.name, request.version)
        is_ready = plan.deployment is not None and not self._service.is_draining
        return message_class("ModelReadyResponse")(ready=is_ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        del request, context
        return message_class("ServerMetadataResponse")(**metadata.server_metadata())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        del context
        content = metadata.model_metadata(self._plan(request.name, request.version))
        return message_class("ModelMetadataResponse")(**content)

    async def _model_config(self, request: Any, context: Any) -> Any:
        del context
        content = metadata.model_config(self._plan(request.name, request.version))
        known = ("name", "platform", "backend", "max_batch_size", "input", "output")
        return message_class("ModelConfigResponse")(config={k: content[k] for k in known})

    async def _statistics(self, request: Any, context: Any) -> Any:
        del context
        plans: Iterable[ServedPlan] = self._repository.plans.values()
        if request.name:
            plans = [self._plan(request.name, request.version)]
        rows = [p.statistics.json(p.config.name, p.config.version) for p in plans]
        return message_class("ModelStatisticsResponse")(model_stats=rows)

    # -- inference

    async def _infer(self, request: Any, context: Any) -> Any:
        received_ns = time.monotonic_ns()
        nbytes = sum(map(len, request.raw_input_contents))
        plan = self._service.begin(request.model_name, request.model_version or None, nbytes)
        try:
            deployment = metadata.ready_deployment(plan)
            work = infer_work(deployment, request, self._bodies, self._regions)
        except RequestError:
            self._service.count_rejected(plan, received_ns)
            raise
        left_s = context.time_remaining()
        if not work.timeout_us and left_s is not None:
            work.timeout_us = max(1, int(left_s * 1e6))  # the caller's own deadline
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def answer(found: Answer) -> None:
            if done.done():
                return
            if found.error is not None:
                done.set_exception(found.error)
                return
            try:
                done.set_result(infer_message(found))
            except RequestError as error:
                done.set_exception(error)

        try:
            job = self._service.submit(plan, work, received_ns, answer)
        except BaseException:
            work.release()
            raise
        try:
            return await done
        except asyncio.CancelledError:
            self._service.cancel(plan, job)
            raise

    async def _stream_infer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """One request after the other; errors are answers, the stream goes on."""
        try:
            self._authorise(context)
        except RequestError as error:
            await context.abort(self._status(error.status), str(error))
        kind = message_class("ModelStreamInferResponse")
        async for request in requests:
            try:
                yield kind(infer_response=await self._infer(request, context))
            except RequestError as error:
                response = kind(error_message=str(error))
                response.infer_response.id = request.id
                yield response

    # -- repository and shared memory

    async def _index(self, request: Any, context: Any) -> Any:
        del context
        rows = [
            metadata.index_entry(plan)
            for plan in self._repository.plans.values()
            if plan.state == "READY" or not request.ready
        ]
        return message_class("RepositoryIndexResponse")(models=rows)

    async def _load(self, request: Any, context: Any) -> Any:
        del context
        self._require_repository()
        if request.parameters:
            raise RequestError(
                400, "load takes no parameters here: plans and their options are in serve.toml"
            )
        await self._repository.load(request.model_name)
        return message_class("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, context: Any) -> Any:
        del context
        self._require_repository()
        await self._repository.unload(request.model_name)
        return message_class("RepositoryModelUnloadResponse")()

    def _require_repository(self) -> None:
        if not self._config.allow_repository:
            raise RequestError(403, "loading and unloading over the network is switched off here")

    def _shared(self) -> SharedMemoryRegions:
        if self._regions is None:
            raise RequestError(400, "shared memory is switched off here")
        return self._regions

    async def _shared_status(self, request: Any, context: Any) -> Any:
        del context
        rows: list[dict[str, Any]] = self._shared().status(request.name or None)
        regions = {row["name"]: row for row in rows}
        response = message_class("SystemSharedMemoryStatusResponse")()
        for name, row in regions.items():
            region = response.regions[name]
            region.name, region.key = name, row["key"]
            region.offset, region.byte_size = row["offset"], row["byte_size"]
        return response

    async def _shared_register(self, request: Any, context: Any) -> Any:
        del context
        self._shared().register(request.name, request.key, request.offset, request.byte_size)
        return message_class("SystemSharedMemoryRegisterResponse")()

    async def _shared_unregister(self, request: Any, context: Any) -> Any:
        del context
        self._shared().unregister(request.name or None)
        return message_class("SystemSharedMemoryUnregisterResponse")()

    def _plan(self, name: str, version: str) -> ServedPlan:
        return self._repository.plan(name, version or None)
