"""Text format: lines of layers, unknown fields, errors with their place."""

import pytest

from builder_host.errors import ImportModelError
from builder_host.importers.caffe.prototxt import parse_prototxt, read_prototxt

TEXT = """\
# a comment with a { brace
name: "two"
input: "data" input_dim: 1 input_dim: 3
input_dim: 4
input_dim: 4
layer { name: "a" type: 'ReLU' bottom: "data" top: "a" }
layer {
  name: "b}"  # layer { in a comment
  type: "Convolution"
  bottom: "a", top: "b";
  convolution_param: < num_output: 2 kernel_sise: 3 kernel_size: [3, 3] >
  made_up { x: 1 y { z: "}" } }
}
top_level_thing: 7
"""


def test_lines_of_layers_and_inputs():
    text = parse_prototxt(TEXT, "two.prototxt")
    assert [(e.line, e.message.name) for e in text.layers] == [(6, "a"), (7, "b}")]
    assert text.input_lines == [3]
    assert list(text.layers[1].message.convolution_param.kernel_size) == [3, 3]


def test_unknown_fields_are_kept_apart_by_layer():
    text = parse_prototxt(TEXT, "two.prototxt")
    assert [(u.line, u.name) for u in text.unknown] == [(14, "top_level_thing")]
    assert text.layers[0].unknown == []
    found = text.layers[1].unknown
    assert [(u.line, u.name, u.message) for u in found] == [
        (11, "kernel_sise", "ConvolutionParameter"),
        (12, "made_up", "LayerParameter"),
    ]
    assert found[0].nearest[0] == "kernel_size"


def test_v1_and_todays_layers_keep_their_order():
    text = parse_prototxt(
        'layers { name: "x" type: RELU }\nlayer { name: "y" }\nlayers { name: "z" }', "m.prototxt"
    )
    assert [(e.message.name, e.is_v1) for e in text.layers] == [
        ("x", True),
        ("y", False),
        ("z", True),
    ]


def test_list_of_layers_counts_each():
    text = parse_prototxt('layer [{ name: "x" }, { name: "y"\n foo: 1 }]', "m.prototxt")
    assert [e.message.name for e in text.layers] == ["x", "y"]
    assert [u.line for u in text.layers[1].unknown] == [2]


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ('layer {\n  name: "a"\n  type: }', "m.prototxt:3", "Expected string"),
        ("layer {\n\n", "m.prototxt:", "Expected"),
        ('layer { name: "a" name: "b" }', "m.prototxt:1", "multiple"),
        ("layers {\n type: RELUU }", "m.prototxt:2", "nearest: RELU"),
        ("layer { convolution_param { num_output: -3 } }", "m.prototxt:1", "-3"),
        ('layer { type: "unclosed }', "m.prototxt:1", "quote"),
        ("layer\0", "m.prototxt:1", "zero byte"),
        ("\x01\x02 garbage \xff\xfe", "m.prototxt:1", ""),
        ("layer { " * 3000, "m.prototxt", ""),
    ],
)
def test_bad_text_is_named_with_its_place(text, where, says):
    with pytest.raises(ImportModelError) as caught:
        parse_prototxt(text, "m.prototxt")
    (problem,) = caught.value.problems
    assert problem.startswith(where)
    assert says.lower() in problem.lower()


def test_missing_file(tmp_path):
    with pytest.raises(ImportModelError, match="cannot be read: No such file"):
        read_prototxt(tmp_path / "none.prototxt")


def test_binary_instead_of_text(tmp_path):
    path = tmp_path / "swapped.prototxt"
    path.write_bytes(b"\x0a\x05LeNet\xa2\x06\x00\x00\xff\xfe")
    with pytest.raises(ImportModelError, match="is it the caffemodel"):
        read_prototxt(path)
