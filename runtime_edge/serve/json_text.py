"""JSON from clients: strict, and large tensors without holding the interpreter for long.

`json.loads` keeps the interpreter lock until it is done: 200 ms for the numbers of one picture.
Long runs of numbers are therefore cut out first and parsed later, a slice at a time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from runtime_edge.serve.errors import RequestError

LARGE_BYTES = 64 << 10
"""Texts from this size on are worth another thread."""

_SLICE_BYTES = 16 << 10
_WINDOW_BYTES = 64 << 10
_LEAST_RUN_BYTES = 4 << 10
_BEGIN = re.compile(rb'["\[]')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_RUN = re.compile(rb"[\s\d+\-.eE,\[\]]*")
_PLACEHOLDER = "-Infinity"  # not JSON, but a token of Python's parser, which asks what it means
_NUMBER_BYTES = b"0123456789+-.eE \t\r\n"
_TO_SPACES = bytes.maketrans(b"[]", b"  ")


class NumberRun:
    """The text of a list of numbers, flat or nested, that is not parsed yet."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        """A run that begins and ends with a bracket."""
        self._text = text

    def slices(self, shape: tuple[int, ...], where: str) -> Iterator[list[Any]]:
        """The numbers, some thousand at a time.

        Raises:
            RequestError: 400: not nested as the shape says and not flat either, or no numbers.
        """
        skeleton = self._text.translate(None, _NUMBER_BYTES)
        num = skeleton.count(b",") + 1
        # The count first: a skeleton of a shape that the client made up could fill the memory.
        if num != math.prod(shape) or skeleton not in (_skeleton((num,)), _skeleton(shape)):
            raise RequestError(
                400,
                f"{where}: the lists hold {num:,} elements or are not nested as shape "
                f"{list(shape)} says; nest them or go flat",
            )
        numbers = self._text.translate(_TO_SPACES)
        begin = 0
        while begin < len(numbers):
            end = numbers.find(b",", begin + _SLICE_BYTES)
            end = len(numbers) if end < 0 else end
            try:
                yield json.loads(b"[" + numbers[begin:end] + b"]")
            except ValueError as error:
                raise RequestError(400, f"{where}: not a list of numbers: {error}") from error
            begin = end + 1


def parse_json(text: bytes, what: str) -> Any:
    """A JSON value; long lists of numbers in it are `NumberRun` objects.

    Raises:
        RequestError: 400: not JSON, NaN or Infinity in it, or nested too deep.
    """
    runs: list[NumberRun] = []
    if len(text) >= LARGE_BYTES:
        text, runs = _cut_runs(text)
    taken = iter(runs)
    num_left = len(runs)

    def constant(name: str) -> NumberRun:
        nonlocal num_left
        if name != _PLACEHOLDER or num_left == 0:
            raise ValueError(f"{name} is not JSON")
        num_left -= 1
        return next(taken)

    try:
        value = json.loads(text.decode("utf-8"), parse_constant=constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"{what} is not UTF-8: {error}") from error
    except RecursionError:
        raise RequestError(400, f"{what} is nested too deep") from None
    except ValueError as error:
        raise RequestError(400, f"{what} is not JSON: {error}") from error
    if num_left:
        raise RequestError(400, f"{what} is not JSON")
    return value


def _cut_runs(text: bytes) -> tuple[bytes, list[NumberRun]]:
    """The text with each long list of numbers replaced by a placeholder, and the lists."""
    runs: list[NumberRun] = []
    pieces: list[bytes] = []
    kept = at = 0
    while True:
        found = _BEGIN.search(text, at)
        if found is None:
            break
        begin = found.start()
        if found[0] == b'"':
            string = _STRING.match(text, begin)
            if string is None:
                break  # not JSON: let the parser say where
            at = string.end()
            continue
        end = _end_of_run(text, begin)
        run = text[begin:end].rstrip(b", \t\r\n")
        if len(run) < _LEAST_RUN_BYTES:
            at = begin + 1
            continue
        surplus = run.count(b"]") - run.count(b"[")
        if surplus == 1:  # the bracket of a list around it
            run = run[: run.rindex(b"]")].rstrip(b", \t\r\n")
        elif surplus:
            at = begin + len(run)
            continue
        pieces += [text[kept:begin], _PLACEHOLDER.encode()]
        kept = at = begin + len(run)
        runs.append(NumberRun(run))
    pieces.append(text[kept:])
    return b"".join(pieces), runs


def _end_of_run(text: bytes, begin: int) -> int:
    while True:
        window = min(len(text), begin + _WINDOW_BYTES)
        found = _RUN.match(text, begin, window)
        end = found.end() if found else begin
        if end < window or window == len(text):
            return end
        begin = end


def _skeleton(shape: tuple[int, ...]) -> bytes:
    """Brackets and commas of a tensor's nested lists."""
    text = b""
    for extent in reversed(shape):
        text = b"[" + b",".join([text] * extent) + b"]"
    return text
