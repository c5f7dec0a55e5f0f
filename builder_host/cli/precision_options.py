"""Options about precision and calibration that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder_host.errors import BuilderError

if TYPE_CHECKING:
    from builder_host.calibration.batches import ArrayFile, PictureFolder
    from builder_host.calibration.table import CalibrationTable
    from builder_host.config import BuilderConfig
    from builder_host.network.network import Network

_PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "best")
_CALIBRATORS = ("entropy", "entropy1", "min-max", "percentile", "mse", "legacy")


def add_data_arguments(
    parser: argparse.ArgumentParser, option: str, what: str, *, alias: str | None = None
) -> None:
    """Declare where samples come from: `option`, its preprocessing and how many are used."""
    parser.add_argument(
        option,
        *((alias,) if alias is not None else ()),
        metavar="PATH",
        help=f"{what}: a folder of pictures, an .npz or .npy file",
    )
    parser.add_argument(
        "--preprocessing",
        metavar="F.toml",
        help="how pictures become inputs (TOML or JSON: size, channels, scale, mean, std ...)",
    )
    parser.add_argument("--samples", type=_count, metavar="N", help="use the first N samples only")


def add_calibrator_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which calibrator is used and its parameters."""
    parser.add_argument(
        "--calibrator",
        choices=_CALIBRATORS,
        default="entropy",
        help="entropy (default): Kullback-Leibler, every tensor of the model; entropy1: the same "
        "after fusion; min-max; percentile; mse: least squared error; legacy: quantile or tail fit",
    )
    parser.add_argument(
        "--percentile", type=float, default=99.99, metavar="P", help="of 'percentile' (99.99)"
    )
    parser.add_argument(
        "--quantile", type=float, default=0.9999, metavar="Q", help="of 'legacy' (0.9999)"
    )
    parser.add_argument(
        "--regression-cutoff",
        type=float,
        default=1.0,
        metavar="C",
        help="of 'legacy': fit the tail up to this share of the largest value (1: quantile)",
    )


def add_signed_argument(parser: argparse.ArgumentParser) -> None:
    """Declare whether ranges are for signed 8 bits throughout."""
    parser.add_argument(
        "--signed",
        action="store_true",
        help="ranges for signed 8 bits throughout, as TensorRT and CUDA plans have them; without, "
        "tensors that are never negative count 256 levels, as CPU plans store them",
    )


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the precision options of `edgeplan build`."""
    parser.add_argument(
        "--precision",
        choices=_PRECISIONS,
        default="fp32",
        help="of layers that no rule names (default: fp32); int8 and best take dynamic ranges from "
        "a calibration",
    )
    parser.add_argument(
        "--layer-precision",
        default="",
        metavar="PATTERN=P,...",
        help="e.g. 'conv1=fp32,*head*=fp16': by layer or output tensor; the last match counts",
    )
    parser.add_argument(
        "--tensor-precision",
        default="",
        metavar="PATTERN=P,...",
        help="least precision in which matching tensors are stored",
    )
    parser.add_argument(
        "--calibration",
        metavar="F",
        help="calibration table in TensorRT's text format; with --calibration-data it is written "
        "when it does not exist yet",
    )
    add_data_arguments(parser, "--calibration-data", "samples to calibrate with")
    add_calibrator_arguments(parser)
    parser.add_argument(
        "--range",
        action="append",
        default=[],
        type=_range,
        metavar="TENSOR=X",
        help="dynamic range of a tensor, -X to X; counts before the table; may be repeated",
    )


def add_budget_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the search for mixed precision."""
    parser.add_argument(
        "--accuracy-budget",
        type=_share,
        metavar="0.5%",
        help="with --precision best and --calibration-data: keep the most sensitive layers in "
        "float, so that no more than this is lost (of classifiers: samples whose class changes)",
    )
    parser.add_argument(
        "--trade-off", metavar="F.svg", help="write the curve of loss against predicted time"
    )


def traded(
    args: argparse.Namespace,
    network: Network,
    config: BuilderConfig,
    progress: Callable[[str, int, int], None],
) -> tuple[BuilderConfig, str]:
    """The configuration with rules for sensitive layers, and the table. Raises BuilderError."""
    from builder_host.accuracy.sensitivity import trade_precision
    from builder_host.accuracy.trade_off_chart import trade_off_svg

    if args.accuracy_budget is None:
        if args.trade_off is not None:
            raise BuilderError("--trade-off draws what --accuracy-budget searched; give both")
        return config, ""
    table = config.table()
    if args.precision != "best" or args.calibration_data is None or table is None:
        raise BuilderError("--accuracy-budget needs --precision best and --calibration-data")
    trade = trade_precision(
        network,
        table,
        open_samples(args, args.calibration_data, network),
        budget=args.accuracy_budget,
        config=config,
        progress=progress,
    )
    if args.trade_off is not None:
        Path(args.trade_off).write_text(trade_off_svg(trade), encoding="utf-8")
    rules = (*trade.rules, *config.layer_precision)
    return replace(config, layer_precision=rules), trade.text()


def precision_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of a BuilderConfig from the options; without the calibration. Raises BuilderError."""
    from builder_host.precision.rules import parse_rules

    return {
        "precision": args.precision,
        "layer_precision": parse_rules(args.layer_precision),
        "tensor_precision": parse_rules(args.tensor_precision),
        "dynamic_ranges": dict(args.range),
    }


def open_samples(
    args: argparse.Namespace, path: str, network: Network
) -> ArrayFile | PictureFolder:
    """The samples that the options name. Raises BuilderError."""
    from builder_host.calibration.batches import open_data
    from builder_host.calibration.preprocessing import load_preprocessing

    given = args.preprocessing
    preprocessing = load_preprocessing(given) if given is not None else None
    return open_data(path, network, preprocessing=preprocessing, limit=args.samples)


def calibrated(
    args: argparse.Namespace,
    path: str,
    network: Network,
    config: BuilderConfig,
    progress: Callable[[str, int, int], None],
    *,
    is_signed: bool,
) -> CalibrationTable:
    """Calibrate with the samples at `path`. Raises BuilderError."""
    from builder_host.calibration.collect import calibrate
    from builder_host.calibration.thresholds import Options, find_calibrator

    options = Options(args.percentile, args.quantile, args.regression_cutoff, is_signed)
    samples = open_samples(args, path, network)
    calibrator = find_calibrator(args.calibrator)
    return calibrate(network, samples, calibrator, options, config=config, progress=progress)


def calibration_of(
    args: argparse.Namespace,
    network: Network,
    config: BuilderConfig,
    progress: Callable[[str, int, int], None],
) -> CalibrationTable | None:
    """The table that `--calibration` and `--calibration-data` ask for. Raises BuilderError."""
    from builder_host.builder import resolve_target
    from builder_host.calibration.table import load_table

    table, data = args.calibration, args.calibration_data
    if table is not None and (data is None or Path(table).exists()):
        return load_table(table)
    if data is None:
        return None
    is_signed = resolve_target(config.target)[0].device_kind != "cpu"
    found = calibrated(args, data, network, config, progress, is_signed=is_signed)
    if table is not None:
        found.save(table)
    return found


def _range(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not TENSOR=NUMBER") from error


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share such as 0.5%") from error
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0% and 100%")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def require_path(path: str | None, option: str) -> str:
    """The value of an option that must be given. Raises BuilderError."""
    if path is None:
        raise BuilderError(f"{option} is missing; name a folder of pictures, an .npz or .npy file")
    return path
