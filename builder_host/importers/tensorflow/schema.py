"""Message classes of graph.proto, e.g. `message_class("GraphDef")`."""

from __future__ import annotations

from builder_host.importers.message_schema import MessageSchema

SCHEMA = MessageSchema("builder_host.importers.tensorflow", "graph.proto", "edgeplan.tensorflow")
message_class = SCHEMA.message_class
