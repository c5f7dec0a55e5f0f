"""Protobuf message classes from a serialized descriptor that ships beside an importer.

Each schema has a descriptor pool of its own, which keeps its messages apart from those of any other
copy of the same `.proto` in the process.
"""

from __future__ import annotations

from functools import cache, cached_property
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


class MessageSchema:
    """Messages of one `.proto` file.

    Attributes:
        folder: package that the descriptor lies in.
        proto: name of the `.proto` file there; its descriptor ends with `.binpb`.
        package: protobuf package of its messages.
    """

    def __init__(self, folder: str, proto: str, package: str) -> None:
        """See the attributes. Nothing is read before it is needed."""
        self.folder = folder
        self.proto = proto
        self.package = package
        self.message_class = cache(self._message_class)

    def descriptor_bytes(self) -> bytes:
        """The serialized `FileDescriptorSet`."""
        name = self.proto.removesuffix(".proto") + ".binpb"
        return resources.files(self.folder).joinpath(name).read_bytes()

    def enum_type(self, name: str) -> Any:
        """Descriptor of one top-level enum."""
        return self._pool.FindEnumTypeByName(f"{self.package}.{name}")

    def _message_class(self, name: str) -> Any:
        return message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(f"{self.package}.{name}")
        )

    @cached_property
    def _pool(self) -> Any:
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(self.descriptor_bytes()).file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool
