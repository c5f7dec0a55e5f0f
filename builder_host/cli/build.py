"""Import a model, tune it for a target and write a plan.

MODEL is an ONNX or UFF file, a frozen TensorFlow graph (.pb), or a Caffe prototxt with its
caffemodel as WEIGHTS (without WEIGHTS a Caffe network gets random ones, for timing).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder_host.cli.precision_options import (
    add_budget_arguments,
    add_precision_arguments,
    calibration_of,
    precision_settings,
    traded,
)
from builder_host.errors import BuilderError
from builder_host.importers.model_file import import_model_file
from builder_host.network.network import Network
from builder_host.plugins.registry import load_plugins

_BUNDLE = "bundle:"
_SHAPE = re.compile(r"(?P<name>.+):(?P<dims>\d+(x\d+)*)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan build`."""
    parser.add_argument(
        "model", metavar="MODEL", help="model.onnx, model.uff, graph.pb or deploy.prototxt"
    )
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="caffemodel")
    parser.add_argument("-o", "--output", metavar="OUT.plan", required=True, help="plan to write")
    parser.add_argument(
        "--target",
        default="host-cpu",
        help="board name, cuda or cuda:N, fingerprint file of 'edgeplan probe --json', or auto "
        "(default: host-cpu)",
    )
    parser.add_argument("--outputs", metavar="A,B", help="tensors to mark as outputs")
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME:1x3x224x224",
        help="shape of an input; may be repeated",
    )
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="F.py",
        help="Python file with PLUGINS, layers of your own; it is run here; may be repeated",
    )
    parser.add_argument(
        "--uff-input",
        action="append",
        default=[],
        type=uff_input_argument,
        metavar="NAME,C,H,W",
        help="shape of a UFF input without its batch, which is 1; may be repeated",
    )
    parser.add_argument(
        "--uff-nhwc",
        action="store_true",
        help="UFF: images at inputs and outputs are NHWC: --uff-input NAME,H,W,C",
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        type=profile_argument,
        metavar="NAME=INPUT:8x3x224x224[,INPUT:...]",
        help="a set of input shapes under a name; may be repeated: the plan then holds a profile "
        "for each, the first is the default, weights are shared",
    )
    parser.add_argument(
        "--batch",
        type=batch_argument,
        default=(),
        metavar="1,4,8",
        help="one profile per batch size, named batch1, batch4 ...: dimension 0 of every input",
    )
    parser.add_argument(
        "--sharing-tolerance",
        type=float,
        default=1.1,
        metavar="X",
        help="further profiles take kernels up to X times slower than their fastest if these share "
        "packed weights with an earlier profile (default: 1.1)",
    )
    parser.add_argument("--timing-cache", metavar="F", help="file of timings to read and extend")
    parser.add_argument(
        "--strict-cache", action="store_true", help="a timing that the cache lacks is an error"
    )
    parser.add_argument(
        "--workspace-mib", type=positive, default=256, metavar="N", help="limit (default: 256)"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="workers to tune for (default: all cores)"
    )
    parser.add_argument(
        "--measure",
        type=measure_argument,
        action="append",
        metavar="local|none|bundle:OUT.zip|LINK",
        help="time candidates here (default); take the cache and rank the rest by the cost model; "
        "only write them into a bundle for 'edgeplan tune' on the device; or time them on a board: "
        "serial:///dev/ttyUSB0?baud=921600, tcp://HOST:PORT, ssh://USER@HOST (may be repeated: "
        "equal boards share the work)",
    )
    parser.add_argument(
        "--link-key",
        metavar="FILE",
        default=os.environ.get("EDGEPLAN_LINK_KEY"),
        help="key of the links, from 'edgeplan link-key' (default: $EDGEPLAN_LINK_KEY)",
    )
    parser.add_argument(
        "--executor", metavar="dask://HOST:PORT", help="compile there (default: here)"
    )
    add_precision_arguments(parser)
    add_budget_arguments(parser)
    parser.add_argument("--trace", metavar="DIR", help="write the network after each pass")
    parser.add_argument("--report", metavar="R.json", help="write the build report")
    parser.add_argument(
        "--refittable",
        action="store_true",
        help="keep constants that are equal apart, so that 'edgeplan refit' can make them differ",
    )
    parser.add_argument("--sign", metavar="KEY", help="private key file of 'edgeplan keygen'")
    parser.add_argument("--jobs", type=positive, metavar="N", help="compilers at once")
    parser.add_argument("--cc", default="zig", help="zig (default), gcc, clang or a path")
    parser.add_argument(
        "--no-check", action="store_true", help="skip the comparison with the float64 reference"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Build the plan. Returns the exit status."""
    from builder_host.builder import build, write_tuning_bundle
    from builder_host.cli.progress import progress_display
    from builder_host.config import BuilderConfig

    config = BuilderConfig(
        target=args.target,
        timing_cache=args.timing_cache,
        is_strict_cache=args.strict_cache,
        workspace_limit_bytes=args.workspace_mib << 20,
        num_threads=args.threads,
        **measure_settings(args.measure or ["local"]),
        link_key=args.link_key,
        executor=args.executor,
        trace_dir=args.trace,
        num_jobs=args.jobs,
        compiler=args.cc,
        **precision_settings(args),
        sharing_tolerance=args.sharing_tolerance,
        is_refittable=args.refittable,
        is_checked=not args.no_check,
    )
    signing_key = None
    if args.sign is not None:
        from planformat.signing import load_private_key

        signing_key = load_private_key(args.sign)
    outputs = args.outputs.split(",") if args.outputs else None
    with progress_display(sys.stderr) as progress:
        progress("import", 0, 1)
        network = import_profiles(args, outputs)
        first = network if isinstance(network, Network) else next(iter(network.values()))
        config = replace(config, calibration=calibration_of(args, first, config, progress))
        config, trade_off = traded(args, first, config, progress)
        if args.measure and args.measure[0].startswith(_BUNDLE):
            path = args.measure[0].removeprefix(_BUNDLE)
            count = write_tuning_bundle(network, path, config, progress=progress)
            print(f"wrote {path}: {count} candidates; time them: edgeplan tune {path} -o T.cache")
            return 0
        built = build(network, config, progress=progress)
        built.save(args.output, signing_key=signing_key)
    if args.report is not None:
        Path(args.report).write_text(built.report.to_json(), encoding="utf-8")
    if args.json:
        report = json.loads(built.report.to_json())
        print(json.dumps({"plan": args.output, **report}, indent=2))
    else:
        print("\n\n".join(filter(None, [trade_off, built.report.text()])))
        print(f"wrote {args.output} ({Path(args.output).stat().st_size:,} B)")
    return 0


def import_profiles(
    args: argparse.Namespace, outputs: Sequence[str] | None
) -> Network | dict[str, Network]:
    """The network, or one per profile by `--profile` or `--batch`. Raises BuilderError."""
    if (args.uff_input or args.uff_nhwc) and Path(args.model).suffix != ".uff":
        raise BuilderError(f"{args.model}: --uff-input and --uff-nhwc are for .uff files")
    shapes = dict(args.uff_input) | dict(args.shapes)
    plugins = load_plugins(args.plugins) if args.plugins else None

    def imported(wanted: dict[str, tuple[int, ...]]) -> Network:
        return import_model_file(
            args.model,
            args.weights,
            shapes=wanted,
            outputs=outputs,
            uff_order="NHWC" if args.uff_nhwc else "NCHW",
            plugins=plugins,
        )

    if not args.profile and not args.batch:
        return imported(shapes)
    if args.profile and args.batch:
        raise BuilderError("--profile and --batch both name profiles; use one of them")
    profiles: list[tuple[str, dict[str, tuple[int, ...]]]] = list(args.profile)
    if args.batch:
        plain = imported(shapes)
        scalars = [tensor.name for tensor in plain.inputs if not tensor.shape]
        if scalars:
            raise BuilderError(f"--batch: input '{scalars[0]}' is a scalar; use --profile")
        profiles = [
            (f"batch{size}", {t.name: (size, *t.shape[1:]) for t in plain.inputs})
            for size in args.batch
        ]
    names = [name for name, _ in profiles]
    for name in names:
        if names.count(name) > 1:
            raise BuilderError(f"profile '{name}' is given twice; profile names are unique")
    return {name: imported(shapes | own) for name, own in profiles}


def shape_argument(text: str) -> tuple[str, tuple[int, ...]]:
    """`name:1x3x224x224` -> name and dimensions."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME:1x3x224x224")
    return match["name"], tuple(int(d) for d in match["dims"].split("x"))


def uff_input_argument(text: str) -> tuple[str, tuple[int, ...]]:
    """`name,1,28,28` -> name and dimensions with a batch of 1."""
    name, *dims = text.split(",")
    if not name or not dims:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME,C,H,W")
    return name, (1, *(positive(dim) for dim in dims))


def profile_argument(text: str) -> tuple[str, dict[str, tuple[int, ...]]]:
    """`name=input:8x3x224x224,input2:8x4` -> name, dimensions by input."""
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=INPUT:1x3x224x224[,INPUT:...]")
    return name, dict(shape_argument(part) for part in rest.split(","))


def batch_argument(text: str) -> tuple[int, ...]:
    """`1,4,8` -> (1, 4, 8)."""
    return tuple(positive(part) for part in text.split(","))


def measure_argument(text: str) -> str:
    """`local`, `none`, `bundle:` and a path, or the address of a link."""
    if text in ("local", "none") or "://" in text:
        return text
    if len(text.removeprefix(_BUNDLE)) not in (0, len(text)):
        return text
    raise argparse.ArgumentTypeError(
        f"'{text}' is none of local, none, bundle:OUT.zip, and no link such as tcp://HOST:PORT"
    )


def measure_settings(places: Sequence[str]) -> dict[str, Any]:
    """Options of the config for the values of `--measure`. Raises BuilderError."""
    boards = tuple(place for place in places if "://" in place)
    if boards and len(boards) == len(places):
        return {"measure": "local", "boards": boards}
    if len(places) > 1:
        raise BuilderError(f"--measure: only links can be combined, not {', '.join(places)}")
    return {"measure": "local" if places[0] == "local" else "none"}


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)
