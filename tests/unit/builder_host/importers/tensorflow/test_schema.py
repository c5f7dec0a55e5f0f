"""The serialized descriptor and bytes on the wire."""

from importlib import resources

import pytest
from google.protobuf import descriptor_pb2

from builder_host.importers.tensorflow import schema


def test_descriptor_is_that_of_the_proto_file(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = resources.files("builder_host.importers.tensorflow")
    with resources.as_file(folder / "graph.proto") as proto:
        made = tmp_path / "graph.binpb"
        status = protoc.main(
            ["protoc", f"-I{proto.parent}", f"--descriptor_set_out={made}", str(proto)]
        )
    assert status == 0
    parse = descriptor_pb2.FileDescriptorSet.FromString
    shipped = (folder / schema.DESCRIPTOR_FILE).read_bytes()
    assert parse(shipped) == parse(made.read_bytes())


def test_bytes_of_a_node():
    node = schema.message_class("NodeDef")(name="n", op="Relu", input=["x"])
    node.attr["T"].type = 1
    # 1 name, 2 op, 3 input, 5 map entry {1: key, 2: AttrValue {6: type}}
    expected = b"\x0a\x01n\x12\x04Relu\x1a\x01x\x2a\x07\x0a\x01T\x12\x02\x30\x01"
    assert node.SerializeToString() == expected
