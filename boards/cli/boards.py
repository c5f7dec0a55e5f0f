"""List the known boards, or show one: architecture, software generations, power modes, sources."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from boards.errors import BoardSpecError
from boards.spec import BoardSpec, board_names, load_board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("action", choices=("list", "show"), help="what to print")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="board, or board@software such as jetpack5 (show)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.action == "list":
        if args.name is not None:
            raise BoardSpecError(f"'list' takes no name; for one board: boards show {args.name}")
        boards = [load_board(name) for name in board_names()]
        if args.json:
            print(json.dumps({"boards": [describe(board) for board in boards]}))
        else:
            print("\n".join(_rows(boards)))
        return 0
    if args.name is None:
        raise BoardSpecError("name a board to show; 'edgeplan boards list' prints them")
    report = describe(load_board(args.name))
    print(json.dumps(report) if args.json else "\n".join(_lines(report)))
    return 0


def describe(board: BoardSpec) -> dict[str, Any]:
    """Everything that a board file states, as JSON takes it."""
    return {
        "name": board.name,
        "title": board.title,
        "device_kind": board.device_kind,
        "is_probed": board.is_probed,
        "generation": board.generation,
        "fingerprint": dict(sorted(board.fingerprint.items())),
        "hardware": dict(board.hardware),
        "software": [
            {**dataclasses.asdict(item), "fingerprint": dict(item.fingerprint)}
            for item in board.software
        ],
        "power_modes": [dataclasses.asdict(mode) for mode in board.power_modes],
        "serial": dataclasses.asdict(board.serial) if board.serial else None,
        "sources": list(board.sources),
    }


def _rows(boards: list[BoardSpec]) -> list[str]:
    rows = [
        (
            board.name,
            board.fingerprint.get("cuda.compute_capability")
            or board.fingerprint.get("cpu.architecture", "probed"),
            " ".join(item.name for item in board.software),
            board.title,
        )
        for board in boards
    ]
    rows.insert(0, ("board", "device", "software (first: default)", "title"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=False))
        + f"  {row[3]}"
        for row in rows
    ]


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['name']}: {report['title']} ({report['device_kind']})"]
    if report["is_probed"]:
        lines.append("  its facts are probed, not stated: edgeplan probe")
    for title in ("fingerprint", "hardware"):
        if report[title]:
            lines.append(f"{title}:")
            lines += [f"  {name}: {_number(value)}" for name, value in report[title].items()]
    if report["software"]:
        lines.append("software:")
    for item in report["software"]:
        mark = "*" if item["name"] == report["generation"] else " "
        cuda = item["fingerprint"].get("cuda.cuda_version")
        details = [
            f"driver of CUDA {cuda}" if cuda else "",
            f"toolkit {item['toolkit']}" if item["toolkit"] else "",
            item["release"],
        ]
        text = "; ".join(filter(None, details))
        lines.append(f"  {mark} {report['name']}@{item['name']}: {item['title']} ({text})")
    if report["power_modes"]:
        modes = [
            mode["name"] if mode["id"] is None else f"{mode['id']} {mode['name']}"
            for mode in report["power_modes"]
        ]
        lines.append(f"power modes: {', '.join(modes)}")
    if report["serial"]:
        serial = report["serial"]
        lines.append(
            f"serial: {serial['baud']} baud with {serial['stop_bits']} stop bit(s), then "
            f"{serial['fast_baud']} baud with {serial['fast_stop_bits']}"
        )
    lines += [f"source: {source}" for source in report["sources"]]
    return lines


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
