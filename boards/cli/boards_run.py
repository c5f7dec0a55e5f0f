"""Run one inference of a deployed plan on its board, on inputs from here.

Files are raw elements in the plan's order and type, or .npy files, whose header is skipped. Outputs
are written as raw elements; --json says their names, types and shapes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from boards.cli._linking import add_link_arguments, open_link
from boards.errors import BoardError
from boards.link.file_transfer import fetch_file, send_to_cache

_NPY = b"\x93NUMPY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", help="of the plan on the board")
    add_link_arguments(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="may be repeated"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="where outputs are written")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="FIELD", help="fields that may differ"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        inputs = {}
        for text in args.input:
            name, equals, file = text.partition("=")
            if not equals:
                raise BoardError(f"--input {text}: expected NAME=FILE")
            inputs[name] = send_to_cache(link, _elements(Path(file))).sha256
        fields = {"name": args.name, "inputs": inputs, "allow": args.allow}
        answer = link.call("run", fields, timeout_s=600).fields
        data = fetch_file(link, answer["sha256"], answer["size"])
    rows, offset = [], 0
    for output in answer["outputs"]:
        part = data[offset : offset + output["bytes"]]
        offset += output["bytes"]
        row = {key: output[key] for key in ("name", "dtype", "shape", "bytes")}
        if args.output_dir is not None:
            # a name comes from the plan: only its last part may become a file's name
            path = Path(args.output_dir) / (Path(row["name"].replace("/", "_")).name + ".bin")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part)
            row["file"] = str(path)
        rows.append(row)
    if args.json:
        print(json.dumps({"time_us": answer["time_us"], "outputs": rows}))
        return 0
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        print(f"{row['name']}: {row['dtype']} {shape}" + (f" -> {row.get('file', '')}"))
    print(f"{answer['time_us']:,.1f} µs")
    return 0


def _elements(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(_NPY):
        return data
    # format of .npy: magic, two version bytes, header length of 2 or 4 bytes, header
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if b"'fortran_order': True" in data[:start] or b"'descr': '>" in data[:start]:
        raise BoardError(f"{path}: save it little-endian and in C order")
    return data[start:]
