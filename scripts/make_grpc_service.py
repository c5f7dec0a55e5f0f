"""Write runtime_edge/serve/grpc_service.binpb (a FileDescriptorProto) from grpc_service.proto.

Needs grpcio-tools (extra `test`). Run: python scripts/make_grpc_service.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "runtime_edge" / "serve"


def compile_service() -> bytes:
    """The descriptor, without source positions."""
    spec = importlib.util.spec_from_file_location(
        "make_manifest", ROOT / "scripts" / "make_manifest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    compiler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compiler)
    content: bytes = compiler.compile_manifest(PACKAGE / "grpc_service.proto")
    return content


if __name__ == "__main__":
    content = compile_service()
    (PACKAGE / "grpc_service.binpb").write_bytes(content)
    print(f"runtime_edge/serve/grpc_service.binpb: {len(content)} bytes")
