"""Refitter and OnnxParserRefitter: other weights into an engine, whose code stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder_host.errors import BuilderError, ImportModelError, RefitError
from builder_host.importers.onnx.model import import_onnx
from builder_host.network.network import Network
from builder_host.refit.refit import recipe_of_plan, refit_plan
from builder_host.tensorrt.build_enums import WeightsRole
from builder_host.tensorrt.imported import Array, ImportedOnnx, Place, same_form
from builder_host.tensorrt.network import INetworkDefinition
from builder_host.tensorrt.parsers import PLUGINS, ParserError
from builder_host.tensorrt.refused import REFITTER
from builder_host.tensorrt.weights import NetworkWeights, text
from planformat.details import plan_details
from planformat.errors import PlanError
from planformat.plan import Plan
from runtime_edge.errors import RuntimeEdgeError
from runtime_edge.tensorrt.engine import ICudaEngine
from runtime_edge.tensorrt.interfaces import IErrorRecorder, ILogger, LogSeverity
from runtime_edge.tensorrt.refused import Refusing
from runtime_edge.tensorrt.types import TensorLocation

MUST_BE_SAME = "tensorrt.refit_identical"  # provenance of plans that take their own weights alone
_ERROR_CODE = 3
_NO_SOURCE = (
    "a plan holds packed weights, not the network that they belong to: build the engine with "
    "BuilderFlag.REFIT in this process, give its network to Refitter(engine, logger, network), or "
    "take all weights from its model by OnnxParserRefitter"
)

Models = Callable[[Plan], Mapping[str, Network]]


class Refitter(Refusing):
    """Puts other weights into an engine.

    Weights that are compiled into the code (scalars of epilogues, folded shapes) cannot be others:
    `refit_cuda_engine` then names the layer, and the engine stays as it was.

    Attributes:
        is_checked: edgeplan's own: compare the result with a float64 evaluation of the network.
    """

    refused = REFITTER

    def __init__(
        self, engine: ICudaEngine, logger: ILogger, network: INetworkDefinition | None = None
    ) -> None:
        """Refit an engine.

        Args:
            engine: stripped or not.
            logger: is told what cannot be done.
            network: that the engine was built from; None: what the builder left with an engine of
                BuilderFlag.REFIT or STRIP_PLAN.
        """
        self.engine = engine
        self.logger = logger
        self.error_recorder: IErrorRecorder | None = None
        self.max_threads = 1
        self.weights_validation = True
        self.is_checked = True
        self._network: INetworkDefinition | None = network or engine.network
        self._weights = NetworkWeights(self._network) if self._network is not None else None
        self._others: dict[Place | str, Array] = {}
        self._models: Models | None = None

    # --- what there is ----------------------------------------------------------------------

    def get_all(self) -> tuple[list[str], list[WeightsRole]]:
        """Layers that have weights, and the role of each of these."""
        places = list(self._known().places)
        return [layer for layer, _ in places], [role for _, role in places]

    def get_all_weights(self) -> list[str]:
        """Weights that have names: those of a parsed model."""
        return [key for key in self._known().values if isinstance(key, str)]

    def get_missing(self) -> tuple[list[str], list[WeightsRole]]:
        """As `get_missing_weights`, the operations that read them."""
        names = self._missing(by_operation=True)
        return names, [WeightsRole.ANY] * len(names)

    def get_missing_weights(self) -> list[str]:
        """Weights that must be given: none where the network is known, whose weights stay.

        Of a stripped plan without its network the constants' names in the plan: only a model
        (OnnxParserRefitter) or the network can give all of them.
        """
        return self._missing(by_operation=False)

    def get_weights_prototype(self, name: str) -> Any:
        """The present weights of a name, whose size and type others must have."""
        from builder_host.tensorrt import Weights

        return Weights(self._known().values.get(name))

    def get_named_weights(self, name: str) -> Any:
        """The weights that were set for a name; empty when none were."""
        from builder_host.tensorrt import Weights

        return Weights(self._others.get(name))

    def get_weights_location(self, name: str) -> TensorLocation:
        """Where weights are taken from."""
        del name
        return TensorLocation.HOST

    # --- others -----------------------------------------------------------------------------

    def set_weights(self, layer_name: str, role: WeightsRole, weights: Any) -> bool:
        """Other weights for a layer; False and a logged error for an unknown one, or another size.

        Args:
            layer_name: as in the network.
            role: which of its weights.
            weights: an array or `Weights`; it is copied.
        """
        try:
            known = self._known()
            if (layer_name, role) not in known.places:
                own = [f"{r.name}" for name, r in known.places if name == layer_name]
                raise RefitError(
                    f"layer '{layer_name}' has no {role.name} weights that can be others"
                    + (f"; it has {', '.join(own)}" if own else "")
                )
            return self._keep(known.places[layer_name, role], weights)
        except BuilderError as error:
            return self._failed(error)

    def set_named_weights(
        self, name: str, weights: Any, location: TensorLocation = TensorLocation.HOST
    ) -> bool:
        """As `set_weights`, for weights of a parsed model by their name."""
        try:
            if location is not TensorLocation.HOST:
                raise RefitError(
                    f"weights '{name}': give them in host memory, they are packed there"
                )
            if name not in self.get_all_weights():
                raise RefitError(f"the network has no floating-point weights '{name}'")
            return self._keep(name, weights)
        except BuilderError as error:
            return self._failed(error)

    def unset_named_weights(self, name: str) -> bool:
        """Leave weights as they are after all; False when none were set."""
        return self._others.pop(name, None) is not None

    def take_model(self, models: Models) -> None:
        """Take all weights from a model: its network for each profile of the plan."""
        self._models = models

    # --- refitting ----------------------------------------------------------------------------

    def refit_cuda_engine(self) -> bool:
        """Put the weights in; False and a logged error when the engine cannot have them.

        Contexts of the engine stay usable; none may be running.
        """
        data = bytes(self.engine.serialize())
        try:
            plan, _ = recipe_of_plan(data, source=self.engine_name)
            refitted = refit_plan(
                data,
                self._networks(plan),
                source=self.engine_name,
                is_checked=self.is_checked,
                must_be_same=plan.provenance.get(MUST_BE_SAME) == "1",
            )
            self.engine.take_plan(refitted.data)
        except (BuilderError, PlanError, RuntimeEdgeError) as error:
            return self._failed(error)
        return True

    def refit_cuda_engine_async(self, stream_handle: int) -> bool:
        """As `refit_cuda_engine`; it is done when this returns."""
        del stream_handle
        return self.refit_cuda_engine()

    @property
    def engine_name(self) -> str:
        """What messages call the engine."""
        return self._network.name if self._network is not None else "engine"

    def __enter__(self) -> Refitter:
        """The refitter itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    def _known(self) -> NetworkWeights:
        if self._weights is None:
            raise RefitError(_NO_SOURCE)
        return self._weights

    def _keep(self, key: Place | str, weights: Any) -> bool:
        self._others[key] = same_form(weights, self._known().values[key], text(key))
        return True

    def _networks(self, plan: Plan) -> Mapping[str, Network]:
        if self._models is not None:
            return self._models(plan)
        return self._known().networks(
            {
                profile.name: input_shapes(plan, profile.shapes)
                for profile in plan.variants[0].profiles
            },
            self._others,
        )

    def _missing(self, *, by_operation: bool) -> list[str]:
        if self._weights is not None or self._models is not None or not self.engine.is_stripped:
            return []
        plan, _ = recipe_of_plan(bytes(self.engine.serialize()), source=self.engine_name)
        details = plan_details(plan)
        operations = details.variants[0][0].operations if details is not None else ()
        return [
            operation.name if by_operation else tensor.model_name or tensor.name
            for operation in operations
            for tensor in operation.inputs
            if tensor.is_constant
        ]

    def _failed(self, error: Exception) -> bool:
        self.logger.log(LogSeverity.ERROR, str(error))
        if self.error_recorder is not None:
            self.error_recorder.report_error(_ERROR_CODE, str(error))
        return False


class OnnxParserRefitter:
    """Takes all weights of an engine from an ONNX model of the same architecture."""

    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        """Give weights to this refitter."""
        self._refitter, self._logger = refitter, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        """Problems of the last model."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """One of them."""
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forget them."""
        self._errors.clear()

    def refit_from_file(self, model_file: str) -> bool:
        """Take the weights of a model file; `refit_cuda_engine` puts them in."""
        return self._take(str(model_file), None)

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        """Take the weights of a model from its bytes; its external data lies beside `path`."""
        return self._take(bytes(model), None if path is None else Path(path).parent)

    def _take(self, source: str | bytes, folder: Path | None) -> bool:
        self._errors = []
        try:
            refitter = self._refitter
            if isinstance(getattr(refitter._network, "imported_model", None), ImportedOnnx):
                self._set_initialisers(source, folder)
                return not self._errors
            plan, _ = recipe_of_plan(bytes(refitter.engine.serialize()), source="engine")
            models = _imported(plan, source, folder)
            refitter.take_model(lambda _: models)
            return True
        except (BuilderError, PlanError) as error:
            problems = error.problems if isinstance(error, ImportModelError) else (str(error),)
            place = f"{source}: " if isinstance(source, str) else ""
            for problem in problems:
                self._report(f"{place}{problem}")
            return False

    def _set_initialisers(self, source: str | bytes, folder: Path | None) -> None:
        """Set the weights by name: the network may have more layers than the model."""
        weights = ImportedOnnx(source, folder, PLUGINS).weights(Network())
        for name in self._refitter.get_all_weights():
            if name not in weights:
                self._report(f"the model has no floating-point weights '{name}'")
            elif not self._refitter.set_named_weights(name, weights[name]):
                self._errors.append(ParserError(f"weights '{name}' do not fit the engine's"))

    def _report(self, problem: str) -> None:
        self._errors.append(ParserError(problem))
        self._logger.log(LogSeverity.ERROR, problem)


def input_shapes(plan: Plan, shapes: tuple[tuple[int, ...], ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs among a profile's shapes, by name."""
    return {
        binding.name: shape
        for binding, shape in zip(plan.bindings, shapes, strict=True)
        if binding.is_input
    }


def _imported(plan: Plan, source: str | bytes, folder: Path | None) -> dict[str, Network]:
    return {
        profile.name: import_onnx(
            source, shapes=input_shapes(plan, profile.shapes), plugins=PLUGINS, folder=folder
        )
        for profile in plan.variants[0].profiles
    }
