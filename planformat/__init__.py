"""The PLAN file: what the builder writes and the edge runtime reads. SPEC.md is the truth."""
