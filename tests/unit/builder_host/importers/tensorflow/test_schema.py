"""Messages as bytes on the wire."""

from builder_host.importers.tensorflow import schema


def test_bytes_of_a_node():
    node = schema.message_class("NodeDef")(name="n", op="Relu", input=["x"])
    node.attr["T"].type = 1
    # 1 name, 2 op, 3 input, 5 map entry {1: key, 2: AttrValue {6: type}}
    expected = b"\x0a\x01n\x12\x04Relu\x1a\x01x\x2a\x07\x0a\x01T\x12\x02\x30\x01"
    assert node.SerializeToString() == expected
