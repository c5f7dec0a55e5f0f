"""Write planformat/manifest.binpb (a serialized FileDescriptorProto) from manifest.proto.

Needs grpcio-tools (extra `test`). Run: python scripts/make_manifest.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PACKAGE = Path(__file__).resolve().parents[1] / "planformat"


def compile_manifest(proto: Path) -> bytes:
    """Serialized FileDescriptorProto of one .proto file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        status = protoc.main(
            ["protoc", f"-I{proto.parent}", f"--descriptor_set_out={out}", proto.name]
        )
        if status:
            raise SystemExit(f"protoc failed with status {status}")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return bytes(files.file[0].SerializeToString(deterministic=True))


if __name__ == "__main__":
    content = compile_manifest(PACKAGE / "manifest.proto")
    (PACKAGE / "manifest.binpb").write_bytes(content)
    print(f"planformat/manifest.binpb: {len(content)} bytes")
