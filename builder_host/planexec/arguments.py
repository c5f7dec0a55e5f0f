"""Command line of planexec: `--name=value` or `--name value`, checked against the option table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from builder_host.errors import BuilderError
from builder_host.planexec.options import GROUPS, Option, all_options

Value = TypeVar("Value")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Options by name, names of those that were given, a note for each that changes nothing.

    Raises:
        BuilderError: an option that has no meaning here; says what to use instead.
        SystemExit: unknown options or values of the wrong kind (argparse).
    """
    parser = option_parser()
    args = parser.parse_args(arguments)
    without_defaults = argparse.Namespace(**dict.fromkeys(vars(args)))
    parser.parse_args(arguments, without_defaults)
    given = [name for name, value in vars(without_defaults).items() if value is not None]
    notes = []
    for option in all_options():
        name = option.names[0]
        if option.status == "used" or name not in given:
            continue
        text = f"--{name}: {option.text}"
        if option.status == "refused":
            raise BuilderError(text)
        notes.append(text)
    return args, given, notes


def split_list(values: Sequence[str] | None) -> list[str]:
    """Values of an option that may be repeated, each a list parted by commas."""
    return [part for value in values or () for part in value.split(",") if part]


def shapes_of(text: str | None) -> dict[str, tuple[int, ...]]:
    """`a:1x3x8x8,b:1x4` -> dimensions by name. Raises BuilderError."""
    found: dict[str, tuple[int, ...]] = {}
    for part in split_list([text] if text else []):
        name, _, dims = part.rpartition(":")
        if not name or not all(d.isascii() and d.isdigit() for d in dims.split("x")):
            raise BuilderError(f"'{part}' is not NAME:1x3x224x224")
        _add_once(found, name, tuple(int(d) for d in dims.split("x")))
    return found


def files_of(values: Sequence[str] | None) -> dict[str, Path]:
    """`name:file` -> path by name. Raises BuilderError."""
    found: dict[str, Path] = {}
    for part in split_list(values):
        name, _, path = part.partition(":")
        if not name or not path:
            raise BuilderError(f"'{part}' is not NAME:FILE")
        _add_once(found, name, Path(path))
    return found


def _add_once(found: dict[str, Value], name: str, value: Value) -> None:
    name = name.strip("'\"")
    if name in found:
        raise BuilderError(f"'{name}' is named twice: {found[name]} and {value}")
    found[name] = value


def option_parser() -> argparse.ArgumentParser:
    """The parser of every option in `options.GROUPS`."""
    parser = argparse.ArgumentParser(
        prog="planexec",
        description="Build, load and time a network with the options of giexec and trtexec.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for group in GROUPS:
        section = parser.add_argument_group(group.title)
        for option in group.options:
            _add(section, option)
    return parser


def _add(section: argparse._ArgumentGroup, option: Option) -> None:
    names = [f"--{name}" for name in option.names]
    text = option.text.replace("%", "%%")
    if option.status != "used":
        text = f"({option.status}) {text}"
    if option.value == "flag":
        section.add_argument(
            *names, dest=option.names[0], action="store_const", const=True, default=None, help=text
        )
        return
    kinds = {"int": int, "float": float, "text": str, "list": str}
    section.add_argument(
        *names,
        dest=option.names[0],
        type=kinds[option.value],
        action="append" if option.value == "list" else "store",
        default=None if option.value == "list" else option.default,
        metavar={"int": "N", "float": "X"}.get(option.value, "S"),
        help=text,
    )
