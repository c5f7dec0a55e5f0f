"""What the pages tell a reader to type: commands in blocks and in the text, Python blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
_PROGRAMS = ("edgeplan", "planexec")
SHELL = {"", "sh", "bash", "console", "text"}
_FENCE = re.compile(r"^```(?P<language>\w*)")
_ENDS = {"||", "&&", ";", "|"}


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        page, line: where it stands; words: program and arguments; output: file after `>`.
        is_whole: it stands in a block and can be typed as it is.
    """

    page: str
    line: int
    words: tuple[str, ...]
    output: str | None = None
    is_whole: bool = True

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(page: str) -> Iterator[tuple[int, str, str]]:
    """Line number, language and text of each line of a page; prose has the language `prose`.

    Indented blocks count as shell.
    """
    language = None
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence:
            language = fence["language"] if language is None else None
        elif language is not None:
            yield number, language, line
        else:
            yield number, "" if line.startswith("    ") else "prose", line


def commands(page: str) -> list[Command]:
    """Commands in the shell blocks of a page, in order."""
    found = []
    for number, language, line in blocks(page):
        text = line.strip().removeprefix("exec ")
        is_command = text.startswith(tuple(f"{name} " for name in _PROGRAMS))
        if language in SHELL and is_command and "·" not in text:  # · is in pictures made of text
            found.append(_command(page, number, text))
    return found


def mentions(page: str) -> list[Command]:
    """Commands in backquotes in the prose of a page: parts of a command line."""
    found = []
    for number, language, line in blocks(page):
        if language == "prose":
            for code in re.findall(r"`([^`]+)`", line.replace("\\|", "|")):
                if code.startswith(tuple(f"{name} " for name in _PROGRAMS)):
                    words = tuple(code.split())
                    found.append(Command(page, number, words, is_whole=False))
    return found


def _command(page: str, number: int, text: str) -> Command:
    words: list[str] = []
    output = None
    pieces = iter(shlex.split(text, comments=True))
    for piece in pieces:
        if piece in _ENDS:
            break
        if piece == ">":
            output = next(pieces)
            break
        words.append(piece)
    return Command(page, number, tuple(words), output, is_whole="..." not in words)


def python_blocks(page: str) -> list[tuple[int, str]]:
    """Python blocks of a page: number of their first line, source."""
    found: list[tuple[int, list[str]]] = []
    last = -1
    for number, language, line in blocks(page):
        if language == "python":
            if number != last + 1 or not found:
                found.append((number, []))
            found[-1][1].append(line)
            last = number
    return [(number, "\n".join(lines) + "\n") for number, lines in found]
