"""Protobuf message classes of the manifest, made from the shipped descriptor.

No generated code: `manifest.binpb` is a serialized FileDescriptorProto (scripts/make_manifest.py),
so that any protobuf runtime from 4.25 on works. Only the writer needs these classes; the reader
decodes the wire format itself (`wire.py` says why).
"""

from __future__ import annotations

import pkgutil
from functools import lru_cache
from typing import Any

from planformat.errors import PlanError

PACKAGE = "edgeplan.plan.v1"


def message_class(name: str) -> Any:
    """The class of a message, e.g. `Manifest`."""
    from google.protobuf import message_factory

    descriptor = _pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


@lru_cache(maxsize=1)
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    content = pkgutil.get_data("planformat", "manifest.binpb")
    if content is None:
        raise PlanError("the installed package lacks planformat/manifest.binpb; install it again")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(content))
    return pool
