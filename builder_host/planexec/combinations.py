"""Options that others make idle or contradict: said before anything is built or run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator

from builder_host.errors import BuilderError
from builder_host.planexec.arguments import split_list

_OF_THE_BUILD = """
    model output uffInput uffNHWC minShapes optShapes maxShapes fp16 int8 best bf16 calib
    layerPrecisions target measure workspace memPoolSize timingCacheFile errorOnTimingCacheMiss
    builderOptimizationLevel tempdir refit
"""
_OF_A_RUN = """
    useProfile iterations warmUp duration sleepTime idleTime infStreams loadInputs
    includeDataTransfers loadRefOutputs accuracyAlgorithm atol rtol accuracyThreshold avgRuns
    percentile hostTime dumpOutput dumpRawBindingsToFile dumpProfile exportTimes exportOutput
    exportProfile
"""
_LAST_LEVEL = 5

# Of some names those that were given, each with a reason.
_Those = Callable[[Collection[str], str], Iterator[tuple[str, str]]]


def check_combination(args: argparse.Namespace, given: Collection[str]) -> list[str]:
    """Look at all options together.

    Args:
        args: with defaults.
        given: names of those that were given, the first of each option.

    Returns:
        A line for each option that changes nothing beside the others.

    Raises:
        BuilderError: options that contradict each other.
    """
    _refuse_contradictions(args)
    return [f"--{name}: changes nothing {why}" for name, why in _idle(args, given)]


def _idle(args: argparse.Namespace, given: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of options that change nothing, and why."""

    def those(names: Collection[str], why: str) -> Iterator[tuple[str, str]]:
        return ((name, why) for name in names if name in given)

    if args.getPlanVersionOnly:
        others = [n for n in sorted(given) if n not in ("getPlanVersionOnly", "loadEngine")]
        yield from those(others, "with --getPlanVersionOnly, which runs nothing")
        return
    if args.loadEngine is not None:
        yield from those(_OF_THE_BUILD.split(), "with --loadEngine: its plan is built already")
    else:
        yield from _idle_in_a_build(args, those)
    if args.saveEngine is None:
        yield from those(["stripWeights"], "without --saveEngine: what runs has its weights")
        if args.skipInference and args.loadEngine is None:
            yield "skipInference", "but the time it takes: without --saveEngine the plan is lost"
    if args.skipInference:
        yield from those(_OF_A_RUN.split(), "with --skipInference, which runs nothing")
        if args.loadEngine is None:
            yield from those(["timeDeserialize"], "with --skipInference: nothing is loaded")
    if args.refitFromOnnx is None:
        yield from those(["timeRefit"], "without --refitFromOnnx")
    if args.loadRefOutputs is None:
        names = ("accuracyAlgorithm", "atol", "rtol", "accuracyThreshold")
        yield from those(names, "without --loadRefOutputs")
    elif args.accuracyAlgorithm != "l0":
        yield from those(("atol", "rtol"), f"with --accuracyAlgorithm={args.accuracyAlgorithm}")


def _idle_in_a_build(args: argparse.Namespace, those: _Those) -> Iterator[tuple[str, str]]:
    if args.uff is None:
        yield from those(("uffInput", "uffNHWC"), "without --uff")
    if args.calib is not None and not (args.int8 or args.best):
        yield "calib", "without --int8 or --best: no layer is quantised"
    if args.builderOptimizationLevel == 0:
        yield from those(["measure"], "with --builderOptimizationLevel=0, which times nothing")
    pools = [part.partition(":")[0] for part in split_list([args.memPoolSize or ""])]
    if "workspace" in pools:
        yield from those(["workspace"], "beside --memPoolSize=workspace:N, which counts first")
    for pool in pools:
        if pool != "workspace":
            yield "memPoolSize", f"for '{pool}': only workspace exists here"


def _refuse_contradictions(args: argparse.Namespace) -> None:
    if args.loadEngine is not None and args.saveEngine is not None and args.refitFromOnnx is None:
        raise BuilderError(
            "--loadEngine and --saveEngine: the plan would be copied; with --refitFromOnnx the "
            "refitted plan is saved, and edgeplan strip takes weights out"
        )
    if args.bf16 and (args.int8 or args.best or args.fp16):
        other = next(name for name in ("int8", "best", "fp16") if getattr(args, name))
        raise BuilderError(
            f"--bf16 and --{other}: a plan stores floating-point tensors in one type beside "
            "float32; give one of them"
        )
    level = args.builderOptimizationLevel
    if not 0 <= level <= _LAST_LEVEL:
        raise BuilderError(f"--builderOptimizationLevel={level}: expected 0 to {_LAST_LEVEL}")
    places = split_list(args.measure)
    unknown = [place for place in places if place not in ("local", "none") and "://" not in place]
    if unknown:
        raise BuilderError(
            f"--measure={unknown[0]}: expected local, none, or links such as tcp://board:7417"
        )
    if len({*places}) > 1 and {*places} & {"local", "none"}:
        raise BuilderError(
            f"--measure={','.join(places)}: candidates are timed here (local), nowhere (none), or "
            "on boards of one kind; give one of these"
        )
    if args.batch is not None and args.batch < 1:
        raise BuilderError(f"--batch={args.batch}: expected at least 1")
