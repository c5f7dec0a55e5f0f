"""Message classes of caffe.proto, built from the serialized descriptor beside it.

A descriptor pool of our own keeps them apart from any other `caffe.proto` in the process.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTOR_FILE = "caffe.binpb"
PACKAGE = "edgeplan.caffe"


@functools.cache
def _pool() -> Any:
    data = resources.files(__package__).joinpath(DESCRIPTOR_FILE).read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@functools.cache
def message_class(name: str) -> Any:
    """Class of one message of caffe.proto, e.g. `NetParameter`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@functools.cache
def enum_type(name: str) -> Any:
    """Descriptor of one top-level enum of caffe.proto, e.g. `Phase`."""
    return _pool().FindEnumTypeByName(f"{PACKAGE}.{name}")
