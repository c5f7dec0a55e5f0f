"""Message classes of caffe.proto, e.g. `message_class("NetParameter")`, and its enums."""

from __future__ import annotations

from builder_host.importers.message_schema import MessageSchema

SCHEMA = MessageSchema("builder_host.importers.caffe", "caffe.proto", "edgeplan.caffe")
message_class = SCHEMA.message_class
enum_type = SCHEMA.enum_type
