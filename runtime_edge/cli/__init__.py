"""The `edgeplan` command: finds its sub-commands in the `cli` folders of the packages, lazily.

A sub-command is a module with a docstring (its help), `add_arguments(parser)` and `run(args)`,
which returns the exit status. A module `boards_status.py` is the command `boards status`, if there
is a command `boards` too. Every command takes `--json` and `--verbose`. What the user did wrong
is one message on stderr and exit status 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence

_PACKAGES = ("runtime_edge.cli", "boards.cli", "builder_host.cli")
_BUILDER_COMMANDS = (
    "build",
    "calibrate",
    "compare",
    "diff",
    "evaluate",
    "explain",
    "refit",
    "toolchain",
)
_OWN_PACKAGES = ("planformat", "runtime_edge", "builder_host", "boards")


class CommandError(Exception):
    """What the user asked for cannot be done; the text is shown as it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 done, 1 the command failed, 2 wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = find_commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"edgeplan {version()}")
        return 0
    name, arguments = _named(arguments, commands)
    if name not in commands:
        print(_unknown(name, commands), file=sys.stderr)
        return 2
    try:
        return _run(name, commands[name], arguments)
    except SystemExit as error:  # argparse: --help and wrong usage
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print(f"edgeplan {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"edgeplan {name}: {error}", file=sys.stderr)
        return 1


def find_commands() -> dict[str, str]:
    """Module of each command that is installed, by name; nothing of them is imported."""
    commands = {}
    for package in _PACKAGES:
        top, _, rest = package.partition(".")
        spec = importlib.util.find_spec(top)  # importing `builder_host` would cost NumPy
        for location in (spec.submodule_search_locations or ()) if spec else ():
            folder = os.path.join(location, rest)
            for module in pkgutil.iter_modules([folder]):
                if _is_command(os.path.join(folder, module.name + ".py")):
                    commands[module.name.replace("_", "-")] = f"{package}.{module.name}"
    for name in list(commands):
        first, dash, rest = name.partition("-")
        if dash and first in commands:
            commands[f"{first} {rest}"] = commands.pop(name)
    return commands


def _named(arguments: Sequence[str], commands: Mapping[str, str]) -> tuple[str, list[str]]:
    """Name of the command, of one word or two, and the arguments behind it."""
    two = " ".join(arguments[:2])
    if two in commands:
        return two, list(arguments[2:])
    return arguments[0], list(arguments[1:])


def _is_command(path: str) -> bool:
    """Whether a module says that it takes arguments; others there are parts of commands."""
    if os.path.basename(path).startswith("_") or not os.path.exists(path):
        return False
    with open(path, encoding="utf-8") as file:
        return "\ndef add_arguments(" in file.read()


def is_user_error(error: BaseException) -> bool:
    """Whether an error tells the user something, instead of revealing a defect of this program."""
    if isinstance(error, (CommandError, OSError)):
        return True
    return any(
        base.__module__.partition(".")[0] in _OWN_PACKAGES and base.__module__.endswith(".errors")
        for base in type(error).__mro__
    )


def command_parser(name: str, module_name: str) -> argparse.ArgumentParser:
    """The parser of one command; imports its module."""
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"edgeplan {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        conflict_handler="resolve",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    module.add_arguments(parser)
    return parser


def _run(name: str, module_name: str, arguments: Sequence[str]) -> int:
    args = command_parser(name, module_name).parse_args(arguments)
    if args.verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    status: int = importlib.import_module(module_name).run(args)
    return status


def _overview(commands: dict[str, str]) -> str:
    lines = ["usage: edgeplan COMMAND ...", "", "commands:"]
    width = max(map(len, commands))
    lines += [f"  {name:{width}}  {_summary(commands[name])}" for name in sorted(commands)]
    lines += ["", "edgeplan COMMAND --help explains a command; edgeplan --version is possible too"]
    return "\n".join(lines)


def _summary(module_name: str) -> str:
    """First line of a module's docstring, read without importing it."""
    import ast

    top, _, rest = module_name.partition(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(location, *rest.split(".")) + ".py"
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = ast.get_docstring(ast.parse(file.read())) or ""
            return text.partition("\n")[0]
    return ""


def _unknown(name: str, commands: dict[str, str]) -> str:
    import difflib

    if name in _BUILDER_COMMANDS:
        return (
            f"edgeplan: the command '{name}' belongs to the builder, which is not installed here; "
            "install it with: pip install 'edgeplan[builder]'"
        )
    near = difflib.get_close_matches(name, commands)
    hint = f"; did you mean '{near[0]}'" if near else ""
    return f"edgeplan: there is no command '{name}'{hint}; commands: {', '.join(sorted(commands))}"


def version() -> str:
    """Version of the installed distribution, for people."""
    from importlib import metadata

    try:
        return metadata.version("edgeplan")
    except metadata.PackageNotFoundError:
        return "(not installed)"
