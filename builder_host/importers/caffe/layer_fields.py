"""Fields of a layer block as nested mappings, also those that the schema lacks.

protobuf drops fields that it does not know; a plugin's own `reorg_param { stride: 2 }` is read here
from the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf import text_encoding

_CLOSING = {"{": "}", "<": ">"}
_WORDS: dict[str, Any] = {"true": True, "false": False}


class Token(Protocol):
    """A word, string or mark of the text."""

    @property
    def text(self) -> str:
        """As it stands there."""

    @property
    def kind(self) -> str:
        """`word`, `string`, `mark` or `end`."""


def fields_from(tokens: Sequence[Token], start: int) -> dict[str, Any]:
    """Fields of the first block that opens at or behind token `start`.

    Messages are mappings, repeated fields tuples, numbers int or float, enum values their names.
    The text is one that protobuf has accepted.
    """
    at = start
    while tokens[at].kind != "end" and tokens[at].text not in _CLOSING:
        at += 1
    return _message(tokens, at)[0]


def _message(tokens: Sequence[Token], at: int) -> tuple[dict[str, Any], int]:
    """Fields of the block opening at `at`, and the token behind it; a loop over open blocks."""
    root: dict[str, Any] = {}
    stack: list[tuple[dict[str, Any], str]] = []
    fields, closing = root, _CLOSING.get(tokens[at].text, "")
    at += 1
    name = ""
    while tokens[at].kind != "end":
        token = tokens[at]
        at += 1
        if token.kind != "string" and token.text == closing:
            if not stack:
                break
            fields, closing = stack.pop()
        elif token.kind != "string" and token.text in _CLOSING:
            inner: dict[str, Any] = {}
            _put(fields, name, inner)
            stack.append((fields, closing))
            fields, closing = inner, _CLOSING[token.text]
        elif token.kind == "mark" and token.text in (":", ",", ";", "[", "]"):
            continue
        elif token.kind == "word" and tokens[at].text in (":", *_CLOSING):
            name = token.text
        else:
            text = token.text
            while token.kind == "string" and tokens[at].kind == "string":
                text = text[:-1] + tokens[at].text[1:]  # adjacent strings are one
                at += 1
            _put(fields, name, _scalar(text, token.kind))
    return root, at


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], tuple):
        fields[name] = (*fields[name], value)
    else:
        fields[name] = (fields[name], value)


def _scalar(text: str, kind: str) -> Any:
    if kind == "string":
        return text_encoding.CUnescape(text[1:-1]).decode("utf-8", "replace")
    if text in _WORDS:
        return _WORDS[text]
    for convert in (int, _hexadecimal, float, _single):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _hexadecimal(text: str) -> int:
    return int(text, 16) if text.lower().startswith(("0x", "-0x")) else int("")


def _single(text: str) -> float:
    """A float literal that ends in `f`."""
    return float(text.removesuffix("f"))
