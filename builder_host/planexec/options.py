"""Every option of giexec and trtexec: what it does here, or why it has no meaning here.

The parser, the help text, docs/planexec.md and a test that compares them all read this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["used", "noted", "refused"]
Value = Literal["flag", "int", "float", "text", "list"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        names: without dashes; the first is the one that reports use.
        value: what follows `=`; a list may be given several times or parted by commas.
        status: `used`; `noted`: accepted with a line that says why nothing changes; `refused`: an
            error that says what to use instead.
        text: help for `used`, else the reason.
        default: for `used`.
    """

    names: tuple[str, ...]
    value: Value
    status: Status
    text: str
    default: int | float | str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Options that belong together."""

    title: str
    options: tuple[Option, ...]


def _used(names: str, value: Value, text: str, default: int | float | str | None = None) -> Option:
    return Option(tuple(names.split()), value, "used", text, default)


def _noted(names: str, text: str, value: Value = "flag") -> list[Option]:
    return [Option((name,), value, "noted", text) for name in names.split()]


def _refused(names: str, text: str, value: Value = "flag") -> list[Option]:
    return [Option((name,), value, "refused", text) for name in names.split()]


_NO_DLA = "plans run on the GPU or the CPU; the DLA's compiler is closed"
_NO_RUNTIME_CHOICE = (
    "there is one runtime, and it is small; plans of one major version load for ever"
)
_NO_SAFE = "there is no safety-certified runtime"
_NO_SEARCH = "the tuner compares a dozen candidates per kernel already; see --timingCacheFile"
_NO_PLUGIN_LIBRARY = "plugins are Python classes compiled into the plan: edgeplan build --plugins"

GROUPS: tuple[Group, ...] = (
    Group(
        "Model",
        (
            _used("deploy", "text", "Caffe prototxt"),
            _used("model", "text", "caffemodel of --deploy; absent: random weights"),
            _used("output", "list", "output tensor; required with --deploy and --uff"),
            _used("onnx", "text", "ONNX model"),
            _used("uff", "text", "UFF model"),
            _used("uffInput", "list", "name,C,H,W of a UFF input (may be repeated)"),
            _used("uffNHWC", "flag", "UFF images are NHWC"),
        ),
    ),
    Group(
        "Shapes",
        (
            _used("batch maxBatch", "int", "dimension 0 of every input; with --loadEngine, to run"),
            _used(
                "shapes",
                "text",
                "name:1x3x8x8,...: shapes to build for; with --loadEngine or ranges, to run",
            ),
            _used("minShapes", "text", "with --optShapes and --maxShapes: a profile for each"),
            _used("optShapes", "text", "shapes of the default profile"),
            _used("maxShapes", "text", "shapes of the largest profile"),
            _used("useProfile", "int", "number of the profile to run", 0),
            *_refused(
                "profile",
                "give min, opt and max shapes once; edgeplan build --profile "
                "makes any number of profiles",
                "int",
            ),
            *_noted(
                "minShapesCalib optShapesCalib maxShapesCalib",
                "calibration does not depend on the batch",
                "text",
            ),
        ),
    ),
    Group(
        "Precision",
        (
            _used("fp16 half2", "flag", "float16 storage and products (GPUs)"),
            _used(
                "int8", "flag", "8-bit layers; without --calib placeholder ranges, for speed only"
            ),
            _used("best", "flag", "whatever is fastest of the above"),
            _used("bf16", "flag", "bfloat16"),
            _used("calib", "text", "calibration table in TensorRT's text format"),
            _used("layerPrecisions", "text", "layer:fp16,pattern*:fp32"),
            *_noted("precisionConstraints", "rules given here are always obeyed", "text"),
            *_noted("noTF32", "float32 products are exact unless tf32 is asked for"),
            *_noted("stronglyTyped", "the model's own types are kept where it states them"),
            *_refused("fp8 int4", "there are no kernels for it; use --int8"),
            *_refused(
                "layerOutputTypes",
                "use --layerPrecisions: a layer's result has its precision",
                "text",
            ),
        ),
    ),
    Group(
        "Bindings",
        (
            *_refused(
                "inputIOFormats outputIOFormats",
                "bindings keep the model's order and "
                "element type; the first and last kernels convert",
                "text",
            ),
            *_noted("directIO", "the first and last kernels convert by themselves"),
        ),
    ),
    Group(
        "Building",
        (
            _used("saveEngine engine", "text", "plan file to write"),
            _used("loadEngine", "text", "plan file to run instead of building"),
            _used(
                "target",
                "text",
                "board, fingerprint file, cuda:N, host-cpu; auto: the GPU, else the CPU",
                "auto",
            ),
            _used("measure", "list", "where candidates are timed; edgeplan's own", "local"),
            _used("workspace", "int", "limit of shared workspace in MiB", 256),
            _used("memPoolSize", "text", "workspace:N[B|K|M|G] (MiB without a letter)"),
            _used("timingCacheFile", "text", "timings to read and extend"),
            _used("errorOnTimingCacheMiss", "flag", "a timing that the cache lacks is an error"),
            _used("builderOptimizationLevel", "int", "0: tactics from the cost model, untimed", 3),
            _used("skipInference buildOnly", "flag", "stop when the plan is built, or loaded"),
            _used("tempdir", "text", "folder of compiled kernels"),
            *_noted("minTiming avgTiming", "runs are repeated until the median is steady", "int"),
            *_noted("heuristic", "the cost model always narrows the candidates"),
            *_noted(
                "noBuilderCache noCompilationCache",
                "compiled kernels are found by their content, so they cannot be stale",
            ),
            *_noted("profilingVerbosity", "every plan tells all about its steps", "text"),
            *_noted("nvtxMode", "steps are timed by --dumpProfile", "text"),
            *_noted("tempfileControls", "plans are written beside their place and renamed", "text"),
            *_noted("maxTactics tilingOptimizationLevel l2LimitForTiling", _NO_SEARCH, "int"),
            *_noted("tacticSources preview", "all kernels are edgeplan's own", "text"),
            *_noted("restricted consistency", "every plan is checked before it is used"),
            *_noted("versionCompatible vc excludeLeanRuntime", _NO_RUNTIME_CHOICE),
            *_noted("leanDLLPath useRuntime", _NO_RUNTIME_CHOICE, "text"),
            *_noted(
                "pluginInstanceNorm enablePluginOverride decomposableAttentions",
                "the importer takes apart what no kernel computes whole",
            ),
            *_noted("markUnfusedTensorsAsDebugTensors", "edgeplan compare looks at every layer"),
            *_refused(
                "markDebug saveDebugTensors saveAllDebugTensors",
                "use edgeplan compare MODEL PLAN",
                "text",
            ),
            _used(
                "stripWeights stripAllWeights",
                "flag",
                "--saveEngine writes the plan without its weights; what runs now has them",
            ),
            _used(
                "refitFromOnnx",
                "text",
                "with --loadEngine: put the weights of this ONNX model into the plan, stripped or "
                "not, before it runs",
            ),
            _used("timeRefit", "flag", "print how long --refitFromOnnx took"),
            _used(
                "refit",
                "flag",
                "keep constants that are equal apart, so that --refitFromOnnx and edgeplan refit "
                "can make them differ; all others can be changed in every plan",
            ),
            _used("dumpRefit", "flag", "print the layers and constants that refitting may change"),
            *_refused("allowWeightStreaming", "weights of a plan lie in device memory as a whole"),
            *_refused(
                "weightStreamingBudget", "weights of a plan lie in device memory as a whole", "text"
            ),
            *_refused("sparsity", "there are no kernels for structured sparsity", "text"),
            *_refused(
                "hardwareCompatibilityLevel runtimePlatform",
                "a plan is for one exact device: build one per --target",
                "text",
            ),
            *_refused(
                "remoteAutoTuningConfig", "use --measure=tcp://, serial:// or ssh://", "text"
            ),
            *_refused("cpuOnly", "the CPU is a target of its own: --target=host-cpu"),
            *_refused("safe dumpKernelText", _NO_SAFE),
            *_refused("safetyPlugins", _NO_SAFE, "text"),
            *_refused("useDLACore", _NO_DLA, "int"),
            *_refused("layerDeviceTypes", _NO_DLA, "text"),
            *_refused(
                "buildDLAStandalone uint8AsymmetricQuantizationDLA reportCapabilityDLA "
                "adjustForDLA",
                _NO_DLA,
            ),
            *_noted("allowGPUFallback", "everything runs on the GPU"),
            *_refused("staticPlugins dynamicPlugins plugins", _NO_PLUGIN_LIBRARY, "text"),
            *_noted(
                "setPluginsToSerialize ignoreParsedPluginLibs",
                "plugins are always compiled into the plan",
                "text",
            ),
            *_refused(
                "tuneBuildRoutes tuneBuildRouteFile tuningSearch tuningCacheFile "
                "tuningTimeOut setBuildRoute",
                _NO_SEARCH,
                "text",
            ),
            *_refused("saveAllEngines dryRun continue helpBuildRoute", _NO_SEARCH),
            *_noted("asyncFileReader", "plans are mapped, not read"),
        ),
    ),
    Group(
        "Running",
        (
            _used("device", "int", "number of the GPU", 0),
            _used("iterations", "int", "least number of inferences", 10),
            _used("warmUp", "float", "milliseconds of warm-up", 200.0),
            _used("duration", "float", "least seconds of measuring; -1: until interrupted", 3.0),
            _used(
                "sleepTime", "float", "milliseconds between the start and the first inference", 0.0
            ),
            _used("idleTime", "float", "milliseconds between inferences", 0.0),
            _used("infStreams streams", "int", "streams, each with a context of its own", 1),
            *_noted("threads", "each stream has a thread of its own"),
            _used("loadInputs", "list", "name:file: raw bytes or .npy; default: random"),
            _used("includeDataTransfers", "flag", "copy inputs and outputs in every inference"),
            _used("timeDeserialize", "flag", "report the time to load the plan"),
            *_noted("noDataTransfers", "transfers are left out unless --includeDataTransfers"),
            *_noted("useSpinWait noSpinWait", "waiting spins briefly and then sleeps"),
            *_noted("useCudaGraph noCudaGraph", "an inference is always one graph launch"),
            *_noted("exposeDMA", "one inference is in flight per stream"),
            *_noted("allocationStrategy", "the arena has exactly the profile's size", "text"),
            *_noted("maxAuxStreams", "steps of a plan run in one stream", "int"),
            *_noted("persistentCacheRatio", "the driver's own setting is kept", "float"),
            *_noted("separateProfileRun", "profiles are always taken in a run of their own"),
            *_refused("useManagedMemory", "bindings are device memory or page-locked host memory"),
        ),
    ),
    Group(
        "Accuracy",
        (
            _used("loadRefOutputs", "list", "name:file: expected outputs, raw bytes or .npy"),
            *_noted("refPair", "one pair is compared: --loadInputs and --loadRefOutputs", "int"),
            _used("accuracyAlgorithm", "text", "l0, l1, l2, lInf or cos", "l0"),
            _used("atol", "float", "absolute tolerance of l0", 1e-5),
            _used("rtol", "float", "relative tolerance of l0", 1e-5),
            _used("accuracyThreshold", "float", "largest value of the metric that passes; above 0"),
        ),
    ),
    Group(
        "Reports",
        (
            _used("avgRuns", "int", "inferences per line of the running report", 10),
            _used("percentile", "list", "percentiles to report", "90,95,99"),
            _used(
                "verbose", "flag", "print the report of the build, or how a loaded plan was built"
            ),
            _used("hostTime", "flag", "report host time instead of device time per line"),
            _used("dumpOutput", "flag", "print the outputs of the last inference"),
            _used("dumpRawBindingsToFile", "flag", "write bindings as NAME.bin"),
            _used("dumpProfile dumpLayerTime", "flag", "print the time of every step"),
            _used("dumpLayerInfo", "flag", "print what the steps compute"),
            _used("dumpOptimizationProfile", "flag", "print the profiles"),
            _used("exportTimes", "text", "times of every inference as JSON"),
            _used("exportOutput", "text", "outputs as JSON"),
            _used("exportProfile", "text", "times of the steps as JSON"),
            _used("exportLayerInfo", "text", "what the steps compute as JSON"),
            _used(
                "getPlanVersionOnly", "flag", "print the format version of --loadEngine and stop"
            ),
            *_noted("monitorMemory", "memory of a plan is fixed and printed at load"),
        ),
    ),
)


def all_options() -> Sequence[Option]:
    """Every option in the order of the groups."""
    return [option for group in GROUPS for option in group.options]


def option_table() -> str:
    """The table as Markdown, for docs/planexec.md."""
    lines: list[str] = []
    for group in GROUPS:
        lines += ["", f"## {group.title}", "", "| option | here |", "|---|---|"]
        for option in group.options:
            names = ", ".join(f"`--{name}`" for name in option.names)
            default = "" if option.default is None else f" (default {option.default})"
            state = {"used": "", "noted": "accepted, changes nothing: ", "refused": "refused: "}
            lines.append(f"| {names} | {state[option.status]}{option.text}{default} |")
    return "\n".join(lines) + "\n"
