"""Filling parameter blocks: values, and every misuse refused."""

from __future__ import annotations

import pytest

from builder_host.codegen.template import TemplateError, fill, parameter_names

TEMPLATE = """#include "ep_vector.h"
// parameters
#define ROWS 4  // tile height
#define BODY x + 1
// end of parameters
int f(int x) { return ROWS * (BODY); }
"""


def test_values_replace_defaults_and_nothing_else() -> None:
    text = fill(TEMPLATE, {"BODY": "x * 2", "ROWS": 7})
    assert "#define ROWS 7\n#define BODY x * 2\n" in text
    assert text.replace("ROWS 7", "").count("ROWS") == 1
    assert text.endswith("int f(int x) { return ROWS * (BODY); }\n")
    assert text == fill(TEMPLATE, {"ROWS": 7, "BODY": "x * 2"})


def test_a_value_of_several_lines_becomes_one_define() -> None:
    assert "#define BODY a \\\n  b\n" in fill(TEMPLATE, {"ROWS": 1, "BODY": "a\nb"})


def test_names_are_listed_in_order() -> None:
    assert parameter_names(TEMPLATE) == ("ROWS", "BODY")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"ROWS": 1}, "parameters without a value: BODY"),
        ({"ROWS": 1, "BODY": 2, "COLUMNS": 3}, "unknown parameters: COLUMNS"),
    ],
)
def test_missing_and_unknown_parameters_are_refused(parameters: dict[str, int], text: str) -> None:
    with pytest.raises(TemplateError, match=text):
        fill(TEMPLATE, parameters)


def test_a_parameter_that_the_body_ignores_is_refused() -> None:
    template = TEMPLATE.replace("ROWS * ", "")
    with pytest.raises(TemplateError, match="never uses: ROWS"):
        fill(template, {"ROWS": 1, "BODY": 2})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("// end of parameters\n", ""), "needs one line"),
        (("#define ROWS 4", "int rows;"), "is no '#define NAME value'"),
        (("#define BODY", "#define ROWS"), "ROWS is defined twice"),
    ],
)
def test_broken_blocks_are_refused(change: tuple[str, str], text: str) -> None:
    with pytest.raises(TemplateError, match=text):
        parameter_names(TEMPLATE.replace(*change))
