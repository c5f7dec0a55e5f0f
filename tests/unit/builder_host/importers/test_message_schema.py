"""The serialized descriptors that ship are those of the `.proto` files beside them."""

from importlib import resources

import pytest
from google.protobuf import descriptor_pb2

from builder_host.importers.caffe.schema import SCHEMA as CAFFE
from builder_host.importers.tensorflow.schema import SCHEMA as TENSORFLOW
from builder_host.importers.uff.schema import SCHEMA as UFF

SCHEMAS = pytest.mark.parametrize(
    "schema", [CAFFE, TENSORFLOW, UFF], ids=lambda schema: schema.proto
)


@SCHEMAS
def test_descriptor_is_that_of_the_proto_file(schema, tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    with resources.as_file(resources.files(schema.folder) / schema.proto) as proto:
        made = tmp_path / "made.binpb"
        status = protoc.main(
            ["protoc", f"-I{proto.parent}", f"--descriptor_set_out={made}", str(proto)]
        )
    assert status == 0
    parse = descriptor_pb2.FileDescriptorSet.FromString
    assert parse(schema.descriptor_bytes()) == parse(made.read_bytes())


@SCHEMAS
def test_a_message_of_another_schema_is_unknown(schema):
    names = {"caffe.proto": "NodeDef", "graph.proto": "MetaGraph", "uff.proto": "NetParameter"}
    with pytest.raises(KeyError, match=names[schema.proto]):
        schema.message_class(names[schema.proto])
