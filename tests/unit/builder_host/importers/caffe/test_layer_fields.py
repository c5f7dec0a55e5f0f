"""Fields read from tokens are those that protobuf's own parser reads, for every published layer."""

import pytest
from support.cases import DATA

from builder_host.importers.caffe.prototxt import parse_prototxt, read_prototxt

FILES = sorted((DATA / "caffe").rglob("*.prototxt"))


def as_fields(message):
    """A message as mappings; one value alone where a repeated field has one, as in the text."""
    found = {}
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        if field.message_type is not None:
            values = [as_fields(one) for one in values]
        elif field.enum_type is not None:
            values = [field.enum_type.values_by_number[one].name for one in values]
        found[field.name] = tuple(values) if len(values) > 1 else values[0]
    return found


def same(stated, parsed):
    if isinstance(parsed, dict):
        return stated.keys() == parsed.keys() and all(same(stated[k], parsed[k]) for k in parsed)
    if isinstance(parsed, tuple):
        return len(stated) == len(parsed) and all(map(same, stated, parsed))
    if isinstance(parsed, float):
        return stated == pytest.approx(parsed, rel=1e-6)  # protobuf keeps float32
    return stated == parsed


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_layer_of_every_file(path):
    text = read_prototxt(path)
    assert text.layers
    for entry in text.layers:
        if entry.unknown:
            continue  # protobuf drops what it does not know
        stated, parsed = text.fields(entry), as_fields(entry.message)
        assert same(stated, parsed), (entry.line, stated, parsed)


def test_layers_in_a_list_and_in_angle_brackets():
    text = parse_prototxt(
        'layer: [{ name: "a" type: "X" }, < name: \'b\' type: "Y" p { q: .5 } >]\n'
        'layer { name: "c" "d" type: "Z" p: { r: -1, r: 2; s: "x\\n\\x41" } }',
        "m.prototxt",
    )
    assert [text.fields(entry) for entry in text.layers] == [
        {"name": "a", "type": "X"},
        {"name": "b", "type": "Y", "p": {"q": 0.5}},
        {"name": "cd", "type": "Z", "p": {"r": (-1, 2), "s": "x\nA"}},
    ]
