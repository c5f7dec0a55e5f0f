"""Messages as bytes on the wire."""

from builder_host.importers.uff import schema


def test_bytes_of_a_node():
    node = schema.message_class("Node")(id="n", operation="Conv", inputs=["a", "b"])
    node.fields["strides"].i_list.val.extend([1, 2])
    # 1 id, 2 inputs, 3 operation, 4 map entry {1: key, 2: Data {8: list {1: packed 1, 2}}}
    expected = (
        b"\x0a\x01n\x12\x01a\x12\x01b\x1a\x04Conv"
        b"\x22\x11\x0a\x07strides\x12\x06\x42\x04\x0a\x02\x01\x02"
    )
    assert node.SerializeToString() == expected


def test_bytes_of_references_types_and_orders():
    data = schema.message_class("Data")
    assert data(ref="k").SerializeToString() == b"\xa2\x06\x01k"  # field 100
    assert data(dtype=0x20020).SerializeToString() == b"\xa8\x06\xa0\x80\x08"  # field 101
    orders = data()
    orders.dim_orders_list.val.add().orders[-1].val.extend([0, 1])
    # 104 list {1: DimensionOrders {1: entry {1: key -1 in ten bytes, 2: list {1: packed}}}}
    entry = b"\x08" + b"\xff" * 9 + b"\x01" + b"\x12\x04\x0a\x02\x00\x01"
    inner = b"\x0a" + bytes([len(entry)]) + entry
    whole = b"\x0a" + bytes([len(inner)]) + inner
    assert orders.SerializeToString() == b"\xc2\x06" + bytes([len(whole)]) + whole
