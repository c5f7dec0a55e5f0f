"""Message classes of uff.proto, e.g. `message_class("MetaGraph")`."""

from __future__ import annotations

from builder_host.importers.message_schema import MessageSchema

SCHEMA = MessageSchema("builder_host.importers.uff", "uff.proto", "edgeplan.uff")
message_class = SCHEMA.message_class
