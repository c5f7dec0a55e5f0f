"""The link between a host and a board: PROTOCOL.md is the truth."""
