"""Reading of prototxt files: text format, line of every layer, fields that nobody knows.

protobuf's text format does the parsing; a scan over the same tokens, guided by the descriptors,
adds what it does not tell: the line of each layer and each field that the schema lacks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from builder_host.errors import ImportModelError
from builder_host.importers.caffe import schema
from builder_host.importers.caffe.layer_fields import fields_from

_TOKEN = re.compile(
    r"(?P<space>\s+|\#[^\n]*)"
    r"|(?P<string>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[A-Za-z_0-9.+\-]+)"
    r"|(?P<mark>.)",
    re.DOTALL,
)
_CLOSING = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field of the text that the schema lacks."""

    line: int
    name: str
    message: str
    nearest: tuple[str, ...]

    def __str__(self) -> str:
        """What is unknown, and what was perhaps meant."""
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        return f"unknown field '{self.name}' of {self.message}{hint}; remove or correct it"


@dataclass(slots=True)
class LayerEntry:
    """One `layer` or `layers` block of the text; `start` is its place among the tokens."""

    message: Any
    line: int
    is_v1: bool
    unknown: list[UnknownField] = field(default_factory=list)
    start: int = 0


@dataclass(slots=True)
class Prototxt:
    """A parsed network file.

    Attributes:
        net: NetParameter message.
        layers: `layer` and `layers` blocks in file order.
        unknown: unknown fields outside of all layers.
        input_lines: line of each `input` field.
        tokens: the whole text.
    """

    file: str
    net: Any
    layers: list[LayerEntry]
    unknown: list[UnknownField]
    input_lines: list[int]
    tokens: list[Token]

    def fields(self, entry: LayerEntry) -> dict[str, Any]:
        """Fields of a layer, also those that the schema lacks; see layer_fields.py."""
        return fields_from(self.tokens, entry.start)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, string or mark of the text with its line."""

    text: str
    kind: str
    line: int


def read_prototxt(path: str | Path) -> Prototxt:
    """Read one prototxt file.

    Raises:
        ImportModelError: the file cannot be read or is no text of the schema; line and column
            are named.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportModelError(str(path), [f"cannot be read: {error.strerror}"]) from error
    return parse_prototxt(data.decode("utf-8", errors="replace"), path.name, str(path))


def parse_prototxt(text: str, file: str, path: str | None = None) -> Prototxt:
    """Parse the text of a network file; `file` is the name used in messages."""
    net = schema.message_class("NetParameter")()
    path = path or file
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ImportModelError(
            path, [f"{file}:{line}: a zero byte: this is no text; is it the caffemodel?"]
        )
    try:
        text_format.Parse(text, net, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ImportModelError(path, [_parse_problem(file, error)]) from error
    except (RecursionError, ValueError) as error:
        raise ImportModelError(path, [f"{file}: no network text: {error}"]) from error
    scan = _Scan(text, net.DESCRIPTOR)
    queues = {"layer": list(net.layer), "layers": list(net.layers)}
    layers = [
        LayerEntry(queues[name].pop(0), line, name == "layers", unknown, start)
        for name, line, unknown, start in scan.blocks
    ]
    return Prototxt(file, net, layers, scan.unknown, scan.input_lines, scan.tokens)


def _parse_problem(file: str, error: text_format.ParseError) -> str:
    line, column = error.GetLine(), error.GetColumn()
    text = re.sub(r"^\d+:\d+ : ", "", str(error))
    text = text.replace(f'"{schema.SCHEMA.package}.', '"')
    where = f"{file}:{line}:{column}" if line is not None else file
    hint = ""
    enum = re.search(r'Enum type "([\w.]+)" has no value named (\w+)', text)
    if enum and enum.group(1).endswith("LayerType"):
        values = schema.message_class("V1LayerParameter").LayerType.keys()
        nearest = difflib.get_close_matches(enum.group(2), values, n=3)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else f"; known: {', '.join(values)}"
    return f"{where}: {text}{hint}; correct the text there"


def _tokens(text: str) -> Iterator[Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        if kind != "space":
            yield Token(match.group(), kind, line)
        line += match.group().count("\n")
    yield Token("", "end", line)


class _Scan:
    """Walks the tokens of a text that protobuf has accepted."""

    def __init__(self, text: str, net: Any) -> None:
        self.blocks: list[tuple[str, int, list[UnknownField], int]] = []
        self.unknown: list[UnknownField] = []
        self.input_lines: list[int] = []
        self._found = self.unknown
        self.tokens = list(_tokens(text))
        self._at = 0
        self._message(net, "", 0)

    @property
    def _next(self) -> Token:
        return self.tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at = min(self._at + 1, len(self.tokens) - 1)
        return token

    def _message(self, message: Any, closing: str, depth: int) -> None:
        """Fields up to `closing`; `message` is None inside an unknown field."""
        while self._next.kind != "end" and self._next.text != closing:
            name = self._take()
            if name.text in {";", ","}:
                continue
            if name.text == "[":  # extension name
                while self._next.kind != "end" and self._take().text != "]":
                    pass
            found = message.fields_by_name.get(name.text) if message is not None else None
            if message is not None and found is None:
                self._found.append(_unknown(name, message))
            if depth == 0:
                self._top_level(name)
            self._value(found.message_type if found is not None else None, name, depth)
            if depth == 0:
                self._found = self.unknown
        self._take()

    def _top_level(self, name: Token) -> None:
        if name.text in {"layer", "layers"}:
            self._found = []
            self.blocks.append((name.text, name.line, self._found, self._at - 1))
        elif name.text == "input":
            self.input_lines.append(name.line)

    def _value(self, message: Any, name: Token, depth: int) -> None:
        if self._next.text == ":":
            self._take()
        token = self._take()
        if token.text in _CLOSING:
            self._message(message, _CLOSING[token.text], depth + 1)
        elif token.text == "[":
            items = 0
            while self._next.kind != "end" and self._next.text != "]":
                item = self._take()
                items += item.text != ","
                if depth == 0 and items > 1 and item.text != ",":
                    self._top_level(name)
                if item.text in _CLOSING:
                    self._message(message, _CLOSING[item.text], depth + 1)
            self._take()
        elif token.kind == "string":
            while self._next.kind == "string":
                self._take()


def _unknown(name: Token, message: Any) -> UnknownField:
    known = [found.name for found in message.fields]
    nearest = difflib.get_close_matches(name.text, known, n=3)
    return UnknownField(name.line, name.text, message.name, tuple(nearest))
