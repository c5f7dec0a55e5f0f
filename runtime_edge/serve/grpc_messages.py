"""Protobuf message classes of the gRPC service, made from the shipped descriptor.

In a descriptor pool of their own: a program may hold another copy of the protocol beside them.
"""

from __future__ import annotations

import pkgutil
from functools import cache, lru_cache
from typing import Any

from runtime_edge.serve.errors import ServeError

SERVICE = "inference.GRPCInferenceService"


@cache
def message_class(name: str) -> Any:
    """The class of a message, e.g. `ModelInferRequest`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool().FindMessageTypeByName(f"inference.{name}"))


@lru_cache(maxsize=1)
def pool() -> Any:
    """The descriptors."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    content = pkgutil.get_data("runtime_edge.serve", "grpc_service.binpb")
    if content is None:
        raise ServeError("the installed package lacks grpc_service.binpb; install it again")
    made = descriptor_pool.DescriptorPool()
    made.Add(descriptor_pb2.FileDescriptorProto.FromString(content))
    return made
